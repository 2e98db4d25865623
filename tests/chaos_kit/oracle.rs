//! What a round may have done to its packets, and what not.

use std::collections::{BTreeMap, HashSet};

use bstr::{BString, ByteSlice};
use subfeed::policy::OnStall;
use subfeed::{Error, ErrorKind, Order, Snapshot};

use super::plan::{Mood, Plan, Theme, answer};

/// One item of a feed: the input beside it where that was asked for.
pub(crate) type Item = (Option<String>, Result<BString, Error>);

/// Judges the items of one feed as they come.
pub(crate) struct Oracle<'a> {
    plan: &'a Plan,
    pub(crate) items: u64,
    pub(crate) replies: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) duplicated: u64,
    pub(crate) misordered: u64,
    pub(crate) lost: u64,
    pub(crate) violations: Vec<String>,
    seen: HashSet<u64>,
    /// Sessions that the errors account for.
    charged: u64,
    causes: u64,
    halted: u64,
    bare: u64,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            items: 0,
            replies: 0,
            errors: BTreeMap::new(),
            duplicated: 0,
            misordered: 0,
            lost: 0,
            violations: Vec::new(),
            seen: HashSet::new(),
            charged: 0,
            causes: 0,
            halted: 0,
            bare: 0,
        }
    }

    pub(crate) fn violated(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    pub(crate) fn item(&mut self, (input, result): Item) {
        let position = self.items;
        self.items += 1;
        let packet = match &result {
            Ok(reply) => self.reply(reply),
            Err(error) => self.error(error),
        };
        let Some(packet) = packet else { return };
        if self.plan.order == Order::Input && packet != position {
            self.misordered += 1;
            self.violated(format!("position {position} holds packet {packet}: {result:?}"));
        }
        if !self.seen.insert(packet) {
            self.duplicated += 1;
            self.violated(format!("packet {packet} came twice"));
        }
        if self.plan.keep_input && !self.plan.chained {
            let given = self.plan.request(packet);
            if input.as_ref() != Some(&given) {
                self.violated(format!("beside packet {packet} is the input {input:?}"));
            }
        }
    }

    fn reply(&mut self, reply: &BString) -> Option<u64> {
        self.replies += 1;
        let packet = reply.split_str(":").next().and_then(|n| n.to_str().ok()?.parse().ok());
        let Some(packet) = packet else {
            self.violated(format!("a reply that nobody gave: {:?}", excerpt(reply)));
            return None;
        };
        let request = self.plan.request(packet);
        let fine = if self.plan.chained {
            let first = answer(request.as_bytes());
            *reply == answer(&first) || *reply == answer(format!("{packet}:err").as_bytes())
        } else {
            *reply == answer(request.as_bytes())
        };
        if !fine {
            self.violated(format!("the reply to packet {packet} is {:?}", excerpt(reply)));
        }
        if self.plan.is_poison(packet) {
            self.violated(format!("packet {packet} kills whoever reads it, but has a reply"));
        }
        Some(packet)
    }

    fn error(&mut self, error: &Error) -> Option<u64> {
        *self.errors.entry(name(error)).or_default() += 1;
        if !self.allowed(error) {
            self.violated(format!("this error was not called for: {error:?}"));
        }
        match (error.is_fatal(), error.kind()) {
            (true, ErrorKind::Halted) if !error.to_string().contains("the feed was halted") => {
                self.halted += 1
            }
            (true, _) => self.causes += 1,
            _ => {}
        }
        let Some(packet) = error.packet() else {
            self.bare += 1;
            if !error.is_fatal() {
                self.violated(format!("an item's error without its packet: {error:?}"));
            }
            return None;
        };
        if matches!(error.kind(), ErrorKind::Died | ErrorKind::Timeout) && !error.is_fatal() {
            let due = if self.plan.at_most_once { 1 } else { 1 + self.plan.retries };
            if error.attempts() != due {
                self.violated(format!("{due} attempts were due: {error:?}"));
            }
            self.charged += u64::from(error.attempts());
        }
        let request = format!("{}\n", self.plan.request(packet));
        if !error.is_fatal()
            && !self.plan.chained
            && error.request() != Some(request.as_str().into())
        {
            self.violated(format!("the request is not the one of packet {packet}: {error:?}"));
        }
        Some(packet)
    }

    /// Whether this round's faults explain the error.
    fn allowed(&self, error: &Error) -> bool {
        let plan = self.plan;
        let poison = error.packet().is_some_and(|packet| plan.is_poison(packet));
        let ends = plan.theme == Theme::Ends;
        let withholds = plan.moods.contains(&Mood::Withholding);
        match (error.is_fatal(), error.kind()) {
            (false, ErrorKind::Died) => plan.sessions_may_fail() || poison,
            (false, ErrorKind::NotRedelivered) => {
                plan.at_most_once && (plan.sessions_may_fail() || plan.poison.is_some())
            }
            (false, ErrorKind::Timeout) => plan.packet_timeout.is_some(),
            (true, ErrorKind::Died) => ends,
            (true, ErrorKind::Timeout) => plan.run_timeout.is_some(),
            (true, ErrorKind::Stalled) => plan.on_stall == OnStall::Fail && withholds,
            (true, ErrorKind::ReplyCount { .. }) => plan.may_leave,
            (true, ErrorKind::Halted) => ends || plan.may_leave,
            _ => false,
        }
    }

    /// The feed has said that there is nothing more: `pulled` inputs went in.
    pub(crate) fn ended(&mut self, pulled: u64, snapshot: &Snapshot) {
        let fatal = self.causes > 0;
        if self.causes > 1 || (self.halted > 0 && !fatal) {
            let text = format!("{} causes and {} halted", self.causes, self.halted);
            self.violated(text);
        }
        if self.bare > 1 {
            self.violated("more than one error without a packet".to_owned());
        }
        for packet in 0..pulled {
            if !self.seen.contains(&packet) {
                self.lost += 1;
            }
        }
        // An input on its way out of the source when the feed was stopped is nobody's.
        let late = u64::from(fatal);
        if self.lost > late || self.seen.len() as u64 > pulled {
            let text = format!("{pulled} were pulled, {} came back: {snapshot:?}", self.seen.len());
            self.violated(text);
        } else {
            self.lost = 0;
        }
        if !fatal && !self.plan.chained && self.plan.records.is_some_and(|n| n != pulled) {
            self.violated(format!("{pulled} were pulled of {:?}", self.plan.records));
        }
        if snapshot.replies != self.replies && !fatal {
            self.violated(format!("{} replies, but {snapshot:?}", self.replies));
        }
        if snapshot.held_bytes != 0 {
            self.violated(format!("bytes are held at the end: {snapshot:?}"));
        }
        self.bound(snapshot);
    }

    /// A session can be charged to one packet at most.
    pub(crate) fn bound(&mut self, snapshot: &Snapshot) {
        if self.charged > snapshot.starts {
            self.violated(format!("{} sessions were charged of {snapshot:?}", self.charged));
        }
    }

    /// `finish` took the rest.
    pub(crate) fn finished(
        &mut self,
        result: Result<Snapshot, Error>,
        pulled: u64,
        snapshot: &Snapshot,
    ) {
        let fatal = self.causes > 0
            || match &result {
                Ok(_) => false,
                Err(error) => {
                    // A bad exit after the last answer is a remark.
                    let remark = error.packet().is_none() && error.kind() == ErrorKind::Died;
                    if !remark && !self.allowed(error) {
                        self.violated(format!("finish: this was not called for: {error:?}"));
                    }
                    error.is_fatal()
                }
            };
        if !fatal && snapshot.replies + snapshot.failed != pulled {
            self.violated(format!("finish: {pulled} were pulled, and {snapshot:?}"));
        }
        if !fatal && snapshot.held_bytes != 0 {
            self.violated(format!("bytes are held at the end: {snapshot:?}"));
        }
    }
}

fn name(error: &Error) -> String {
    let kind = format!("{:?}", error.kind());
    let kind = kind.split(' ').next().unwrap_or_default().to_owned();
    if error.is_fatal() { format!("fatal {kind}") } else { kind }
}

fn excerpt(bytes: &[u8]) -> &bstr::BStr {
    bytes[..bytes.len().min(80)].as_bstr()
}
