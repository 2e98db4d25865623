//! Unit tests of pairs of marks, in a file of their own for their number.

use super::*;

const LIMIT: usize = 1000;

fn sentinel() -> Sentinel {
    Sentinel::new("say {mark}").with_nonce(0xfeed).paired()
}

fn pair() -> Pair {
    Pair::new(&sentinel())
}

/// `text` with these replaced: `<n>` by the second mark of packet `n`, `[n]` by its first, `[[` and `]]` by
/// the pair at the start.
fn output(text: &str) -> Vec<u8> {
    let mut opening = Vec::new();
    sentinel().append_opening(&mut opening);
    let marks: Vec<&str> =
        opening.lines().map(|line| line.to_str().unwrap().strip_prefix("say ").unwrap()).collect();
    let text = text.replace("[[", marks[0]).replace("]]", marks[1]);
    let text = (0..10).fold(text, |text, n| {
        let text = text.replace(&format!("<{n}>"), &sentinel().mark(n));
        text.replace(&format!("[{n}]"), &sentinel().first_mark(n))
    });
    text.into_bytes()
}

/// The reply to packet `packet`, its bytes arriving one by one. What is behind it stays.
fn trickle(
    pair: &mut Pair,
    packet: u64,
    input: &[u8],
) -> Result<(String, String), FramingErrorKind> {
    for end in 1..=input.len() {
        let position = Position::new(packet, LIMIT, false);
        if let Scan::Complete { body, len } =
            pair.scan(&input[..end], position).map_err(|error| error.kind())?
        {
            assert_eq!(len, end, "taken as soon as it is complete");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            return Ok((text(&input[body]), text(&input[len..])));
        }
    }
    panic!("no end in {:?}", input.as_bstr());
}

/// All replies, packets numbered from 0.
fn replies(text: &str) -> Result<Vec<String>, FramingErrorKind> {
    let mut pair = pair();
    let mut rest = output(text);
    let mut replies = Vec::new();
    while rest.contains_str(sentinel().mark(replies.len() as u64)) {
        let (reply, left) = trickle(&mut pair, replies.len() as u64, &rest)?;
        replies.push(reply);
        rest = left.into_bytes();
    }
    Ok(replies)
}

fn changed(packet: u64) -> Result<Vec<String>, FramingErrorKind> {
    Err(FramingErrorKind::NoiseChanged { packet })
}

#[test]
fn the_noise_is_taken_off_and_what_is_in_front_of_the_first_pair_too() {
    let node = "Welcome!\n> [[\nundefined\n> ]]\nundefined\n> 42\n> [0]\nundefined\n> <0>\nundefined\n> \
                > [1]\nundefined\n> <1>\nundefined\n> ";
    assert_eq!(replies(node), Ok(vec!["42\n> ".to_owned(), "> ".to_owned()]));
}

#[test]
fn a_tool_without_noise_of_its_own_may_be_paired() {
    assert_eq!(replies("[[\n]]\na\n[0]\n<0>\n[1]\n<1>\n"), Ok(vec!["a\n".into(), "".into()]));
    assert_eq!(replies("[[]]a[0]<0>b[1]<1>"), Ok(vec!["a".into(), "b".into()]));
}

#[test]
fn digits_may_differ_in_value_and_number() {
    let ipython = "In 1: [[\nIn 2: ]]\nIn 3: 7\nIn 4: [0]\nIn 98: <0>\nIn 99: a\nIn 1000: [1]\n\
                   In 0: <1>\nIn 5: ";
    assert_eq!(replies(ipython), Ok(vec!["7\nIn 4: ".into(), "a\nIn 1000: ".into()]));
    assert_eq!(replies("[[\n1) ]]\n2) [0]\n<0>\n"), changed(0));
}

/// `!` makes `true` of what `console.log` returns.
#[test]
fn a_request_that_took_the_first_command_for_its_operand_is_found_out() {
    let start = "[[\nundefined\n> ]]\nundefined\n> ";
    let open = format!("{start}... [0]\ntrue\n> <0>\nundefined\n> ");
    assert_eq!(replies(&open), changed(0));
    let swallowed = format!("{start}hello <0>\nundefined\n> ");
    assert_eq!(replies(&swallowed), changed(0));
    let more = format!("{start}[0]\nundefined\n> oh<0>\nundefined\n> ");
    assert_eq!(replies(&more), changed(0));
    let less = format!("{start}[0]\nundefined<0>\nundefined\n> ");
    assert_eq!(replies(&less), changed(0));
}

#[test]
fn what_was_said_unasked_behind_a_pair_is_the_next_packets_error() {
    let text = "[[\n> ]]\n> a\n[0]\n> <0>\ntimer!> [1]\n> <1>\n";
    assert_eq!(replies(text), changed(1));
}

#[test]
fn nothing_is_said_while_nothing_is_owed() {
    let mut pair = pair();
    let nobody = |eof| Position::new(u64::MAX, LIMIT, eof);
    let start = output("banner [[\n> ]]\n> ");
    assert_eq!(pair.scan(&start, nobody(false)).unwrap(), Scan::Partial);
    let input = [start, output("7[0]\n> <0>\n> ")].concat();
    let scan = pair.scan(&input, Position::new(0, LIMIT, false)).unwrap();
    let Scan::Complete { body, len } = scan else { panic!("{scan:?}") };
    assert_eq!(&input[body], b"7");
    assert_eq!(pair.scan(&input[len..], nobody(false)).unwrap(), Scan::Partial);
    let end = pair.scan(&input[len..], nobody(true)).unwrap_err();
    assert_eq!(end.kind(), FramingErrorKind::Truncated);
}

#[test]
fn marks_out_of_their_turn_are_told_from_each_other() {
    let start = "[[\n]]\n";
    let skipped = |expected, found| Err(FramingErrorKind::MarkSkipped { expected, found });
    assert_eq!(trickle(&mut pair(), 0, &output(&format!("{start}a[1]\n<1>\n"))), skipped(0, 1));
    assert_eq!(trickle(&mut pair(), 0, &output(&format!("{start}a[0]\n[1]\n"))), skipped(0, 1));
    let repeated = Err(FramingErrorKind::MarkRepeated { packet: 0 });
    assert_eq!(trickle(&mut pair(), 0, &output(&format!("{start}a[0]\n[0]\n<0>"))), repeated);
    let mut pair = pair();
    assert!(trickle(&mut pair, 0, &output(&format!("{start}a[0]\n<0>"))).is_ok());
    assert_eq!(trickle(&mut pair, 1, &output("\nb<0>\n")), repeated);
}

#[test]
fn without_the_pair_at_the_start_there_is_no_reply() {
    assert_eq!(replies("a\n[0]\n<0>\n"), changed(0));
    assert_eq!(replies("[[\na\n[0]\n<0>\n"), changed(0));
    assert_eq!(replies("]]\na\n[0]\n<0>\n"), changed(0));
    assert_eq!(replies("[[\n]]\n[[\n]]\na\n[0]\n<0>\n"), changed(0));
}

#[test]
fn noise_that_ends_with_a_digit_is_refused_when_there_is_a_packet_to_tell() {
    let mut pair = pair();
    let start = output("[[\nOut: 1]]\nOut: 2");
    assert_eq!(pair.scan(&start, Position::new(u64::MAX, LIMIT, false)).unwrap(), Scan::Partial);
    let input = [start, output("7[0]\nOut: 3<0>")].concat();
    let error = pair.scan(&input, Position::new(0, LIMIT, false)).unwrap_err();
    assert!(error.to_string().contains("ends with a digit"), "{error}");
}

#[test]
fn an_echo_of_the_command_is_found_out() {
    let start = "[[\n]]\n";
    let echoed = Err(FramingErrorKind::MarkEchoed { packet: 0 });
    assert_eq!(trickle(&mut pair(), 0, &output(&format!("{start}a\nsay [0]\n<0>\n"))), echoed);
    let halved = Sentinel::new("{mark1} {mark2}").with_nonce(0xfeed).paired();
    let mark = halved.first_mark(0);
    let input = output(&format!("{start}{} {}\n[0]\n<0>\n", &mark[..18], &mark[18..]));
    assert_eq!(trickle(&mut Pair::new(&halved), 0, &input), echoed);
}

#[test]
fn only_the_body_counts_against_the_limit() {
    let scan = |limit, text: &str| {
        let position = Position::new(0, limit, false);
        let scan = pair().scan(&output(text), position).map_err(|error| error.kind())?;
        Ok(matches!(scan, Scan::Complete { .. }))
    };
    let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
    assert_eq!(scan(3, "a long banner[[a prompt> ]]a prompt> abc[0]a prompt> <0>"), Ok(true));
    assert_eq!(scan(3, "a long banner[[a prompt> ]]a prompt> abcd[0]a prompt> <0>"), too_long);
    // The beginning of a mark may be one.
    assert_eq!(scan(3, &format!("[[> ]]> {}", "x".repeat(3 + 17))), Ok(false));
    assert_eq!(scan(3, &format!("[[> ]]> {}", "x".repeat(3 + 18))), too_long);
    let banner = "x".repeat(LONGEST_BEGINNING + 18);
    let changed = Err(FramingErrorKind::NoiseChanged { packet: 0 });
    assert_eq!(scan(3, &banner), changed);
    assert_eq!(scan(3, &banner[..LONGEST_BEGINNING]), Ok(false));
    let noise = "x".repeat(LONGEST_NOISE + 18);
    assert_eq!(scan(3, &format!("[[{noise}")), changed);
}
