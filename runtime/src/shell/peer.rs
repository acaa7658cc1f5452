//! A worker's channel with its socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::link::Link;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) link: Link,
    /// Whether the adapter was asked to watch for readiness to write.
    pub(super) watched_for_write: bool,
}
