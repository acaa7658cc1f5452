//! The inputs of the primary: what an embedder tells it.

use alloc::boxed::Box;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Codec, Config, ConnId, DecodeError, Errno, FromWorker, ListenerId, Seq, SockName, WorkerId,
};

/// Something that happened outside the machine.
///
/// Anything about a worker or listener that is gone by now is ignored: reports may be late. An id
/// that was never minted is [`Misuse`](crate::Misuse).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Input {
    /// The clock was read. Deadlines act only here. Send it after each turn, once every channel has
    /// been read to would-block (or to its budget) under the same `now`; it is always safe to send.
    Wake,
    /// A worker's process runs.
    Spawned {
        /// Which one.
        worker: WorkerId,
        /// Its process id.
        pid: i32,
    },
    /// A worker's process could not be started.
    SpawnFailed {
        /// Which one.
        worker: WorkerId,
        /// Why.
        cause: SpawnError,
    },
    /// The first byte of a worker's channel showed its codec.
    Hello {
        /// Which one.
        worker: WorkerId,
        /// The codec.
        codec: Codec,
    },
    /// A message arrived.
    Message {
        /// The worker.
        worker: WorkerId,
        /// The message.
        msg: FromWorker,
    },
    /// After a read, an unfinished frame is left over. Send this after every such read.
    FrameBegun {
        /// The worker.
        worker: WorkerId,
    },
    /// What a worker sent, or did, is outside the protocol. Its channel is
    /// [read to the end](crate::docs::embedding#reading-to-the-end) all the same.
    Violation {
        /// The worker.
        worker: WorkerId,
        /// What.
        what: Violation,
    },
    /// A worker's channel was read to its end: end of file. ECONNRESET comes before that (unix(7)),
    /// and EPIPE on a send says nothing of it: acks may still be unread.
    ChannelClosed {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's process has ended and was reaped.
    Exited {
        /// Which one.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
    },
    /// The answer to [`Output::Bind`](crate::Output::Bind).
    Bound {
        /// Which listener.
        listener: ListenerId,
        /// Where it is bound, or why not.
        result: Result<SockName, Errno>,
    },
    /// The listener is closed. The answer to [`Output::Unbind`](crate::Output::Unbind), once
    /// everything that could be accepted has been reported, or to
    /// [`Output::Close`](crate::Output::Close).
    Unbound {
        /// Which listener.
        listener: ListenerId,
    },
    /// A connection was accepted and is in custody. Ids rise from one to the next.
    Incoming {
        /// The listener that it came to.
        listener: ListenerId,
        /// The connection.
        conn: ConnId,
    },
    /// A handoff could not be sent at all, and never will be: not one byte of it is in the channel.
    /// Would-block and ETOOMANYREFS are not failures, nor is EPIPE.
    HandoffFailed {
        /// The worker.
        worker: WorkerId,
        /// Its number.
        seq: Seq,
        /// Why.
        errno: Errno,
    },
    /// A Node worker has this connection, but may hold its answer back: if it dies without that
    /// answer, nobody knows whether it was served.
    InDoubt {
        /// The worker.
        worker: WorkerId,
        /// The number of the handoff.
        seq: Seq,
    },
    /// A worker sent something that answers or names nothing.
    Stray {
        /// The worker.
        worker: WorkerId,
    },
    /// The answer to [`Output::CountConnections`](crate::Output::CountConnections) about one of the
    /// workers. Without an answer, the primary assumes that connections are open.
    Connections {
        /// The worker.
        worker: WorkerId,
        /// How many connections of clients it has; `None` if that can't be known.
        open: Option<u32>,
    },
    /// The operator or embedder wants something.
    Command(Command),
    /// The kernel's queue of a listener was looked at: see [`STALLED_AFTER`](crate::STALLED_AFTER).
    /// A driver does it between turns, when it knows of nothing that it could accept.
    Queue {
        /// Which one.
        listener: ListenerId,
        /// Whether it held a connection, and the driver has not even tried to accept since the last
        /// look. If the driver knows why it can't (no descriptors are left), it reports `false`.
        waiting: bool,
    },
    /// Replace all workers by new ones, with a new configuration if one is given. Its workers are
    /// of [`Primary::next_generation`](crate::Primary::next_generation), as asked for before. It
    /// waits while another reload is under way; if one waits already, this takes its place. The
    /// outcome is an event.
    Reload {
        /// The configuration, if it is not the present one. What belongs to a shutdown or to
        /// single workers holds from now on, also for the old workers; a new number of workers
        /// once the reload is done.
        config: Option<Box<Config>>,
    },
    /// How much memory a worker's process has, in bytes: for [`Config::max_memory`]. A driver that
    /// has such a limit looks now and then.
    Memory {
        /// The worker.
        worker: WorkerId,
        /// Its resident set.
        bytes: u64,
    },
}

/// What an operator or embedder can want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Shut down gracefully: serve what has been accepted, drain the workers, end within the drain
    /// timeout. If the primary is already shutting down, for whatever reason, this acts as
    /// `StopNow`.
    Stop,
    /// Shut down at once: close what is held, kill the workers.
    StopNow,
    /// Ask a worker for a sign of life; its answer is an event. For a worker that can't be asked,
    /// this does nothing.
    Ping(WorkerId),
    /// Keep this many workers, once no reload is under way. Outside
    /// [the bounds](crate::limits::workers) the nearest one is taken.
    Scale(u32),
    /// Accept nothing more and hand out nothing more, until `Resume` or a shutdown.
    Pause,
    /// End a pause.
    Resume,
}

/// Why a process could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such program.
    NotFound,
    /// Anything else. If [`is_want_of_resources`](Errno::is_want_of_resources) is true, the program
    /// did not fail: that never counts as a failure, and the start is tried again.
    Other(Errno),
    /// The program exists and can't be executed, however often that is tried.
    NotExecutable(Errno),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::NotFound => f.write_str("the program does not exist"),
            SpawnError::Other(errno) => write!(f, "{errno}"),
            SpawnError::NotExecutable(errno) => {
                write!(f, "the program cannot be executed: {errno}")
            }
        }
    }
}

impl core::error::Error for SpawnError {}

impl SpawnError {
    /// Whether descriptors, processes or memory were lacking.
    pub const fn is_want_of_resources(self) -> bool {
        matches!(self, SpawnError::Other(errno) if errno.is_want_of_resources())
    }
}

/// How a process ended, as waitpid(2) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// Decodes the status of wait(2) on Linux; `None` if the process has only stopped or continued.
    /// [`std::process::ExitStatus`] gives it by `ExitStatusExt::into_raw`.
    ///
    /// [`std::process::ExitStatus`]: https://doc.rust-lang.org/std/process/struct.ExitStatus.html
    ///
    /// ```
    /// use roundel_core::ExitStatus;
    ///
    /// assert_eq!(ExitStatus::from_wait_status(3 << 8), Some(ExitStatus::Code(3)));
    /// // SIGKILL; and SIGSEGV, which left a core.
    /// assert_eq!(ExitStatus::from_wait_status(9), Some(ExitStatus::Signal(9)));
    /// assert_eq!(ExitStatus::from_wait_status(11 | 0x80), Some(ExitStatus::Signal(11)));
    /// ```
    pub const fn from_wait_status(status: i32) -> Option<Self> {
        match status & 0x7f {
            0 => Some(ExitStatus::Code((status >> 8) & 0xff)),
            0x7f => None,
            signal => Some(ExitStatus::Signal(signal)),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "code {code}"),
            ExitStatus::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a worker is ended for what it sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Violation {
    /// Its bytes are not a message.
    Decode(DecodeError),
    /// Its first byte belongs to no codec that is supported here.
    UnknownCodec,
    /// A begun frame did not complete in time.
    FrameTimeout,
    /// A message that its state does not allow, such as anything before `online`.
    UnexpectedMessage,
    /// Too many messages that answer or name nothing.
    StrayMessages,
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        Violation::Decode(error)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Decode(error) => return write!(f, "{error}"),
            Violation::UnknownCodec => "the first byte matches no codec",
            Violation::FrameTimeout => "a frame did not complete in time",
            Violation::UnexpectedMessage => "a message arrived that is not allowed now",
            Violation::StrayMessages => "too many messages refer to something unknown",
        })
    }
}

impl core::error::Error for Violation {}

impl Violation {
    /// As `status` and the event log write it.
    pub fn name(&self) -> &'static str {
        match self {
            Violation::Decode(error) => error.name(),
            Violation::UnknownCodec => "unknown_codec",
            Violation::FrameTimeout => "frame_timeout",
            Violation::UnexpectedMessage => "unexpected_message",
            Violation::StrayMessages => "stray_messages",
        }
    }
}
