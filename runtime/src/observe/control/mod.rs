//! The control socket: how `status`, `stop` and other commands reach a running primary.
//!
//! A client sends one JSON object a line, such as `{"command":"status"}`, and gets one JSON object
//! a line back; then it may send the next one. Only the primary's own user and root are served. A
//! line that can't be read is answered with `{"ok":false,"error":"..."}`, and the connection is
//! closed.
//!
//! `{"command":"logs","slot":0}` is the one request with more than one line as its answer: after
//! [`Following`], the client gets a [`Followed`] a line until one of the two ends.

mod client;
mod conversation;
mod follow;
mod path;
mod server;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::observe::output::{LogLine, Missing};

pub use client::{Connection, find};
pub use follow::Follow;
pub use path::ControlError;
pub use server::{ClientId, ControlServer};

/// Where a primary makes its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Where {
    /// At the default place. If that fails, the primary goes on without a control socket.
    #[default]
    Default,
    /// At this path. If that fails, the primary does not start.
    Path(std::path::PathBuf),
    /// Nowhere.
    Off,
}

/// A client's request. The fields of a variant are its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// The state of the primary: answered with a [`Status`](crate::observe::status::Status).
    Status,
    /// Send what workers print from now on: answered with [`Following`], then with [`Followed`]
    /// lines.
    Logs {
        /// The slot to follow; all of them if there is none.
        slot: Option<u32>,
    },
    /// Drain and end. Answered with [`Stopping`] at once; the end of file means that the primary
    /// has ended.
    Stop,
}

/// The answer to [`Request::Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// True: the request was understood.
    pub ok: bool,
    /// True: the shutdown has begun.
    pub stopping: bool,
}

impl Stopping {
    /// The only answer there is.
    pub const YES: Stopping = Stopping { ok: true, stopping: true };
}

/// The answer to [`Request::Logs`]: from here on come [`Followed`] lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// True: the request was understood.
    pub ok: bool,
    /// True: lines follow.
    pub following: bool,
}

impl Following {
    /// The only answer there is.
    pub const YES: Following = Following { ok: true, following: true };
}

/// A line for a client that follows workers' output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Followed<'a> {
    /// A worker printed a line.
    Line(LogLine<'a>),
    /// The client was too slow: lines are missing at this place.
    Missing(Missing),
    /// The primary ends; nothing more comes.
    Ended {
        /// True.
        ended: bool,
    },
    /// The primary closes the connection.
    Failed(Failed),
}

/// The answer to a request that was not understood or could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// False.
    pub ok: bool,
    /// Why, as text.
    pub error: String,
}

impl Failed {
    /// A failure with this reason.
    pub fn because(error: impl Into<String>) -> Self {
        Failed { ok: false, error: error.into() }
    }
}
