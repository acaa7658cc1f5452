//! What a waiting program may have to check again.

use std::time::Instant;

/// Whether a worker goes on serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It serves.
    Serving,
    /// The primary wants it to leave: serve what has arrived, finish, exit.
    Draining {
        /// The worker is killed then; `None` if it may take as long as it wants.
        deadline: Option<Instant>,
    },
    /// The worker asked to leave, or fails: finish open work, exit.
    Leaving,
    /// The primary is gone: finish open work, exit.
    Alone,
}

/// The progress of a [`WorkerDriver`](super::WorkerDriver). If two values differ, something came in
/// between that a waiting caller may be waiting for: a connection, an answer, room in the channel,
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    pub(super) came: u64,
    pub(super) standing: Standing,
    pub(super) is_drained: bool,
    pub(super) awaits_ack: bool,
}
