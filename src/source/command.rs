//! A command that emits records, as something to iterate.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use crate::error::Error;
use crate::feed::decoded;
use crate::source::delivery::Delivery;
use crate::source::emission::Emission;
use crate::source::solo::{self, Plan};
use crate::template::channel::Stream;
use crate::template::codec::{Decode, Owned};
use crate::template::policy::Policy;
use crate::template::{Spec, Template};
use crate::window::outlet::Outlet;
use crate::window::seam::{Bounds, Ends, attach};

/// Iterates over the records that a command prints.
///
/// The template says how to start the command; its reply framing and `decode` define a record. Nothing is started here:
/// each [`iter`](CommandSource::iter) runs the command once. At most `buffer_size` records are held for the consumer. When
/// they and one read are full, the command's output is not read, so it blocks in its own write once the pipe is full.
///
/// The command's stdin gets the template's [`preamble`](Template::preamble) and
/// [`farewell`](Template::farewell), and then ends; or it is what [`Template::stdin`] says.
///
/// ```
/// use subfeed::source::iterate_in_subprocess;
/// use subfeed::Template;
///
/// let squares = iterate_in_subprocess(
///     Template::shell("for n in 1 2 3; do echo $((n * n)); done").try_decode(|record| {
///         Ok(record.to_str()?.parse::<u32>()?)
///     }),
///     16,
/// );
/// for _pass in 0..2 {
///     assert_eq!(squares.iter().collect::<Result<Vec<_>, _>>()?, [1, 4, 9]);
/// }
/// # Ok::<_, subfeed::Error>(())
/// ```
///
/// # Errors
/// This function never fails; errors are items. A record that `decode` or [`check`](Template::check) refuses is an `Err` at
/// its position, and the iteration goes on. After anything else (the command cannot be started, ends inside a record or
/// with a bad exit status, violates its framing, or exceeds a time limit) one fatal `Err` follows the last record, then
/// `None`. A `buffer_size` of 0 is such an error, too.
///
/// With [`halt`](Template::halt), both `Soon` and `Now`, the fatal `Err` follows the record at which `check` has refused so
/// many, and the command is ended. As in a feed, what `decode` refuses does not count.
///
/// How a command has ended may be unknown if SIGCHLD is ignored in this process, or if another thread waits for any child and
/// takes the status. That is such an error as well, because the command may have been killed between two records.
///
/// These time limits of the template apply: [`start_timeout`](Template::start_timeout) to the first record,
/// [`idle_timeout`](Template::idle_timeout) to each record while there is room for it,
/// [`run_timeout`](Template::run_timeout) to the whole pass, [`ready`](Template::ready) to its marker, and
/// [`end_timeout`](Template::end_timeout) to a command that has closed its output and does not exit. Dropping a pass begins
/// the [`kill_sequence`](Template::kill_sequence) at once.
///
/// # Settings that have no meaning
/// A source gets no requests, and its command is started once. So these settings are a configuration error for it, unless
/// they have their default value: [`in_flight`](Template::in_flight), [`retries`](Template::retries),
/// [`at_most_once`](Template::at_most_once), [`backoff`](Template::backoff), [`give_up_after`](Template::give_up_after),
/// [`on_stall`](Template::on_stall), [`answers_at_eof`](Template::answers_at_eof),
/// [`recycle_after_records`](Template::recycle_after_records), [`recycle_after_age`](Template::recycle_after_age),
/// [`packet_timeout`](Template::packet_timeout), [`keep_stderr`](Template::keep_stderr) and
/// [`skip_at_end`](Template::skip_at_end); and a redirected stdout, side outputs that are read, and a
/// [`Sentinel`](crate::framing::Sentinel). How requests are [encoded](Template::encode) and [framed](Template::requests) is
/// not looked at. All other settings apply.
pub fn iterate_in_subprocess<E, D>(
    template: Template<E, D>,
    buffer_size: usize,
) -> CommandSource<D> {
    let Template { spec, decode, .. } = template;
    CommandSource { spec: Arc::new(spec), decode, buffer_size, max_bytes: 64 << 20 }
}

/// A command whose output is iterated; made by [`iterate_in_subprocess`].
#[derive(Clone)]
#[must_use = "a source does nothing before it is iterated"]
pub struct CommandSource<D = Owned> {
    spec: Arc<Spec>,
    decode: D,
    buffer_size: usize,
    max_bytes: usize,
}

impl<D> CommandSource<D> {
    /// How many bytes of records may be held for the consumer before the command's output is not read any more. Default:
    /// 64 MiB. A larger record is handled alone.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    fn validate(&self) -> Result<(), Error> {
        let channels = &self.spec.channels;
        if self.buffer_size == 0 {
            return Err(Error::config(
                "a source needs room for at least one record, and buffer_size is 0",
            ));
        }
        if matches!(channels.stdout, Stream::To(_)) {
            return Err(Error::config("the command's stdout is redirected, so no record can come"));
        }
        if self.spec.replies.as_sentinel().is_some() {
            return Err(Error::config("a source gets no requests, so it cannot answer a sentinel"));
        }
        if let Some(setting) = about_requests(&self.spec) {
            return Err(Error::config(format!(
                "a source gets no requests, so {setting} has no meaning for it"
            )));
        }
        if let Some(side) = channels.side_outputs.iter().find(|side| side.framing.is_some()) {
            return Err(Error::config(format!(
                "a source's records come on stdout, not on the side output `{}`",
                side.name
            ))
            .hint("send it to a file with Template::side_output_file"));
        }
        self.spec.validate()
    }
}

/// A setting that is about requests, or about the sessions that they are given to, and that is known to have been set: to
/// something else than its default.
fn about_requests(spec: &Spec) -> Option<&'static str> {
    // Each is named, so that one that is new is thought of.
    let Policy {
        retries,
        at_most_once,
        on_stall,
        stall_delay,
        backoff,
        backoff_cap,
        give_up,
        recycle_records,
        eof_batch,
        in_flight,
        drains: _,
        require_clean_exit: _,
        keep_stderr,
        recycle_age,
        packet_timeout,
        start_timeout: _,
        idle_timeout: _,
        run_timeout: _,
        kill_sequence: _,
        kill_with_parent: _,
        halt: _,
        end_timeout: _,
        end_timeout_is_set: _,
        reply_limit: _,
    } = &spec.policy;
    let usual = Policy::default();
    let settings = [
        ("retries", *retries != usual.retries),
        ("at_most_once", *at_most_once),
        ("on_stall", (*on_stall, *stall_delay) != (usual.on_stall, usual.stall_delay)),
        ("backoff", (*backoff, *backoff_cap) != (usual.backoff, usual.backoff_cap)),
        ("give_up_after", *give_up != usual.give_up),
        ("recycle_after_records", recycle_records.is_some()),
        ("recycle_after_age", recycle_age.is_some()),
        ("answers_at_eof", eof_batch.is_some()),
        ("in_flight", in_flight.is_some()),
        ("packet_timeout", packet_timeout.is_some()),
        ("keep_stderr", *keep_stderr),
        ("skip_at_end", spec.words.skip_at_end.is_some()),
    ];
    settings.into_iter().find(|(_, is_set)| *is_set).map(|(setting, _)| setting)
}

impl<D: Decode + Clone> CommandSource<D> {
    /// Starts the command now, and returns its records. It runs up to `buffer_size` records ahead of the consumer. Each call
    /// starts its own process.
    pub fn iter(&self) -> Records<D> {
        let mut spec = Spec::clone(&self.spec);
        let begun = self.validate().and_then(|()| spec.begin(1));
        let poller = begun.and_then(|()| solo::poller());
        let spec = Arc::new(spec);
        let to_wake = poller.as_ref().map(Arc::downgrade).unwrap_or_default();
        let bounds = Bounds::new(self.buffer_size, self.max_bytes);
        let Ends { supply, outbox, mut outlet, .. } = attach(bounds, move || {
            if let Some(poller) = to_wake.upgrade() {
                poller.wake();
            }
        });
        let begun = poller.and_then(|poller| {
            let command: Arc<str> = spec.display().into();
            let talk = Emission::new(
                Arc::clone(&spec),
                Delivery::new(supply, outbox, Arc::clone(&command)),
            );
            let plan = Plan { spec, command, input: 0, output: 0, closes_input: true };
            outlet.keep_executor(solo::spawn(plan, talk, poller)?);
            Ok(())
        });
        if let Err(error) = begun {
            outlet.fail(error);
        }
        Records { outlet, decode: self.decode.clone() }
    }
}

impl<D: Decode + Clone> IntoIterator for &CommandSource<D> {
    type Item = Result<D::Output, Error>;
    type IntoIter = Records<D>;
    fn into_iter(self) -> Records<D> {
        self.iter()
    }
}

impl<D: Decode + Clone> IntoIterator for CommandSource<D> {
    type Item = Result<D::Output, Error>;
    type IntoIter = Records<D>;
    fn into_iter(self) -> Records<D> {
        self.iter()
    }
}

impl<D> fmt::Debug for CommandSource<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSource")
            .field("command", &self.spec.command.display())
            .field("buffer_size", &self.buffer_size)
            .finish_non_exhaustive()
    }
}

/// The records of one run of a command: a lazy, fused iterator.
///
/// Dropping it ends the command with its kill sequence and reaps it; a command that is only writing ends at once. If it
/// is the source of a feed, it ends with that feed, unless the feed has borrowed it
/// ([`Feed`](crate::Feed#as-a-source)).
///
/// # Panics
/// If `check`, `accept_status` or a custom framing panics, `next` panics with the same payload; a panic of `decode` passes through.
#[must_use = "records that are not iterated end their command as soon as they are dropped"]
pub struct Records<D = Owned> {
    outlet: Outlet,
    decode: D,
}

impl<D: Decode> Iterator for Records<D> {
    type Item = Result<D::Output, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, given) = self.outlet.next()?;
        Some(decoded(&mut self.decode, &[], packet, given).of_work(packet))
    }
}

impl<D: Decode> FusedIterator for Records<D> {}

impl<D> fmt::Debug for Records<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("yielded", &self.outlet.total_yielded())
            .finish_non_exhaustive()
    }
}
