//! One live child as the event loop sees it, and how its descriptors are known to the poller.
//!
//! # Invariants
//! 1. A key of the poller names one port of one slot, and a port has one key.
//! 2. Outputs, stderr and the pidfd are registered for the whole of a session; an input only after its first
//!    short write. Whatever is registered is removed before it is closed.
//! 3. A flag (`readable`, `writable`) is cleared only when a call has said that there is nothing.

use std::os::fd::AsFd;

use crate::subprocess::event_loop::EventLoop;
use crate::subprocess::exit::ExitWatch;
use crate::subprocess::probe::ChannelId;
use crate::subprocess::process::Process;
use crate::subprocess::readiness::Interest;
use crate::template::channel::Stream;

/// One live child, as the event loop sees it.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) process: Process,
    pub(super) exit: ExitWatch,
    /// Which pipes the inputs are, for the evidence of a stall.
    pub(super) input_ids: Vec<Option<ChannelId>>,
    /// Registered with the poller; until the first short write nobody needs to know.
    pub(super) input_watched: Vec<bool>,
    pub(super) writable: Vec<bool>,
    pub(super) readable: Vec<bool>,
    pub(super) stderr_readable: bool,
    /// The process has exited.
    pub(super) exited: bool,
    /// Read until there is nothing, whatever a short read says: the process has exited or hung up.
    pub(super) draining: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Exit,
    Stderr,
    Input(usize),
    Output(usize),
}

/// Keys of the poller: slots times ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Keys {
    fn stride(self) -> usize {
        2 + self.inputs + self.outputs
    }

    pub(super) fn key(self, slot: usize, port: Port) -> usize {
        let port = match port {
            Port::Exit => 0,
            Port::Stderr => 1,
            Port::Input(i) => 2 + i,
            Port::Output(i) => 2 + self.inputs + i,
        };
        slot * self.stride() + port
    }

    pub(super) fn port(self, key: usize) -> (usize, Port) {
        let port = match key % self.stride() {
            0 => Port::Exit,
            1 => Port::Stderr,
            i if i < 2 + self.inputs => Port::Input(i - 2),
            i => Port::Output(i - 2 - self.inputs),
        };
        (key / self.stride(), port)
    }
}

impl EventLoop {
    /// Registers a new child with the poller.
    pub(super) fn watch(&self, slot: usize, process: Process) -> std::io::Result<Ports> {
        let exit = match ExitWatch::new(process.pid(), &self.poller) {
            Ok(exit) => exit,
            Err(error) => {
                process.finish();
                return Err(error);
            }
        };
        let inputs = process.inputs.len();
        let id = |input: &std::fs::File| ChannelId::of(input.as_fd()).ok();
        let ports = Ports {
            input_ids: process.inputs.iter().map(|input| input.as_ref().and_then(id)).collect(),
            input_watched: vec![false; inputs],
            writable: vec![true; inputs],
            readable: vec![false; process.outputs.len()],
            stderr_readable: false,
            exited: false,
            // A pseudo-terminal gives less than was asked for even when there is more.
            draining: matches!(self.scheduler.spec.channels.stdout, Stream::Pty),
            exit,
            process,
        };
        let registered = (|| {
            if let ExitWatch::Pidfd(fd) = &ports.exit {
                self.poller.add(fd, self.keys.key(slot, Port::Exit), Interest::Readable)?;
            }
            for (i, output) in ports.process.outputs.iter().enumerate() {
                if let Some(output) = output {
                    self.poller.add(
                        output,
                        self.keys.key(slot, Port::Output(i)),
                        Interest::Readable,
                    )?;
                }
            }
            if let Some(stderr) = &ports.process.stderr {
                self.poller.add(stderr, self.keys.key(slot, Port::Stderr), Interest::Readable)?;
            }
            Ok(())
        })();
        match registered {
            Ok(()) => Ok(ports),
            Err(error) => {
                self.unwatch(&ports);
                ports.process.finish();
                Err(error)
            }
        }
    }

    pub(super) fn unwatch(&self, ports: &Ports) {
        // Not registered, or registered and open: either is fine to delete.
        if let ExitWatch::Pidfd(fd) = &ports.exit {
            self.poller.remove(fd);
        }
        let files = ports.process.inputs.iter().chain(&ports.process.outputs).flatten();
        for file in files.chain(&ports.process.stderr) {
            self.poller.remove(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ports_are_one_to_one() {
        let keys = Keys { inputs: 3, outputs: 2 };
        let ports = [
            Port::Exit,
            Port::Stderr,
            Port::Input(0),
            Port::Input(2),
            Port::Output(0),
            Port::Output(1),
        ];
        for slot in [0, 1, 999] {
            for port in ports {
                assert_eq!(keys.port(keys.key(slot, port)), (slot, port));
            }
        }
    }
}
