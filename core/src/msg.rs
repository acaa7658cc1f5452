//! The messages between the primary and a worker, apart from how they are encoded.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{ConnId, ListenerId, Seq, Signal};

/// An error number of errno(3), as a positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Errno(pub i32);

impl Errno {
    /// The directory of a unix socket does not exist.
    pub const ENOENT: Errno = Errno(2);
    /// Access is denied.
    pub const EACCES: Errno = Errno(13);
    /// The descriptor in a query is not one that the primary inherited.
    pub const EBADF: Errno = Errno(9);
    /// A limit on processes or threads is reached.
    pub const EAGAIN: Errno = Errno(11);
    /// No memory is available.
    pub const ENOMEM: Errno = Errno(12);
    /// The request makes no sense, such as the nth listener if the operator gave fewer, or a path
    /// that is too long for a unix socket.
    pub const EINVAL: Errno = Errno(22);
    /// The whole system has as many files open as it may.
    pub const ENFILE: Errno = Errno(23);
    /// The worker, its slot, or the whole cluster has as many listeners as the limits allow; or the
    /// primary has as many descriptors as it may.
    pub const EMFILE: Errno = Errno(24);
    /// The data of a query is longer than half a frame may be.
    pub const EMSGSIZE: Errno = Errno(90);
    /// Somebody else listens there, or the operator's listener there is narrower than the ask.
    pub const EADDRINUSE: Errno = Errno(98);
    /// The worker, or the whole cluster, is leaving.
    pub const ECANCELED: Errno = Errno(125);

    /// Whether descriptors, processes or memory were not available just now. Such an error shows
    /// nothing about what was tried, only that it should be tried again.
    pub const fn is_want_of_resources(self) -> bool {
        matches!(self, Errno::EAGAIN | Errno::ENOMEM | Errno::ENFILE | Errno::EMFILE)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Address {
    /// Every address of the machine: `::` with IPv4 too, or `0.0.0.0` where there is no IPv6.
    Any {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// One address, or all of one family.
    Ip(SocketAddr),
    /// A unix socket at this path.
    Unix(#[serde(deserialize_with = "crate::borrowed::string")] String),
    /// A listening socket that the primary inherited, by its number.
    Fd(i32),
    /// The operator's nth listener, counted from 0. Only a query can contain this.
    Nth(u32),
}

impl Address {
    /// The port, for addresses that have one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Any { port } => Some(*port),
            Address::Ip(addr) => Some(addr.port()),
            Address::Unix(_) | Address::Fd(_) | Address::Nth(_) => None,
        }
    }
}

impl fmt::Display for Address {
    /// As the command line writes it: `127.0.0.1:80`, `*:80`, `unix:/run/x`, `fd:3`, `nth:0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any { port } => write!(f, "*:{port}"),
            Address::Ip(addr) => write!(f, "{addr}"),
            Address::Unix(path) => write_unix(f, path),
            Address::Fd(fd) => write!(f, "fd:{fd}"),
            Address::Nth(n) => write!(f, "nth:{n}"),
        }
    }
}

/// The zero byte of an abstract name is written as `@`, as others do (unix(7), ss(8)).
fn write_unix(f: &mut fmt::Formatter<'_>, path: &str) -> fmt::Result {
    match path.strip_prefix('\0') {
        Some(name) => write!(f, "unix:@{name}"),
        None => write!(f, "unix:{path}"),
    }
}

/// Streams are handed off connection by connection; datagram sockets are always shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Transport {
    /// TCP, or a unix stream socket.
    Stream,
    /// UDP.
    Datagram,
    /// UDP at an address that other sockets may be bound to as well (SO_REUSEADDR), such as those
    /// that listen to a multicast group.
    DatagramReuse,
}

/// What a worker asks to listen on. Workers that ask for equal keys share one listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenKey {
    /// Where.
    pub address: Address,
    /// Streams or datagrams.
    pub transport: Transport,
    /// Whether `[::]` leaves IPv4 alone.
    pub v6_only: bool,
    /// Counts the servers of one worker on the same address, from 0. It tells listeners on port 0
    /// and on inherited descriptors apart; elsewhere it has no meaning, since a worker can't have
    /// two servers on one address.
    pub index: u32,
}

/// The longest path of a unix socket in bytes: `sun_path` without its closing zero (unix(7)).
pub const MAX_UNIX_PATH: usize = 107;

/// Whether a unix socket can have this name: a path, or a zero byte and an abstract name, which
/// fills `sun_path` and may hold any byte (unix(7)).
pub(crate) fn is_unix_name(name: &str) -> bool {
    match name.strip_prefix('\0') {
        Some(name) => (1..=MAX_UNIX_PATH).contains(&name.len()),
        None => (1..=MAX_UNIX_PATH).contains(&name.len()) && !name.contains('\0'),
    }
}

impl ListenKey {
    /// The same key without what makes no difference.
    pub(crate) fn normal(mut self) -> Self {
        if self.address.port() != Some(0) && !matches!(self.address, Address::Fd(_)) {
            self.index = 0;
        }
        if !matches!(self.address, Address::Any { .. } | Address::Ip(SocketAddr::V6(_))) {
            self.v6_only = false;
        }
        self
    }

    /// Whether a socket can be bound there at all.
    pub(crate) fn is_possible(&self) -> bool {
        match &self.address {
            Address::Unix(path) => is_unix_name(path),
            Address::Any { .. } | Address::Ip(_) | Address::Fd(_) | Address::Nth(_) => true,
        }
    }

    /// The key of a worker's first stream listener at `address`, IPv4 and IPv6 together.
    pub fn stream(address: Address) -> Self {
        ListenKey { address, transport: Transport::Stream, v6_only: false, index: 0 }
    }
}

/// Where a socket is bound, as getsockname(2) returns it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SockName {
    /// TCP or UDP.
    Ip(SocketAddr),
    /// A unix socket: its path, or empty.
    Unix(#[serde(deserialize_with = "crate::borrowed::string")] String),
}

impl SockName {
    /// The port, for addresses that have one.
    pub fn port(&self) -> Option<u16> {
        match self {
            SockName::Ip(addr) => Some(addr.port()),
            SockName::Unix(_) => None,
        }
    }

    /// The IP address, for addresses that have one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            SockName::Ip(addr) => Some(addr.ip()),
            SockName::Unix(_) => None,
        }
    }
}

impl fmt::Display for SockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SockName::Ip(addr) => write!(f, "{addr}"),
            SockName::Unix(path) => write_unix(f, path),
        }
    }
}

/// The positive answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Granted {
    /// The name that every later message about this listener uses.
    pub listener: ListenerId,
    /// Where it listens.
    pub sockname: SockName,
    /// True: one handle travels with this message, and the worker accepts for itself.
    /// False: connections come by `NewConn`.
    pub shared: bool,
    /// The data of the first worker's query; all workers get it.
    #[serde(with = "crate::borrowed::bytes")]
    pub data: Vec<u8>,
}

/// A worker's message to the primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromWorker {
    /// The program runs and speaks the protocol. The first message.
    Online,
    /// Listen on this address for me.
    Query {
        /// The number that the reply names.
        seq: Seq,
        /// What to listen on.
        key: Box<ListenKey>,
        /// The wanted backlog of listen(2); 0 means the default. The first worker's value counts.
        backlog: u32,
        /// Opaque; all workers get the first worker's value.
        #[serde(with = "crate::borrowed::bytes")]
        data: Vec<u8>,
    },
    /// My server on this listener is up. The first such message makes the worker ready.
    Listening {
        /// The listener of the reply.
        listener: ListenerId,
    },
    /// The answer to one handed-off connection.
    Ack {
        /// The number of that connection.
        ack: Seq,
        /// True: it is mine. False: give it to another.
        accepted: bool,
    },
    /// No more connections from this listener.
    Close {
        /// The listener.
        listener: ListenerId,
    },
    /// I am failing: start my replacement now, hand me nothing more; I finish what I have and exit.
    Suicide {
        /// The number that the primary's [`ToWorker::Ack`] names once the replacement was started.
        seq: Seq,
    },
    /// I leave of my own will: my exit is not a crash.
    ExitedAfterDisconnect {
        /// The number that the primary's [`ToWorker::Ack`] names.
        seq: Seq,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        ack: Seq,
    },
    /// How many connections I have open. Sent within 50 ms of a change.
    Load {
        /// Open connections.
        open: u32,
    },
    /// The program is ready. If [`Config::wait_ready`](crate::Config::wait_ready) is set, nothing
    /// is handed off before this; otherwise it adds nothing.
    Ready,
    /// How late my event loop is: Node workers with the preload of `--node-assist` say this once a
    /// second, when it has changed.
    Lag {
        /// Milliseconds by which a timer was late.
        millis: u32,
    },
    /// The program handles this signal, and wants to be told to leave by it; `None` takes that
    /// back. Node workers with the preload of `--node-assist` say this. The primary follows it if
    /// the signal is SIGTERM or SIGINT, the worker speaks Node's codec, and
    /// [`Config::stop_signal`](crate::Config::stop_signal) chooses nothing else.
    StopSignal {
        /// The signal.
        signal: Option<Signal>,
    },
}

/// The primary's message to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToWorker {
    /// The answer to a query. Carries one handle if it grants a shared listener.
    QueryReply {
        /// The query's number.
        ack: Seq,
        /// The listener, or why there is none.
        result: Result<Box<Granted>, Errno>,
    },
    /// Carries `count` connections, one handle each.
    NewConn {
        /// The number of the first one; the others count up from it.
        first_seq: Seq,
        /// The listener they came from.
        listener: ListenerId,
        /// How many. At least 1.
        count: u32,
    },
    /// Your message was received.
    Ack {
        /// Its number.
        ack: Seq,
    },
    /// Leave: close your listeners, finish your connections, close the channel, exit.
    Disconnect,
    /// Leave within this time; a worker that still lives after it is killed.
    Drain {
        /// Milliseconds from now.
        deadline_ms: u64,
    },
    /// Answer with a pong.
    Ping {
        /// The number that the pong names.
        seq: Seq,
    },
    /// Carries a listener that the worker did not ask for, as one handle: accept from it. Sent only
    /// to Node programs without cluster, as the message `server`.
    PassListener {
        /// Its name.
        listener: ListenerId,
    },
    /// Leave, as programs know it from PM2. Sent only to Node programs, as the message `shutdown`.
    Shutdown,
}

/// A handle that travels with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attach {
    /// A connection in custody.
    Conn(ConnId),
    /// A listener.
    Listener(ListenerId),
}

impl ToWorker {
    /// Merges the next message into this one, so that they travel as one, if both are handoffs from
    /// one listener with consecutive numbers. True if it did.
    ///
    /// Call it only while this message has not begun to be sent. Merging stops at 64 connections:
    /// more would not fit in one sendmsg(2) everywhere (SCM_MAX_FD is 253 on Linux).
    pub fn merge(&mut self, next: &ToWorker) -> bool {
        let ToWorker::NewConn { first_seq, listener, count } = self else { return false };
        let ToWorker::NewConn { first_seq: seq, listener: same, count: more } = next else {
            return false;
        };
        let fits = *listener == *same && first_seq.plus(*count) == *seq && *count + *more <= 64;
        if fits {
            *count += *more;
        }
        fits
    }

    /// How many handles travel with this message.
    pub fn handles(&self) -> u32 {
        match self {
            ToWorker::NewConn { count, .. } => *count,
            ToWorker::QueryReply { result: Ok(granted), .. } if granted.shared => 1,
            ToWorker::PassListener { .. } => 1,
            ToWorker::QueryReply { .. }
            | ToWorker::Ack { .. }
            | ToWorker::Disconnect
            | ToWorker::Drain { .. }
            | ToWorker::Ping { .. }
            | ToWorker::Shutdown => 0,
        }
    }
}

#[cfg(test)]
mod tests;
