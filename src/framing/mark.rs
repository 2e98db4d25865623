//! The mark: the word that a tool is made to print behind a reply, how it is spelled and how it is found.
//!
//! ```text
//! sqdkfhbnmcaoeplgjizaaaaaaaaaaaaaaah
//!   nonce           |packet id
//!                   role
//! |---- mark1 -----||---- mark2 ----|
//! ```
//!
//! It has letters only, lower-case ones, because some tools refuse names that hold a digit or end in one.
//! The numbers are spelled with the sixteen letters `a` to `p`; none of the others is among these, so that
//! a mark overlaps neither with itself nor with another.

use memchr::memmem;

/// What every mark begins with.
const BEGINNING: &[u8] = b"sq";

/// The letters of a number.
const NUMBER: usize = 16;

/// Beginning and nonce: the first half of a mark, which all marks of a feed have in common.
const HEAD: usize = BEGINNING.len() + NUMBER;

/// Role and packet id: the second half.
const TAIL: usize = 1 + NUMBER;

/// All of it.
pub(super) const LENGTH: usize = HEAD + TAIL;

/// What a mark stands for, beside the packet that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The reply ends before it: the only one, or the second of a pair.
    Last,
    /// The first of the pair behind a request.
    First,
    /// The first of the pair at the start of a session.
    Opening,
    /// The second of that pair.
    Opened,
}

impl Role {
    const ALL: [Self; 4] = [Self::Last, Self::First, Self::Opening, Self::Opened];

    const fn letter(self) -> u8 {
        match self {
            Self::Last => b'z',
            Self::First => b'y',
            Self::Opening => b'u',
            Self::Opened => b'v',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.letter() == letter)
    }
}

/// One mark of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) role: Role,
    /// 0 for the pair at the start, which belongs to no packet.
    pub(super) packet: u64,
}

fn spell(number: u64, letters: &mut [u8]) {
    for (at, letter) in letters.iter_mut().rev().enumerate() {
        *letter = b'a' + (number >> (4 * at) & 0xf) as u8;
    }
}

fn number(letters: &[u8]) -> Option<u64> {
    letters.iter().try_fold(0, |number, letter| {
        matches!(letter, b'a'..=b'p').then(|| number << 4 | u64::from(letter - b'a'))
    })
}

impl Mark {
    /// The whole word.
    pub(super) fn word(self, nonce: u64) -> [u8; LENGTH] {
        let mut word = [0; LENGTH];
        word[..BEGINNING.len()].copy_from_slice(BEGINNING);
        spell(nonce, &mut word[BEGINNING.len()..HEAD]);
        word[HEAD] = self.role.letter();
        spell(self.packet, &mut word[HEAD + 1..]);
        word
    }

    /// Its two halves, each of them a word.
    pub(super) fn halves(word: &[u8; LENGTH]) -> (&[u8], &[u8]) {
        word.split_at(HEAD)
    }

    fn read(tail: &[u8]) -> Option<Self> {
        let (&role, packet) = tail.split_first()?;
        Some(Self { role: Role::of(role)?, packet: number(packet)? })
    }
}

/// Finds the marks of one feed.
#[derive(Debug)]
pub(super) struct Finder(memmem::Finder<'static>);

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The first mark, and where it begins.
    Mark { at: usize, mark: Mark },
    /// Its first half, and behind it something else than a second one.
    Half { at: usize },
    /// Neither begins in the first so many bytes.
    None { before: usize },
}

impl Finder {
    pub(super) fn new(nonce: u64) -> Self {
        let word = Mark { role: Role::Last, packet: 0 }.word(nonce);
        Self(memmem::Finder::new(&word[..HEAD]).into_owned())
    }

    /// The first mark, or half of one, that does not begin before `from`.
    ///
    /// What begins too near the end to be told is not found yet, so that the answer does not depend on the
    /// reads in which the bytes came.
    pub(super) fn find(&self, input: &[u8], from: usize) -> Found {
        match self.0.find(&input[from..]) {
            Some(at) => {
                let at = from + at;
                match input.get(at + HEAD..at + LENGTH) {
                    None => Found::None { before: at },
                    Some(tail) => match Mark::read(tail) {
                        Some(mark) => Found::Mark { at, mark },
                        None => Found::Half { at },
                    },
                }
            }
            None => Found::None { before: from.max((input.len() + 1).saturating_sub(HEAD)) },
        }
    }

    /// The same, where a half alone is nothing but text.
    pub(super) fn find_whole(&self, input: &[u8], mut from: usize) -> Found {
        loop {
            match self.find(input, from) {
                Found::Half { at } => from = at + HEAD,
                found => return found,
            }
        }
    }
}

/// The packets whose marks were taken last in a session, so that a mark that comes again is known.
#[derive(Debug, Default)]
pub(super) struct Taken {
    packets: [Option<u64>; 16],
    next: usize,
}

impl Taken {
    pub(super) fn put(&mut self, packet: u64) {
        self.packets[self.next % self.packets.len()] = Some(packet);
        self.next = (self.next + 1) % self.packets.len();
    }

    pub(super) fn has(&self, packet: u64) -> bool {
        self.packets.contains(&Some(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for role in Role::ALL {
            for packet in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
                let mark = Mark { role, packet };
                let word = mark.word(0xfeed);
                assert!(word.iter().all(u8::is_ascii_lowercase));
                let found = Finder::new(0xfeed).find(&word, 0);
                assert_eq!(found, Found::Mark { at: 0, mark });
                assert_eq!(Finder::new(0xbeef).find(&word, 0), Found::None { before: 18 });
                let (first, second) = Mark::halves(&word);
                assert_eq!([first, second].concat(), word);
            }
        }
    }

    #[test]
    fn half_a_mark_is_told_from_one_that_has_not_come_in_full() {
        let word = Mark { role: Role::Last, packet: 7 }.word(1);
        let finder = Finder::new(1);
        let mut text = b"near '".to_vec();
        text.extend_from_slice(&word[..HEAD]);
        assert_eq!(finder.find(&text, 0), Found::None { before: 6 });
        text.extend_from_slice(b"' '");
        assert_eq!(finder.find(&text, 0), Found::None { before: 6 });
        text.extend_from_slice(&word[HEAD..]);
        assert_eq!(finder.find(&text, 0), Found::Half { at: 6 });
        assert!(matches!(finder.find_whole(&text, 0), Found::None { .. }));
    }

    #[test]
    fn the_last_sixteen_are_remembered() {
        let mut taken = Taken::default();
        (0..20).for_each(|packet| taken.put(packet));
        assert!(!taken.has(3) && taken.has(4) && taken.has(19));
    }
}
