//! What happened on the channel to a worker, whichever codec it speaks.

use alloc::string::String;

use crate::node::{HandleKind, Skipped};
use crate::{Codec, Errno, FromWorker, Input, Seq, Violation, WorkerId};

/// What happened on the channel to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// The first byte showed the codec.
    Hello(Codec),
    /// The worker sent this message.
    Message(FromWorker),
    /// What came is not a message: nothing after it is decoded.
    Violation(Violation),
    /// An unfinished frame is left over, which must complete in time.
    FrameBegun,
    /// A connection did not arrive at the worker.
    NotArrived {
        /// The number of its handoff.
        seq: Seq,
    },
    /// A connection could not be sent at all.
    NotSent {
        /// The number of its handoff.
        seq: Seq,
        /// Why.
        errno: Errno,
    },
    /// The worker has this connection, but may hold its answer back.
    InDoubt {
        /// The number of its handoff.
        seq: Seq,
    },
    /// The worker sent a message that answers or names nothing.
    Stray,
    /// The worker's program said this (`process.send`), in JSON.
    User {
        /// What it said.
        json: String,
        /// The kind of the handle that came along, which is dropped; `None` also for a kind that
        /// is not known.
        handle: Option<HandleKind>,
    },
    /// The worker's program said something that is skipped.
    Skipped {
        /// Why.
        reason: Skipped,
        /// How long its line is, in bytes.
        length: u64,
        /// Whether a handle came along, which is dropped.
        with_handle: bool,
    },
    /// The channel was read to its end.
    Closed,
}

impl ChannelEvent {
    /// The input for the primary's machine; `None` for what programs say.
    pub fn into_input(self, worker: WorkerId) -> Option<Input> {
        Some(match self {
            ChannelEvent::Hello(codec) => Input::Hello { worker, codec },
            ChannelEvent::Message(msg) => Input::Message { worker, msg },
            ChannelEvent::Violation(what) => Input::Violation { worker, what },
            ChannelEvent::FrameBegun => Input::FrameBegun { worker },
            ChannelEvent::NotArrived { seq } => {
                Input::HandoffFailed { worker, seq, errno: Errno::EMFILE }
            }
            ChannelEvent::NotSent { seq, errno } => Input::HandoffFailed { worker, seq, errno },
            ChannelEvent::InDoubt { seq } => Input::InDoubt { worker, seq },
            ChannelEvent::Stray => Input::Stray { worker },
            ChannelEvent::Closed => Input::ChannelClosed { worker },
            ChannelEvent::User { .. } | ChannelEvent::Skipped { .. } => return None,
        })
    }
}
