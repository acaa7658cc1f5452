//! The environment variables that tell a worker about its channel.
//! [`docs::starting_workers`](crate::docs::starting_workers) describes what else a worker is
//! started with.
//!
//! A worker that finds [`CHANNEL_VAR`] speaks the native codec there. A worker that does not find
//! it, but finds [`NODE_CHANNEL_VAR`] and [`NODE_WORKER_VAR`], speaks Node's. A primary may set all
//! of them, so that the program chooses.

/// The number of the channel's descriptor, in decimal.
pub const CHANNEL_VAR: &str = "ROUNDEL_CHANNEL_FD";
/// The worker's id ([`WorkerId::get`](crate::WorkerId::get)), counting from 1, never reused.
pub const WORKER_VAR: &str = "ROUNDEL_WORKER_ID";
/// The worker's [slot](crate::Slot), counting from 0; a respawn has the same one.
pub const SLOT_VAR: &str = "ROUNDEL_SLOT";

/// The number of the channel's descriptor, as Node's `child_process` names it.
pub const NODE_CHANNEL_VAR: &str = "NODE_CHANNEL_FD";
/// The format of the messages there: a primary sets `json`. Node's other format, `advanced`, is not
/// supported here.
pub const NODE_FORMAT_VAR: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
/// The worker's id, as Node's `cluster` names it: a program that finds it is a worker.
pub const NODE_WORKER_VAR: &str = "NODE_UNIQUE_ID";

/// Every variable that may tell a worker about its cluster. A primary removes them all from the
/// environment of a worker before it sets its own, since the primary may be a worker itself; a
/// worker removes them from the environment of its helpers.
pub const VARIABLES: [&str; 6] =
    [CHANNEL_VAR, WORKER_VAR, SLOT_VAR, NODE_CHANNEL_VAR, NODE_FORMAT_VAR, NODE_WORKER_VAR];
