//! The layer in front of a template's framing: what stands between hello and goodbye is the tool's. Pure.
//!
//! See [`script`](crate::template::launcher::script) for how the two lines are spelled. A tool that dies in the middle of a
//! line has the goodbye right behind its last byte, so that it is looked for everywhere.
//!
//! # Invariants
//! 1. Nothing is shown before the hello, and nothing of the goodbye or behind it.
//! 2. What may be the beginning of a goodbye is hidden until more has come. Where that is so little that the tool may
//!    have written it, it is shown when nothing follows it for a while; if it was the goodbye's after all,
//!    that is noticed.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

use crate::template::launcher::script::GS;

/// Fewer bytes of a mark than this may come by chance.
const BY_CHANCE: usize = 8;

/// The longest line behind a mark: ` end -2147483648`.
const LONGEST_LINE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The hello has not come.
    Waiting,
    /// The tool speaks. So many bytes of a mark were shown, because nothing followed them.
    Talking { given: usize },
    /// The goodbye has come.
    Done,
}

/// What some bytes are, from the first to the last: noise, then the tool's. The rest is hidden, or, where
/// the goodbye has come, nothing to anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passage {
    /// So many bytes are to be dropped.
    pub(crate) noise: usize,
    /// So many bytes behind them are the tool's.
    pub(crate) tool: usize,
    /// What follows is to be dropped too.
    pub(crate) is_last: bool,
    /// What happened in them.
    pub(crate) news: Option<Greeting>,
}

/// What a line of the script's tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// The tool is about to start, under a `sh` with this pid.
    Hello(u32),
    /// It has ended with this status, as a shell tells it.
    Goodbye(i32),
    /// The last bytes that were shown were not the tool's.
    Mistaken,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Deframer {
    mark: Finder<'static>,
    state: State,
}

impl Deframer {
    pub(crate) fn new(mark: &str) -> Self {
        let mark = [&[GS], mark.as_bytes(), b" "].concat();
        Self { mark: Finder::new(&mark).into_owned(), state: State::Waiting }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at everything that was read and neither dropped nor shown. To be called again with the rest where
    /// there was news that was not the last.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Passage {
        match self.state {
            State::Waiting => self.wait(bytes),
            State::Talking { given: 0 } => self.talk(bytes),
            State::Talking { given } => self.doubt(bytes, given),
            State::Done => Passage { noise: bytes.len(), is_last: true, ..Passage::default() },
        }
    }

    fn wait(&mut self, bytes: &[u8]) -> Passage {
        let noise = |noise| Passage { noise, ..Passage::default() };
        let Some(at) = self.mark.find(bytes) else {
            return noise(bytes.len() - self.beginning(bytes));
        };
        let line = at + self.mark.needle().len();
        match memchr(b'\n', &bytes[line..]) {
            None if bytes.len() - line > LONGEST_LINE => noise(line),
            None => noise(at),
            Some(len) => match number(&bytes[line..line + len]) {
                Some(pid) => {
                    self.state = State::Talking { given: 0 };
                    let news = Some(Greeting::Hello(pid));
                    Passage { noise: line + len + 1, news, ..Passage::default() }
                }
                // Somebody shows the command itself.
                None => noise(line),
            },
        }
    }

    fn talk(&mut self, bytes: &[u8]) -> Passage {
        let mut from = 0;
        while let Some(at) = self.mark.find(&bytes[from..]) {
            let at = from + at;
            let line = at + self.mark.needle().len();
            let shown = Passage { tool: at, ..Passage::default() };
            let status = match memchr(b'\n', &bytes[line..]) {
                None if bytes.len() - line <= LONGEST_LINE => return shown,
                None => None,
                Some(len) => bytes[line..line + len].strip_prefix(b"end ").and_then(number),
            };
            if let Some(status) = status {
                self.state = State::Done;
                let news = Some(Greeting::Goodbye(status));
                return Passage { is_last: true, news, ..shown };
            }
            // Not ours: a tool that shows its own command line, with a mark before it.
            from = line;
        }
        let hidden = self.beginning(&bytes[from..]);
        Passage { tool: bytes.len() - hidden, ..Passage::default() }
    }

    /// The first `given` bytes of a mark were shown; whether they were a mark's shows now.
    fn doubt(&mut self, bytes: &[u8], given: usize) -> Passage {
        let rest = &self.mark.needle()[given..];
        let common = rest.iter().zip(bytes).take_while(|(mark, byte)| mark == byte).count();
        if common == rest.len() {
            self.state = State::Done;
            let news = Some(Greeting::Mistaken);
            return Passage { noise: bytes.len(), is_last: true, news, ..Passage::default() };
        }
        if common == bytes.len() {
            return Passage::default();
        }
        self.state = State::Talking { given: 0 };
        self.talk(bytes)
    }

    /// How many bytes at the end are the beginning of a mark.
    fn beginning(&self, bytes: &[u8]) -> usize {
        let mark = self.mark.needle();
        let tail = &bytes[bytes.len().saturating_sub(mark.len() - 1)..];
        let at = memrchr(GS, tail).filter(|&at| mark.starts_with(&tail[at..]));
        at.map_or(0, |at| tail.len() - at)
    }

    /// Whether so many bytes that are hidden may be the tool's, so that they must not be hidden for ever.
    pub(crate) fn is_doubtful(&self, hidden: usize) -> bool {
        matches!(self.state, State::Talking { given: 0 }) && (1..BY_CHANCE).contains(&hidden)
    }

    /// Nothing has followed the hidden bytes: they are shown.
    pub(crate) fn give(&mut self, hidden: usize) {
        self.state = State::Talking { given: hidden };
    }
}

/// How long what may be the beginning of a goodbye is hidden.
pub(crate) const DOUBTED_FOR: Duration = Duration::from_millis(20);

/// A status as a shell tells it: from 129 on it is the signal that has ended the tool.
pub(crate) fn status_of(told: i32) -> ExitStatus {
    match told {
        129..=192 => ExitStatus::from_raw(told - 128),
        told => ExitStatus::from_raw((told & 0xff) << 8),
    }
}

/// A number in digits, and nothing else.
fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "subfeedmark";

    fn stream(noise: &[u8], tool: &[u8], status: i32) -> Vec<u8> {
        let hello = format!("\u{1d}{MARK} 4711\n");
        let goodbye = format!("\u{1d}{MARK} end {status}\n");
        [noise, hello.as_bytes(), tool, goodbye.as_bytes()].concat()
    }

    /// What the layer shows of a stream that comes in pieces of this length, and what happened.
    fn shown(stream: &[u8], piece: usize) -> (Vec<u8>, Vec<Greeting>) {
        let mut deframer = Deframer::new(MARK);
        let (mut all, mut unread, mut news) = (Vec::new(), Vec::new(), Vec::new());
        for bytes in stream.chunks(piece) {
            unread.extend_from_slice(bytes);
            loop {
                let passage = deframer.look(&unread);
                all.extend_from_slice(&unread[passage.noise..passage.noise + passage.tool]);
                let gone =
                    if passage.is_last { unread.len() } else { passage.noise + passage.tool };
                unread.drain(..gone);
                news.extend(passage.news);
                if passage.news.is_none() || passage.is_last {
                    break;
                }
            }
        }
        (all, news)
    }

    #[test]
    fn the_tools_bytes_come_through_however_they_are_cut() {
        let every: Vec<u8> = (0..=255).collect();
        let tricky = format!("\u{1d}\u{1d}subfeed \u{1d}{MARK} end x\n\u{1d}{MARK}\n\u{1d}");
        let bytes = [&b"Welcome!\r\n\x1dsubfe"[..], b"", b"no line feed"];
        for noise in bytes {
            for tool in [&b""[..], b"a\nb\n", b"half a reply", &every, tricky.as_bytes()] {
                let whole = stream(noise, tool, 137);
                for piece in 1..=whole.len() {
                    let (all, news) = shown(&whole, piece);
                    assert_eq!(all, tool, "in pieces of {piece}");
                    assert_eq!(news, [Greeting::Hello(4711), Greeting::Goodbye(137)]);
                }
            }
        }
    }

    #[test]
    fn what_comes_behind_the_goodbye_is_nobodys() {
        let late = [&stream(b"", b"x\n", 0)[..], b"logout\n"].concat();
        for piece in 1..=late.len() {
            assert_eq!(shown(&late, piece).0, b"x\n");
        }
    }

    #[test]
    fn a_truncated_stream_has_no_goodbye_and_shows_nothing_of_it() {
        let whole = stream(b"", b"reply\n", 0);
        for len in 0..whole.len() {
            let (all, news) = shown(&whole[..len], 3);
            assert!(b"reply\n".starts_with(&all), "{len}: {all:?}");
            assert!(!news.contains(&Greeting::Goodbye(0)), "{len}");
        }
    }

    #[test]
    fn a_beginning_that_nothing_follows_is_shown_and_a_mistake_is_noticed() {
        let mut deframer = Deframer::new(MARK);
        let hello = stream(b"", b"", 0);
        deframer.look(&hello[..hello.len() / 2]);
        let mut deframer = Deframer::new(MARK);
        deframer.look(format!("\u{1d}{MARK} 1\n").as_bytes());
        let passage = deframer.look(b"x\x1dsu");
        assert_eq!((passage.tool, deframer.is_doubtful(3)), (1, true));
        deframer.give(3);
        // It was the tool's.
        assert_eq!(deframer.look(b"rely\n").tool, 5);
        assert_eq!(deframer.look(b"\x1d").tool, 0);
        deframer.give(1);
        assert_eq!(deframer.look(b"subfeed"), Passage::default());
        assert_eq!(deframer.look(b"subfeedmark ").news, Some(Greeting::Mistaken));
        assert!(deframer.is_done());
        // What cannot be chance is never shown.
        assert!(!Deframer::new(MARK).is_doubtful(3) && !deframer.is_doubtful(9));
    }
}
