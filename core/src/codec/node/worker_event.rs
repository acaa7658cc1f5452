//! What a primary of Node brought about.

use alloc::string::String;
use alloc::vec::Vec;

use super::handle_kind::HandleKind;
use super::skipped::Skipped;
use crate::ToWorker;

/// What a primary of Node brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerEvent<T> {
    /// It said this: an input for the [`Worker`](crate::Worker).
    Message {
        /// What.
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
        /// What came along.
        handle: Option<(HandleKind, T)>,
    },
    /// The primary's program said something that is passed over.
    Skipped {
        /// Why.
        reason: Skipped,
        /// How long its line is, in bytes.
        length: u64,
    },
}
