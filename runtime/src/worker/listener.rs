//! What a worker listens on.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roundel_core::{ListenerId, SockName};

/// Something that a worker listens on.
#[derive(Clone, Debug)]
pub struct Listener {
    pub(super) from: From,
    pub(super) sockname: SockName,
    pub(super) data: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum From {
    /// The primary hands connections over.
    Handed(ListenerId),
    /// The listener itself: shared with other workers under its name, or, outside a cluster,
    /// this process's own.
    Own(Arc<OwnedFd>, Option<ListenerId>),
}

impl Listener {
    /// Where it listens, with the port that the kernel chose if it had to.
    pub fn sockname(&self) -> &SockName {
        &self.sockname
    }

    /// What the first worker said in its query.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The descriptor to watch besides the channel, if connections do not come by the channel.
    pub fn own_fd(&self) -> Option<&Arc<OwnedFd>> {
        match &self.from {
            From::Handed(_) => None,
            From::Own(fd, _) => Some(fd),
        }
    }
}

/// Says what is missing, if that is why an ask for the operator's nth `--bind` was refused: the
/// errno alone (EINVAL) says nothing to a reader of a log.
pub fn explain_nth(nth: u32, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidInput {
        return error;
    }
    let words = format!("there is no --bind number {nth}, counted from 0, or no primary");
    io::Error::new(io::ErrorKind::InvalidInput, words)
}
