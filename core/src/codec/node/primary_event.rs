//! What happened on the channel to a Node worker.

use alloc::string::String;
use alloc::vec::Vec;

use super::handle_kind::HandleKind;
use super::skipped::Skipped;
use crate::{Attach, FromWorker, Seq, ToWorker};

/// What happened on the channel to a Node worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrimaryEvent<T> {
    /// It sent a message: an input for the [`Primary`](crate::Primary).
    Message(FromWorker),
    /// A connection did not arrive at the worker.
    NotArrived {
        /// The number of its handoff.
        seq: Seq,
    },
    /// The worker has this connection, but may hold its answer back.
    InDoubt {
        /// The number of its handoff.
        seq: Seq,
    },
    /// The worker sent a message that answers or names nothing.
    Stray,
    /// Send this before anything that has not begun to be sent.
    Answer(Vec<u8>),
    /// A shared listener did not arrive: send it again, behind everything else, without a `note`.
    Resend {
        /// The message.
        msg: ToWorker,
        /// Its handle.
        attach: Attach,
    },
    /// The oldest handle of a `user_line` that was not answered yet did not arrive, nor did its
    /// message.
    UserNotArrived,
    /// The worker's program said this (`process.send`), in JSON.
    User {
        /// What it said.
        json: String,
        /// The handle that came along.
        handle: Option<(HandleKind, T)>,
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
}
