//! The control socket: how `status`, `stop` and other commands reach a running primary.
//!
//! A client sends one JSON object a line, such as `{"command":"status"}`, and gets one JSON object
//! a line back; then it may send the next one. Only the primary's own user and root are served. A
//! line that can't be read is answered with `{"ok":false,"error":"..."}`, and the connection is
//! closed.
//!
//! Two kinds of requests have more than one line as their answer. `{"command":"logs","slot":0}`:
//! after [`Following`], the client gets a [`Followed`] a line until one of the two ends. A request
//! that takes its time (`reload`, `scale`): [`Progress`] lines come before the answer, which is the
//! first line with a field `ok`. A client that closes its connection meanwhile changes nothing: what
//! it asked for goes on.

mod client;
mod conversation;
mod follow;
mod path;
mod request;
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
    /// Replace all workers by new ones, as SIGHUP does. Answered with [`Reloaded`] when that is done,
    /// with [`Failed`] if it failed.
    Reload {
        /// Only say what it would do: answered with [`DryRun`].
        #[serde(default)]
        dry_run: bool,
    },
    /// Keep another number of workers. Answered with [`Scaled`] when the new ones are ready.
    Scale {
        /// This number.
        #[serde(default)]
        to: Option<u32>,
        /// So many more, or fewer.
        #[serde(default)]
        by: Option<i32>,
    },
    /// Accept nothing more and hand out nothing more: answered with [`Paused`].
    Pause,
    /// End a pause: answered with [`Paused`].
    Resume,
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

/// How far a request is, before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How many of the workers that it needs are ready.
    pub ready: u32,
    /// How many those are.
    pub wanted: u32,
}

/// The answer to [`Request::Reload`] when it is done: every worker is of this generation, and the
/// old ones were told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// True: it is done.
    pub ok: bool,
    /// The new generation.
    pub generation: u32,
}

/// The answer to [`Request::Reload`] with `dry_run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// True: a reload could begin.
    pub ok: bool,
    /// What it would do, one line each.
    pub would: Vec<String>,
}

/// The answer to [`Request::Scale`] when it is done: the new workers are ready, those that are too
/// many were told to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// True: it is done.
    pub ok: bool,
    /// How many workers there were.
    pub from: u32,
    /// How many there are.
    pub to: u32,
    /// What else the operator should know of, one line each: slots that are given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to [`Request::Pause`] and [`Request::Resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// True: it is done.
    pub ok: bool,
    /// Whether the cluster is paused now.
    pub paused: bool,
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
