//! The listeners of a worker.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roundel_core::{ListenKey, ListenerId, SockName};

use crate::unix::socket;

/// A listener of a worker.
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
    /// The worker has the listener itself: shared with other workers under its name, or, outside a
    /// cluster, this process's own.
    Own(Arc<OwnedFd>, Option<ListenerId>),
}

impl Listener {
    /// Binds a listener of this process's own, outside a cluster, and notes what removes its path
    /// at the end.
    pub(super) fn bind(
        key: &ListenKey,
        backlog: u32,
        data: Vec<u8>,
        all: &mut Vec<socket::Bound>,
    ) -> io::Result<Listener> {
        let (fd, bound) = socket::bind(key, backlog, &socket::Inherited::default())
            .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        let sockname = bound.sockname.clone();
        all.push(bound);
        Ok(Listener { from: From::Own(Arc::new(fd), None), sockname, data })
    }

    /// The address of the listener, with the port that the kernel chose if the program left it
    /// open.
    pub fn sockname(&self) -> &SockName {
        &self.sockname
    }

    /// The data in the first worker's query.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The descriptor to watch besides the channel, if connections do not come over the channel.
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
    let words = format!(
        "the primary has no --bind number {nth} (they count from 0), or the program runs without one"
    );
    io::Error::new(io::ErrorKind::InvalidInput, words)
}
