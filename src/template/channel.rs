//! The ends of a worker: its three standard streams and its named side channels.

use std::path::PathBuf;

use crate::template::framing::{ReplyFraming, RequestFraming};

/// Where one of a worker's standard streams leads.
#[derive(Clone, Debug, Default)]
pub(crate) enum Stream {
    /// To us.
    #[default]
    Pipe,
    /// To a file; `{id}` in the path is the worker's number. Outputs are appended to.
    File(PathBuf),
    Null,
    Inherit,
    /// To us, through a pseudo-terminal: the worker believes that a person reads.
    Pty,
}

/// A named input beside stdin.
#[derive(Clone, Debug)]
pub(crate) struct SideInput {
    pub(crate) name: String,
    pub(crate) framing: RequestFraming,
    /// `Some(cap)`: the worker may close it early, or leave up to `cap` bytes unread.
    pub(crate) optional: Option<usize>,
    /// A file opened for reading in place of the pipe that we write.
    pub(crate) file: Option<PathBuf>,
}

/// A named output beside stdout and stderr.
#[derive(Clone, Debug)]
pub(crate) struct SideOutput {
    pub(crate) name: String,
    /// How its part of each reply is cut out; `None` for a file.
    pub(crate) framing: Option<ReplyFraming>,
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    pub(crate) stdin: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    pub(crate) side_inputs: Vec<SideInput>,
    pub(crate) side_outputs: Vec<SideOutput>,
}
