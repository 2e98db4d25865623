//! Bytes to and from the children.
//!
//! # Invariants
//! 1. Nobody is read more than a few times in a row, so that all get their turn.
//! 2. An output is read until a call says that there is nothing, or until the scheduler says that it may not
//!    be: then the slot stays in `to_read`.
//! 3. An error of a write is the reader's end: no error of the feed.

use std::io::{ErrorKind as IoErrorKind, IoSlice, Read, Write};
use std::time::Duration;

use crate::subprocess::event_loop::EventLoop;
use crate::subprocess::event_loop::ports::Port;
use crate::subprocess::process::{enlarge, unread};
use crate::subprocess::readiness::Interest;
use crate::subprocess::scheduler::Slot;

/// Reads of one output in a row before the others get their turn.
const READS_IN_A_ROW: usize = 4;

/// Slices in one vectored write.
const SLICES: usize = 16;

impl EventLoop {
    pub(super) fn write(&mut self, now: Duration) {
        let mut slots = std::mem::take(&mut self.to_write);
        for slot in slots.drain(..) {
            for channel in 0..self.keys.inputs {
                self.write_channel(slot, channel, now);
            }
        }
        // The room is kept.
        slots.append(&mut self.to_write);
        self.to_write = slots;
    }

    fn write_channel(&mut self, slot: usize, channel: usize, now: Duration) {
        loop {
            let Some(ports) = &mut self.ports[slot] else { return };
            let Slot::Live(session) = &self.scheduler.slots[slot] else { return };
            if !ports.writable[channel] || session.inputs[channel].is_written() {
                return;
            }
            let Some(file) = &mut ports.process.inputs[channel] else { return };
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = session.inputs[channel].slices(channel, &mut slices);
            let slices = &slices[..used];
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            match file.write_vectored(slices) {
                Ok(n) => {
                    ports.writable[channel] = n == wanted;
                    self.scheduler.wrote(slot, channel, n, now);
                    if n < wanted {
                        self.filled(slot, channel);
                    }
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    ports.writable[channel] = false;
                    self.filled(slot, channel);
                }
                // EPIPE, or anything else that a pipe can say: nobody reads it any more.
                Err(_) => {
                    if let Some(bytes) = unread(file)
                        && self.scheduler.drain
                    {
                        self.scheduler.left_unread(slot, channel, bytes);
                    }
                    return self.scheduler.write_closed(slot, channel, now);
                }
            }
        }
    }

    /// A pipe to a child is full. The first time, room is made, and from then on somebody must be told
    /// when there is room again.
    fn filled(&mut self, slot: usize, channel: usize) {
        let Some(ports) = &mut self.ports[slot] else { return };
        if std::mem::replace(&mut ports.input_watched[channel], true) {
            return;
        }
        let Some(file) = &ports.process.inputs[channel] else { return };
        if self.roomy {
            for pipe in ports.process.outputs.iter().flatten().chain([file]) {
                enlarge(pipe);
            }
            // If it was enlarged there is room now, and no edge will tell of that.
            ports.writable[channel] = true;
        }
        let key = self.keys.key(slot, Port::Input(channel));
        if self.poller.add(file, key, Interest::Writable).is_err() {
            // Out of memory for one more registration: nothing would ever tell when there is room, so
            // this session cannot be fed any more.
            let now = self.start.elapsed();
            self.scheduler.write_closed(slot, channel, now);
        }
    }

    pub(super) fn read(&mut self, now: Duration) {
        let mut slots = std::mem::take(&mut self.to_read);
        for slot in slots.drain(..) {
            if self.ports[slot].is_none() {
                continue;
            }
            let mut more = self.read_stderr(slot, now);
            for output in 0..self.keys.outputs {
                more |= self.read_output(slot, output, now);
            }
            if more && !self.to_read.contains(&slot) {
                self.to_read.push(slot);
            }
        }
        slots.append(&mut self.to_read);
        self.to_read = slots;
    }

    /// Reads what there is. Says whether it must be tried again without waiting for the poller.
    pub(super) fn read_output(&mut self, slot: usize, output: usize, now: Duration) -> bool {
        for _ in 0..READS_IN_A_ROW {
            if !self.scheduler.may_read(slot) {
                return self.ports[slot].as_ref().is_some_and(|ports| ports.readable[output]);
            }
            let Some(ports) = &mut self.ports[slot] else { return false };
            if !ports.readable[output] {
                return false;
            }
            let Some(file) = &mut ports.process.outputs[output] else { return false };
            let room = self.scheduler.read_room(slot, output);
            if room.is_empty() {
                return false;
            }
            let wanted = room.len();
            match file.read(room) {
                Ok(0) => {
                    ports.readable[output] = false;
                    self.poller.remove(&*file);
                    ports.process.outputs[output] = None;
                    self.scheduler.read_closed(slot, output, now);
                    return false;
                }
                Ok(n) => {
                    // A pipe that gives less than was asked for is empty; the next byte is an edge.
                    ports.readable[output] = n == wanted || ports.draining;
                    self.scheduler.read(slot, output, n, now);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    ports.readable[output] = false;
                    return false;
                }
                // A pseudo-terminal ends with an error of its own.
                Err(_) => {
                    ports.readable[output] = false;
                    self.poller.remove(&*file);
                    ports.process.outputs[output] = None;
                    self.scheduler.read_closed(slot, output, now);
                    return false;
                }
            }
        }
        true
    }

    fn read_stderr(&mut self, slot: usize, now: Duration) -> bool {
        let mut room = [0; 8 << 10];
        for _ in 0..READS_IN_A_ROW {
            let Some(ports) = &mut self.ports[slot] else { return false };
            if !ports.stderr_readable {
                return false;
            }
            let Some(file) = &mut ports.process.stderr else { return false };
            match file.read(&mut room) {
                Ok(0) => {
                    ports.stderr_readable = false;
                    self.poller.remove(&*file);
                    ports.process.stderr = None;
                    self.scheduler.stderr_closed(slot);
                    return false;
                }
                Ok(n) => {
                    ports.stderr_readable = n == room.len() || ports.draining;
                    self.scheduler.heard_stderr(slot, &room[..n], now);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(_) => {
                    ports.stderr_readable = false;
                    return false;
                }
            }
        }
        true
    }
}
