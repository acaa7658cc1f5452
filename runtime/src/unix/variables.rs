//! The environment variables by which a worker is told of its cluster.

/// The number of the channel's descriptor in a worker.
pub const CHANNEL_VAR: &str = "ROUNDEL_CHANNEL_FD";
/// The worker's id, counting from 1, never reused.
pub const WORKER_VAR: &str = "ROUNDEL_WORKER_ID";
/// The worker's slot, counting from 0; a respawn has the same one.
pub const SLOT_VAR: &str = "ROUNDEL_SLOT";

/// The number of the channel's descriptor, as Node's `child_process` has it.
pub const NODE_CHANNEL_VAR: &str = "NODE_CHANNEL_FD";
/// How messages are written there.
pub const NODE_FORMAT_VAR: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
/// The worker's id, as Node's `cluster` has it: who finds it is a worker.
pub const NODE_WORKER_VAR: &str = "NODE_UNIQUE_ID";

/// Every variable by which a worker may be told of its cluster.
pub const VARIABLES: [&str; 6] =
    [CHANNEL_VAR, WORKER_VAR, SLOT_VAR, NODE_CHANNEL_VAR, NODE_FORMAT_VAR, NODE_WORKER_VAR];
