//! Bytes between the event loop and its children.

use std::io::IoSlice;

use crate::subprocess::scheduler::Slot;
use crate::subprocess::sim::check::{Failure, must};

use super::{READS_IN_A_ROW, SLICES, World, unfinished};

impl World {
    pub(super) fn write(&mut self) -> Result<(), Failure> {
        for slot in std::mem::take(&mut self.to_write) {
            self.write_input(slot)?;
        }
        Ok(())
    }

    fn write_input(&mut self, slot: usize) -> Result<(), Failure> {
        loop {
            let Some(ports) = &mut self.ports[slot] else { return Ok(()) };
            let Slot::Live(session) = &self.scheduler.slots[slot] else { return Ok(()) };
            if !ports.writable || session.inputs[0].is_written() {
                return Ok(());
            }
            must!(ports.stdin, "slot {slot}: there is something to write to a closed channel");
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = session.inputs[0].slices(0, &mut slices);
            let slices = &slices[..used];
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            must!(wanted > 0, "slot {slot}: an empty write");
            let child = &mut self.children[ports.child];
            if !child.stdin.reader {
                self.scheduler.write_closed(slot, 0, self.now);
                return Ok(());
            }
            let n = wanted.min(child.stdin.free());
            if n < wanted {
                ports.writable = false;
                ports.watched = true;
            }
            if n == 0 {
                return Ok(());
            }
            let bytes: Vec<u8> =
                slices.iter().flat_map(|slice| slice.iter().copied()).take(n).collect();
            child.stdin.bytes.extend(&bytes);
            child.nudge(self.now);
            unfinished(&self.schedule, &mut ports.tail, &bytes);
            self.scheduler.wrote(slot, 0, n, self.now);
        }
    }

    pub(super) fn read(&mut self) -> Result<(), Failure> {
        for slot in std::mem::take(&mut self.to_read) {
            if self.ports[slot].is_none() {
                continue;
            }
            self.read_stderr(slot);
            if self.read_output(slot)? && !self.to_read.contains(&slot) {
                self.to_read.push(slot);
            }
        }
        Ok(())
    }

    /// Says whether it must be tried again without waiting for an edge.
    pub(super) fn read_output(&mut self, slot: usize) -> Result<bool, Failure> {
        for _ in 0..READS_IN_A_ROW {
            if !self.scheduler.may_read(slot) {
                return Ok(self.ports[slot].as_ref().is_some_and(|ports| ports.readable));
            }
            let Some(ports) = &mut self.ports[slot] else { return Ok(false) };
            if !ports.readable || !ports.stdout {
                return Ok(false);
            }
            let room = self.scheduler.read_room(slot, 0);
            if room.is_empty() {
                return Ok(false);
            }
            let child = &mut self.children[ports.child];
            let there = child.stdout.bytes.len();
            let most = self.rng.range(1, 2 * there.max(1) as u64) as usize;
            let n = there.min(room.len()).min(most);
            if n == 0 {
                ports.readable = false;
                if child.stdout.writer {
                    return Ok(false);
                }
                ports.stdout = false;
                self.scheduler.read_closed(slot, 0, self.now);
                return Ok(false);
            }
            for (to, byte) in room.iter_mut().zip(child.stdout.bytes.drain(..n)) {
                *to = byte;
            }
            // Splitting a read is our doing: what is left will be read without an edge.
            ports.readable = true;
            child.nudge(self.now);
            self.scheduler.read(slot, 0, n, self.now);
        }
        Ok(true)
    }

    fn read_stderr(&mut self, slot: usize) {
        let Some(ports) = &mut self.ports[slot] else { return };
        if !std::mem::take(&mut ports.stderr_readable) || !ports.stderr {
            return;
        }
        let child = &mut self.children[ports.child];
        let bytes: Vec<u8> = child.stderr.bytes.drain(..).collect();
        let ended = !child.stderr.writer;
        ports.stderr = !ended;
        if !bytes.is_empty() {
            self.scheduler.heard_stderr(slot, &bytes, self.now);
        }
        if ended {
            self.scheduler.stderr_closed(slot);
        }
    }
}
