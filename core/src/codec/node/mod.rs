//! The Node codec: what Node's `child_process` and `cluster` say on a channel.
//!
//! A channel carries lines of JSON. A line is *internal* if it is an object whose `cmd` begins with
//! `NODE_`; all else is the program's own (`process.send`). A line with a handle is wrapped in a
//! `NODE_HANDLE`, and its receiver answers `NODE_HANDLE_ACK` or `NODE_HANDLE_NACK` before anything
//! else: the *inner acknowledgement*, which has nothing to do with a worker's `accepted`.
//!
//! [`PrimarySide`] is the primary's end of a channel to a Node worker: it turns lines into the
//! [`FromWorker`](crate::FromWorker)s that a [`Primary`](crate::Primary) is driven with, and
//! [`ToWorker`](crate::ToWorker)s into lines. [`WorkerSide`] is the mirror: a worker of this crate
//! under a primary of Node. Neither waits, sends or reads; both work with any `T` that stands for
//! a handle.
//!
//! # How this differs from Node's own ends
//!
//! - Node's sender holds every later message back until the inner acknowledgement is there. Ours
//!   does not: unmodified workers serve handles that were sent without waiting.
//! - Node sends a refused handle again, three times at most. Ours does so for shared listeners; a
//!   refused connection goes to another worker instead.
//! - The primary chooses the keys, since workers only echo them: ours are the number of the
//!   listener.
//! - Numbers (`seq`) are chosen so that an answer leads back without a table: handoffs have even
//!   ones, all other messages odd ones.
//!
//! # What programs say is no attack
//!
//! A line of the program's own that is longer than [`Config::max_line`](crate::Config::max_line),
//! nested deeper than [`MAX_NESTING`], or not JSON at all, is skipped: [`Skipped`] gives the
//! reason. Only the first bytes of a line that is too long are kept. They show whose it is: Node
//! begins its own lines with `{"cmd":"NODE_`. A handle that came along is acknowledged, since its
//! sender waits for that, and dropped. How long a line takes to arrive does not matter.
//!
//! Values in the cluster's messages are read as JavaScript reads them: `"8080"` is a port. A query
//! that makes no sense is answered EINVAL.
//!
//! # Limits
//!
//! The cluster's own lines must be JSON within these bounds. A line has one handle at most, on its
//! first byte; and at most [`MAX_UNACKED`] handles may wait for their inner acknowledgement. Past a
//! limit, this and every later call returns a [`DecodeError`](crate::DecodeError).

#[cfg(not(feature = "node"))]
mod absent;
#[cfg(feature = "node")]
mod encode;
mod handle_kind;
#[cfg(feature = "node")]
mod handles;
mod host;
#[cfg(feature = "node")]
mod js;
#[cfg(feature = "node")]
mod lines;
#[cfg(feature = "node")]
mod meaning;
#[cfg(feature = "node")]
mod opening;
#[cfg(feature = "node")]
mod parse;
mod primary_event;
#[cfg(feature = "node")]
mod primary_meaning;
#[cfg(feature = "node")]
mod primary_side;
#[cfg(feature = "node")]
mod query;
mod skipped;
mod worker_event;
#[cfg(feature = "node")]
mod worker_meaning;
#[cfg(feature = "node")]
mod worker_side;
#[cfg(feature = "node")]
mod write;

#[cfg(test)]
#[cfg(feature = "node")]
mod tests;

#[cfg(not(feature = "node"))]
pub(crate) use absent::{PrimarySide, WorkerSide, primary_side, worker_side};
pub use handle_kind::HandleKind;
pub use host::Host;
pub use primary_event::PrimaryEvent;
#[cfg(feature = "node")]
pub use primary_side::PrimarySide;
pub use skipped::Skipped;
pub use worker_event::WorkerEvent;
#[cfg(feature = "node")]
pub use worker_side::WorkerSide;

/// How deep arrays and objects may be nested.
pub const MAX_NESTING: usize = 128;

/// Handles that may wait for their inner acknowledgement on one channel.
pub const MAX_UNACKED: usize = 2_048;

/// The longest key of a server whose connections a program sent. Node's are made of an address
/// and a port.
#[cfg(feature = "node")]
const MAX_SOCKET_KEY: usize = 4_096;

/// The line that says that a handle has come.
pub const HANDLE_ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";

/// The line that says that a `NODE_HANDLE` came without its handle.
pub const HANDLE_NACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

/// The start of a channel to a Node worker; `None` if the codec is not compiled in.
#[cfg(feature = "node")]
pub(crate) fn primary_side(max_line: u32, host: Host) -> Option<PrimarySide<()>> {
    Some(PrimarySide::new(max_line).on(host))
}

/// The start of a channel to a primary of Node; `None` if the codec is not compiled in.
#[cfg(feature = "node")]
pub(crate) fn worker_side<T>(max_line: u32) -> Option<WorkerSide<T>> {
    Some(WorkerSide::new(max_line))
}
