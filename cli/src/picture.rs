//! `subfeed timeline TRACE`: a run as one picture, an SVG that needs nothing else.
//!
//! Above, a lane for each worker, with what it did; in front of them the lane of the packet that the consumer waited for.
//! Below, how full the window was: answers that are ready, records with workers, records that wait.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

const WIDTH: f64 = 1_200.0;
const LEFT: f64 = 110.0;
const LANE: f64 = 22.0;
const TOP: f64 = 56.0;
const FILL: f64 = 140.0;

/// The states of a worker, what is drawn for them, and what stands in the legend.
const COLOURS: [(&str, &str); 9] = [
    ("busy", "#3b8f5a"),
    ("idle", "#d9dde3"),
    ("starting", "#9db8e0"),
    ("ready", "#b9d3c2"),
    ("quiet", "#e8c55a"),
    ("stalled", "#d9722e"),
    ("closing", "#a58bc4"),
    ("exited", "#8a8f98"),
    ("head", "#c23b3b"),
];
/// What the window has, from below.
const FILLS: [(&str, &str); 3] =
    [("ready", "#3b8f5a"), ("with workers", "#9db8e0"), ("waiting", "#d9dde3")];

/// Something that lasted, in microseconds.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    start: f64,
    end: f64,
    name: String,
}

/// What a trace tells.
#[derive(Debug, Default)]
struct Run {
    title: String,
    lanes: BTreeMap<u64, (String, Vec<Piece>)>,
    fill: Vec<(f64, [f64; 3])>,
    end: f64,
    left_out: u64,
}

/// The picture of this trace.
pub(crate) fn draw(trace: &Path) -> anyhow::Result<String> {
    let text = fs::read(trace).with_context(|| format!("`{}` cannot be read", trace.display()))?;
    let no_trace = || format!("`{}` is no trace of this program", trace.display());
    let json = serde_json::from_slice(&text).with_context(no_trace)?;
    Ok(picture(&read(&json).with_context(no_trace)?))
}

fn read(json: &Value) -> anyhow::Result<Run> {
    let Some(events) = json["traceEvents"].as_array() else { bail!("it has no `traceEvents`") };
    let mut run =
        Run { left_out: json["otherData"]["left_out"].as_u64().unwrap_or(0), ..Run::default() };
    for event in events {
        let (lane, at) = (event["tid"].as_u64().unwrap_or(0), event["ts"].as_f64().unwrap_or(0.0));
        let name = event["name"].as_str().unwrap_or_default();
        run.end = run.end.max(at);
        match event["ph"].as_str() {
            Some("M") if name == "process_name" => {
                run.title = event["args"]["name"].as_str().unwrap_or_default().to_owned();
            }
            Some("M") if name == "thread_name" => {
                let name = event["args"]["name"].as_str().unwrap_or_default();
                run.lanes.entry(lane).or_default().0 = name.to_owned();
            }
            // A session spans its states, which are drawn.
            Some("X") if !name.starts_with("session ") => {
                let end = at + event["dur"].as_f64().unwrap_or(0.0);
                run.end = run.end.max(end);
                run.lanes.entry(lane).or_default().1.push(Piece {
                    start: at,
                    end,
                    name: name.to_owned(),
                });
            }
            Some("C") if name == "window" => {
                let level = |what: &str| event["args"][what].as_f64().unwrap_or(0.0).max(0.0);
                run.fill.push((at, FILLS.map(|(what, _)| level(what))));
            }
            _ => {}
        }
    }
    Ok(run)
}

/// What is next to one another and the same is one piece, and so is what is less than half a point wide: a run of
/// a million reads is a picture of some thousand pieces.
fn merged(pieces: &[Piece], width: f64) -> Vec<Piece> {
    let mut sorted = pieces.to_vec();
    sorted.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut all: Vec<Piece> = Vec::new();
    for piece in sorted {
        match all.last_mut() {
            Some(last)
                if (last.name == piece.name || piece.end - piece.start < width)
                    && piece.start - last.end < width =>
            {
                last.end = last.end.max(piece.end);
            }
            _ => all.push(piece),
        }
    }
    all
}

fn picture(run: &Run) -> String {
    let lanes = run.lanes.len() as f64;
    let bottom = TOP + lanes * LANE + 24.0;
    let height = bottom + FILL + 60.0;
    let span = run.end.max(1.0);
    let x = |at: f64| LEFT + at / span * (WIDTH - LEFT - 20.0);
    let point = span / (WIDTH - LEFT) / 2.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#22262c\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let left_out = match run.left_out {
        0 => String::new(),
        n => format!(", {n} earlier events left out"),
    };
    // Writing to memory does not fail.
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"22\" font-size=\"15\">{}: {:.3} s{left_out}</text>",
        escaped(&run.title),
        run.end / 1e6
    );
    for (i, (name, colour)) in COLOURS.iter().enumerate() {
        let at = 12.0 + i as f64 * 90.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"43\">{name}</text>",
            at + 17.0
        );
    }
    for (i, (lane, (name, pieces))) in run.lanes.iter().enumerate() {
        let y = TOP + i as f64 * LANE;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{:.0}\">{}</text>", y + 15.0, escaped(name));
        for piece in merged(pieces, point) {
            // In the lane of the head stands who has it.
            let state = if *lane == 0 { "head" } else { &piece.name };
            let colour =
                COLOURS.iter().find(|(name, _)| *name == state).map_or("#444a52", |(_, c)| c);
            let _ = writeln!(
                svg,
                "<rect x=\"{:.2}\" y=\"{:.0}\" width=\"{:.2}\" height=\"{}\" fill=\"{colour}\"><title>{}: {:.3} ms</title></rect>",
                x(piece.start),
                y + 2.0,
                (x(piece.end) - x(piece.start)).max(0.4),
                LANE - 4.0,
                escaped(&piece.name),
                (piece.end - piece.start) / 1e3
            );
        }
    }
    fill(&mut svg, run, bottom, x, point);
    for k in 0..=4 {
        let at = span * f64::from(k) / 4.0;
        let anchor = ["start", "middle", "middle", "middle", "end"][k as usize];
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{:.3} s</text>",
            x(at),
            bottom + FILL + 18.0,
            at / 1e6
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The window's fill, one area upon the other.
fn fill(svg: &mut String, run: &Run, top: f64, x: impl Fn(f64) -> f64, point: f64) {
    let most = run.fill.iter().map(|(_, levels)| levels.iter().sum::<f64>()).fold(1.0, f64::max);
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\">window</text><text x=\"12\" y=\"{:.0}\">of {most:.0}</text>",
        top + 15.0,
        top + 32.0
    );
    // A level holds until the next; of those within a point the highest is shown.
    let mut levels: Vec<(f64, [f64; 3])> = Vec::new();
    for &(at, now) in &run.fill {
        match levels.last_mut() {
            Some((before, level)) if at - *before < point => {
                for (level, now) in level.iter_mut().zip(now) {
                    *level = level.max(now);
                }
            }
            _ => levels.push((at, now)),
        }
    }
    for (k, (name, colour)) in FILLS.iter().enumerate().rev() {
        let mut path = format!("M{:.2} {:.2}", x(0.0), top + FILL);
        let mut height = top + FILL;
        for (at, level) in &levels {
            let _ = write!(path, "L{:.2} {height:.2}", x(*at));
            height = top + FILL - level[..=k].iter().sum::<f64>() / most * FILL;
            let _ = write!(path, "L{:.2} {height:.2}", x(*at));
        }
        let _ = write!(path, "L{:.2} {height:.2}L{:.2} {:.2}Z", x(run.end), x(run.end), top + FILL);
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"{colour}\"><title>{name}</title></path>");
        let at = LEFT + k as f64 * 130.0;
        let y = top + FILL + 34.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"{y:.0}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"{:.0}\">{name}</text>",
            at + 17.0,
            y + 11.0
        );
    }
}

fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            c if c.is_control() => all.push(' '),
            c => all.push(c),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: f64, end: f64, name: &str) -> Piece {
        Piece { start, end, name: name.to_owned() }
    }

    #[test]
    fn what_cannot_be_seen_is_drawn_as_one() {
        let pieces = [
            piece(0.0, 5.0, "busy"),
            piece(5.0, 9.0, "busy"),
            piece(9.0, 9.1, "idle"),
            piece(20.0, 30.0, "idle"),
        ];
        assert_eq!(merged(&pieces, 1.0), [piece(0.0, 9.1, "busy"), piece(20.0, 30.0, "idle")]);
    }

    #[test]
    fn names_are_text_and_no_markup() {
        let json = serde_json::json!({"traceEvents": [
            {"ph": "M", "tid": 0, "name": "process_name", "args": {"name": "sh -c 'a <b >c & \"d\"'"}},
            {"ph": "M", "tid": 1, "name": "thread_name", "args": {"name": "worker 0"}},
            {"ph": "X", "tid": 1, "ts": 0.0, "dur": 10.0, "name": "busy"},
            {"ph": "C", "ts": 5.0, "name": "window", "args": {"ready": 1, "with workers": 2, "waiting": 0}},
        ]});
        let svg = picture(&read(&json).unwrap());
        assert!(svg.contains("sh -c 'a &lt;b &gt;c &amp; &quot;d&quot;'"), "{svg}");
        assert_eq!(svg.matches("<title>busy").count(), 1);
        // Each element that is begun is ended.
        for element in ["svg", "text", "title", "rect", "path"] {
            let begun = svg.matches(&format!("<{element} ")).count()
                + svg.matches(&format!("<{element}>")).count();
            let closed = svg.matches(&format!("</{element}>")).count();
            let begin = format!("<{element} ");
            let empty = svg.split(&begin).skip(1);
            let empty = empty
                .filter(|rest| rest.split('>').next().is_some_and(|tag| tag.ends_with('/')))
                .count();
            assert_eq!(begun, closed + empty, "{element}");
        }
        assert!(read(&serde_json::json!({"other": 1})).is_err());
    }
}
