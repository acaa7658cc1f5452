//! The addresses that a primary listens on.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One address, or two that clients use in turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    first: SocketAddr,
    second: Option<SocketAddr>,
    /// How many clients have come. It is never given back: there are few clusters in a test.
    turn: &'static AtomicUsize,
}

impl Addresses {
    pub(crate) fn new(first: SocketAddr, second: Option<SocketAddr>) -> Addresses {
        Addresses { first, second, turn: Box::leak(Box::default()) }
    }

    /// Both, where there are two.
    pub(crate) fn all(self) -> impl Iterator<Item = SocketAddr> {
        [self.first].into_iter().chain(self.second)
    }
}

impl From<SocketAddr> for Addresses {
    fn from(only: SocketAddr) -> Addresses {
        Addresses::new(only, None)
    }
}

/// A client asks for the address: the next one.
impl ToSocketAddrs for Addresses {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let second = self.second.filter(|_| self.turn.fetch_add(1, Ordering::Relaxed) % 2 == 1);
        Ok(Some(second.unwrap_or(self.first)).into_iter())
    }
}

impl Display for Addresses {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)
    }
}
