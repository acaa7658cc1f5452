//! What an embedder can do wrong.

use core::fmt;

use crate::{ConnId, ListenerId, WorkerId};

/// An impossible input: a fault in the embedder, never in a worker. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Misuse {
    /// No worker was ever given this id.
    UnknownWorker(WorkerId),
    /// `Spawned` or `SpawnFailed` for a worker whose start is not awaited.
    NotStarting(WorkerId),
    /// `Incoming` at a listener that is not bound.
    ListenerNotOpen(ListenerId),
    /// `Bound` for a listener whose bind is not awaited.
    NotBinding(ListenerId),
    /// `Unbound` for a listener whose close is not awaited.
    NotUnbinding(ListenerId),
    /// A connection that was reported before, or out of order.
    ConnNotRising(ConnId),
    /// `Sent` while no polled `Send` of a worker is unconfirmed.
    NothingSent,
    /// `Listen` under the number of an ask that has no answer yet.
    AskPending(u32),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::UnknownWorker(id) => write!(f, "{id} was never issued"),
            Misuse::NotStarting(id) => write!(f, "no start of {id} is expected"),
            Misuse::ListenerNotOpen(id) => write!(f, "{id} is not open"),
            Misuse::NotBinding(id) => write!(f, "no bind of {id} is expected"),
            Misuse::NotUnbinding(id) => write!(f, "no close of {id} is expected"),
            Misuse::ConnNotRising(id) => write!(f, "{id} does not come after the last connection"),
            Misuse::NothingSent => f.write_str("no polled message is waiting to be sent"),
            Misuse::AskPending(ask) => write!(f, "ask {ask} has no answer yet"),
        }
    }
}

impl core::error::Error for Misuse {}
