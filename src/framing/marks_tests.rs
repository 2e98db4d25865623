//! Unit tests of the marks, in a file of their own for their number.

use bstr::ByteSlice;

use super::*;

const LIMIT: usize = 1000;

fn sentinel() -> Sentinel {
    Sentinel::new(".print {mark}").with_nonce(0xfeed)
}

fn marks() -> Marks {
    Marks::new(&sentinel())
}

/// `text` with `<n>` replaced by the mark of packet `n`, for `n` up to 9.
fn output(text: &str) -> Vec<u8> {
    (0..10)
        .fold(text.to_owned(), |text, n| text.replace(&format!("<{n}>"), &sentinel().mark(n)))
        .into_bytes()
}

/// The body of packet `packet`, its bytes arriving one by one, and what is left behind it.
fn trickle(marks: &mut Marks, packet: u64, input: &[u8]) -> Result<Vec<u8>, FramingErrorKind> {
    for end in 1..=input.len() {
        let position = Position::new(packet, LIMIT, false);
        match marks.scan(&input[..end], position).map_err(|e| e.kind())? {
            Scan::Partial => {}
            Scan::Complete { body, len } => {
                assert_eq!(len, end, "taken as soon as it is complete");
                return Ok(input[body].to_vec());
            }
        }
    }
    panic!("no end in {:?}", input.as_bstr());
}

#[test]
fn replies_of_no_line_of_one_and_of_half_a_line_are_told_apart() {
    let marks = &mut marks();
    assert_eq!(trickle(marks, 0, &output("<0>\n")), Ok(vec![]));
    assert_eq!(trickle(marks, 1, &output("a\nb\n<1>\n")), Ok(b"a\nb\n".to_vec()));
    assert_eq!(trickle(marks, 2, &output("half<2> \r\n")), Ok(b"half".to_vec()));
    assert_eq!(trickle(marks, 3, &output("\n<3>\n")), Ok(b"\n".to_vec()));
}

#[test]
fn what_only_resembles_a_mark_is_part_of_the_reply() {
    let mark = sentinel().mark(0);
    let head = &mark[..18];
    let foreign = sentinel().with_nonce(0xbeef).mark(0);
    let upper = sentinel().mark(0xabc).to_uppercase();
    let body = format!("{head}{head}zaaqqaaaaaaaaaaaaa {foreign} {upper}");
    let input = format!("{body}{}\n", sentinel().mark(0));
    assert_eq!(trickle(&mut marks(), 0, input.as_bytes()), Ok(body.into_bytes()));
}

#[test]
fn the_mark_of_another_packet_in_front_is_an_error() {
    for other in [0, 2] {
        let input = output(&format!("a\n<{other}>\n<1>\n"));
        assert_eq!(
            trickle(&mut marks(), 1, &input),
            Err(FramingErrorKind::MarkSkipped { expected: 1, found: other })
        );
    }
}

#[test]
fn ids_need_not_ascend() {
    // A packet that is sent again after a worker's death may follow a later one.
    let marks = &mut marks();
    assert_eq!(trickle(marks, 9, &output("<9>\n")), Ok(vec![]));
    assert_eq!(trickle(marks, 4, &output("<4>\n")), Ok(vec![]));
    // Nor be different: a retry may meet the same session.
    assert_eq!(trickle(marks, 4, &output("<4>\n")), Ok(vec![]));
}

#[test]
fn an_echo_of_the_command_is_found_out_before_it_ends_a_reply() {
    let echoed = Err(FramingErrorKind::MarkEchoed { packet: 1 });
    let input = output("SELECT 1;\n.print <1>\n1\n<1>\n");
    assert_eq!(trickle(&mut marks(), 1, &input), echoed);
    let input = output("Error near \".print <1>\"\n");
    assert_eq!(trickle(&mut marks(), 1, &input), echoed);
}

#[test]
fn an_echo_that_nothing_tells_is_found_out_by_the_second_mark() {
    let mut marks = Marks::new(&Sentinel::new("\"{mark}\"").with_nonce(0xfeed));
    assert_eq!(trickle(&mut marks, 1, &output("\"<1>\"\n")), Ok(b"\"".to_vec()));
    let repeated = Err(FramingErrorKind::MarkRepeated { packet: 1 });
    assert_eq!(trickle(&mut marks, 2, &output("\"<1>\"\n")), repeated);
    // Also when others have been taken since.
    assert_eq!(trickle(&mut marks, 2, &output("\"<2>\"\n")), Ok(b"\"".to_vec()));
    assert_eq!(trickle(&mut marks, 3, &output("\"<1>\"\n")), repeated);
}

#[test]
fn two_marks_on_one_line_are_an_error() {
    let found = trickle(&mut marks(), 0, &output("a<0> <0>\n"));
    assert_eq!(found, Err(FramingErrorKind::MarkRepeated { packet: 0 }));
    let found = trickle(&mut marks(), 0, &output("a<0><1>\n"));
    assert_eq!(found, Err(FramingErrorKind::ReplyMalformed));
}

#[test]
fn an_error_names_the_reply_that_it_disproves() {
    let marks = &mut marks();
    assert_eq!(trickle(marks, 7, &output("<7>\n")), Ok(vec![]));
    let position = Position::new(8, LIMIT, false);
    assert_eq!(marks.scan(&output("<7>\n"), position).unwrap_err().disproves(), Some(7));
    assert_eq!(marks.scan(&output("<9>\n"), position).unwrap_err().disproves(), None);
}

/// As maxima complains of a request that left a quote open.
#[test]
fn a_mark_in_a_complaint_is_found_out_where_it_is_promised_to_be_alone() {
    let mut alone = Marks::new(&sentinel().alone());
    let not_alone = Err(FramingErrorKind::MarkNotAlone { packet: 1 });
    for complaint in
        ["incorrect syntax: <1> is not an infix operator\n", "<1> is not\n", "'<1>'\n", "> <1>\n"]
    {
        assert_eq!(trickle(&mut alone, 1, &output(complaint)), not_alone, "{complaint}");
    }
    for (reply, body) in [("<1>\n", ""), ("a\n<1>\n", "a\n"), ("\n\n<1> \t\r\n", "\n\n")] {
        assert_eq!(trickle(&mut alone, 1, &output(reply)), Ok(body.into()), "{reply}");
    }
    assert_eq!(trickle(&mut alone, 1, &output("no line feed<1>\n")), not_alone);
}

fn halved() -> Marks {
    Marks::new(&Sentinel::new("'{mark1}' '{mark2}'").with_nonce(0xfeed))
}

#[test]
fn half_a_mark_says_that_the_command_came_back_as_text() {
    let mark = sentinel().mark(1);
    let (first, second) = mark.split_at(18);
    let echoed = Err(FramingErrorKind::MarkEchoed { packet: 1 });
    let complaint = format!("near '{first}' '{second}'\n{mark}\n");
    assert_eq!(trickle(&mut halved(), 1, complaint.as_bytes()), echoed);
    // On the mark's own line too, where it would be dropped.
    let behind = format!("a{mark} '{first}' '{second}'\n");
    assert_eq!(trickle(&mut halved(), 1, behind.as_bytes()), echoed);
    // The second half is nothing but letters.
    let second = format!("{second}\n");
    let reply = format!("{second}{mark}\n");
    assert_eq!(trickle(&mut halved(), 1, reply.as_bytes()), Ok(second.into_bytes()));
}

#[test]
fn at_the_end_the_marks_line_feed_may_be_missing_but_no_part_of_the_mark() {
    let input = output("a\n<0>");
    let scan = marks().scan(&input, Position::new(0, LIMIT, true)).unwrap();
    assert_eq!(scan, Scan::Complete { body: 0..2, len: input.len() });
    let half = &input[..input.len() - 1];
    let error = marks().scan(half, Position::new(0, LIMIT, true)).unwrap_err();
    assert_eq!(error.kind(), FramingErrorKind::Truncated);
}

#[test]
fn a_reply_over_the_limit_is_known_without_its_mark() {
    let marks = &mut marks();
    let scan = |marks: &mut Marks, input: &[u8]| {
        marks.scan(input, Position::new(0, 3, false)).map_err(|e| e.kind())
    };
    let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
    assert_eq!(scan(marks, &output("abcd<0>\n")), too_long);
    assert_eq!(scan(marks, &[b'x'; 3 + 17]), Ok(Scan::Partial));
    assert_eq!(scan(marks, &[b'x'; 3 + 18]), too_long);
    assert!(matches!(scan(marks, &output("abc<0>\n")), Ok(Scan::Complete { .. })));
}
