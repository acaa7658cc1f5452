//! What happened on the channel to a primary of Node.

use alloc::string::String;
use alloc::vec::Vec;

use super::handle_kind::HandleKind;
use super::skipped::Skipped;
use crate::ToWorker;

/// What happened on the channel to a primary of Node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerEvent<T> {
    /// It sent a message: an input for the [`Worker`](crate::Worker).
    Message {
        /// The message.
        msg: ToWorker,
        /// The handle that came along.
        handle: Option<T>,
    },
    /// Send this before anything that has not begun to be sent.
    Answer(Vec<u8>),
    /// The oldest handle of a `user_line` that was not answered yet did
    /// not arrive, nor did its message.
    UserNotArrived,
    /// The primary's program said this (`worker.send`), in JSON.
    User {
        /// What it said.
        json: String,
        /// The handle that came along.
        handle: Option<(HandleKind, T)>,
    },
    /// The primary's program said something that is skipped.
    Skipped {
        /// Why.
        reason: Skipped,
        /// How long its line is, in bytes.
        length: u64,
    },
}
