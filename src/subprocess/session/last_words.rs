//! What a tool was declared to print at its end ([`Template::skip_at_end`](crate::Template::skip_at_end)), where a
//! reply might stand as well.
//!
//! A tool that leaves early says it while replies are owed, and one that has passed over a request says it where the
//! missing reply would be. So what stands behind the last reply and equals the last words is kept back until
//! it is known: the output ends there, and these were the last words; or more follows, or nothing does for
//! [`KEPT_FOR`], and it was a reply like any other.
//!
//! # Invariants
//! 1. Only whole last words are taken off, or their beginning, where nothing is owed and the session was asked to end.
//! 2. Who has said more than it owes is given nothing while that is kept.

use std::time::Duration;

use crate::subprocess::protocol::Now;
use crate::subprocess::session::{Context, News, Session, Why};

/// How long after what may be its last words a tool may take to close its stdout.
const KEPT_FOR: Duration = Duration::from_millis(100);

impl Session {
    /// Cuts the replies that stand before what may be its last words.
    pub(super) fn cut_before_last_words(&mut self, cx: &Context<'_>, news: &mut News) {
        let words = cx.spec.words.skip_at_end.as_deref().unwrap_or_default();
        let output = &mut self.outputs[0];
        if output.is_closed() {
            // Where its output breaks off, more may have followed.
            if output.is_at_end() && output.kept() == words.len() {
                output.drop_kept();
            }
            self.forget_last_words();
            return self.cut_what_is_whole(cx, news);
        }
        if output.kept() > 0 {
            // Nothing has come since.
            return self.cut_what_is_whole(cx, news);
        }
        if !self.is_fresh() {
            for beginning in beginnings(words) {
                if !self.outputs[0].keep_last(beginning) {
                    continue;
                }
                self.cut_what_is_whole(cx, news);
                if self.why == Some(Why::Distrusted) {
                    return;
                }
                if self.outputs[0].uncut().is_empty() {
                    self.last_words_since = Some(cx.now.patient);
                    return;
                }
                // It stands in the middle of a reply.
                self.outputs[0].keep_nothing();
            }
        }
        self.last_words_since = None;
        self.cut_what_is_whole(cx, news);
    }

    fn forget_last_words(&mut self) {
        self.outputs[0].keep_nothing();
        self.last_words_since = None;
    }

    /// Whether it has answered everything and said what may be its last words.
    pub(super) fn may_be_leaving(&self) -> bool {
        self.last_words_since.is_some() && self.owed() == 0
    }

    /// Whether what it owes may have come already.
    pub(super) fn may_have_answered(&self) -> bool {
        self.last_words_since.is_some() && self.owed() > 0
    }

    /// Whether what stands from there on is the beginning of its last words, of which more may come.
    pub(super) fn begins_last_words(&self, from: usize, cx: &Context<'_>) -> bool {
        let words = cx.spec.words.skip_at_end.as_deref();
        words.is_some_and(|words| self.outputs[0].goes_on_as(from, words))
    }

    /// Until when that is kept back.
    pub(super) fn last_words_until(&self) -> Option<Now> {
        Some(self.last_words_since?.saturating_add(KEPT_FOR))
    }

    /// We did not read meanwhile: its end may have come long ago.
    pub(super) fn keep_last_words_longer(&mut self, now: Now) {
        if let Some(since) = &mut self.last_words_since {
            *since = now;
        }
    }

    /// Nothing has followed it, and its output is open: it was a reply.
    pub(super) fn were_no_last_words(&mut self, cx: &Context<'_>, news: &mut News) {
        self.forget_last_words();
        self.cut_what_is_whole(cx, news);
    }
}

/// The last words, and those beginnings of them that may be taken for whole replies because they end with a line.
fn beginnings(words: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memrchr_iter(b'\n', words).map(|at| at + 1);
    let shorter = ends.filter(|&end| end < words.len()).map(|end| &words[..end]);
    std::iter::once(words).filter(|words| !words.is_empty()).chain(shorter)
}
