//! One live child as the event loop sees it: which of its channels are open, and which are ready.
//!
//! # Invariants
//! 1. A channel is ready from the moment an event says so until a call says that there is nothing.
//! 2. A closed channel is never ready.
//! 3. An input is watched only after it was full for the first time: until then nobody need know.

use crate::subprocess::os::Port;
use crate::subprocess::protocol::Spawned;

#[derive(Debug)]
pub(super) struct Connection {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    stderr: Output,
    /// Read until there is nothing, whatever a short read says: the child has exited or hung up, or writes
    /// to a terminal.
    draining: bool,
    exited: bool,
}

#[derive(Clone, Copy, Debug)]
struct Input {
    open: bool,
    ready: bool,
    watched: bool,
}

#[derive(Clone, Copy, Debug)]
struct Output {
    open: bool,
    ready: bool,
}

impl Connection {
    pub(super) fn new(spawned: &Spawned) -> Self {
        let output = |&open: &bool| Output { open, ready: false };
        Self {
            inputs: spawned
                .inputs
                .iter()
                .map(|&open| Input { open, ready: open, watched: false })
                .collect(),
            outputs: spawned.outputs.iter().map(output).collect(),
            stderr: output(&spawned.stderr),
            draining: spawned.terminal,
            exited: false,
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    fn output(&mut self, port: Port) -> &mut Output {
        match port {
            Port::Output(output) => &mut self.outputs[output],
            _ => &mut self.stderr,
        }
    }

    /// An event says that there is something to read.
    pub(super) fn is_readable(&mut self, port: Port, hung_up: bool) {
        self.draining |= hung_up;
        let output = self.output(port);
        output.ready = output.open;
    }

    pub(super) fn may_read(&mut self, port: Port) -> bool {
        self.output(port).ready
    }

    /// A read has given something. A pipe that gives less than was asked for is empty; the next byte is an
    /// event.
    pub(super) fn has_read(&mut self, port: Port, all: bool) {
        let ready = all || self.draining;
        self.output(port).ready = ready;
    }

    pub(super) fn is_empty(&mut self, port: Port) {
        self.output(port).ready = false;
    }

    /// An event says that there is room.
    pub(super) fn is_writable(&mut self, channel: usize) {
        self.inputs[channel].ready = self.inputs[channel].open;
    }

    pub(super) fn may_write(&self, channel: usize) -> bool {
        self.inputs[channel].ready
    }

    pub(super) fn is_full(&mut self, channel: usize) {
        self.inputs[channel].ready = false;
    }

    /// Says, once, that an input must be watched.
    pub(super) fn must_be_watched(&mut self, channel: usize) -> bool {
        self.inputs[channel].open && !std::mem::replace(&mut self.inputs[channel].watched, true)
    }

    /// Our end of a channel is closed.
    pub(super) fn close(&mut self, port: Port) {
        match port {
            Port::Input(channel) => {
                self.inputs[channel].open = false;
                self.inputs[channel].ready = false;
            }
            port => *self.output(port) = Output { open: false, ready: false },
        }
    }

    /// The child has exited: everything that it has left is read. Says whether that is news.
    pub(super) fn exited(&mut self) -> bool {
        self.draining = true;
        for output in self.outputs.iter_mut().chain([&mut self.stderr]) {
            output.ready = output.open;
        }
        !std::mem::replace(&mut self.exited, true)
    }
}
