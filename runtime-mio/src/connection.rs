//! A connection for mio programs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use roundel_core::SockName;
use roundel_runtime::worker::{self, Hold};

/// A connection of this worker: it is acknowledged, and no other worker will get it.
///
/// A connection from [`accept`](crate::Listener::accept) blocks; one from
/// [`try_accept`](crate::Listener::try_accept) or [`try_accept_any`](crate::Worker::try_accept_any)
/// does not. It is a mio [`Source`].
///
/// Dropping it shuts down writing first, so that the client sees the end at once: the primary may
/// hold its copy of the descriptor for a moment longer, and a socket's FIN goes out only when the
/// last copy is closed (close(2)). A stream made from it does not do that.
#[derive(Debug)]
pub struct Connection(worker::Connection);

impl Connection {
    pub(crate) fn new(connection: worker::Connection) -> Connection {
        Connection(connection)
    }

    /// Takes over the count: the connection counts as open until this is dropped, instead of until
    /// the connection is closed. For a program that turns it into something else. The second call
    /// returns one that counts nothing.
    pub fn hold(&mut self) -> Hold {
        self.0.hold()
    }

    /// The client's address; a unix client usually has an empty path.
    ///
    /// # Errors
    /// As getpeername(2): ENOTCONN if the client has left.
    pub fn peer_addr(&self) -> io::Result<SockName> {
        self.0.peer_addr()
    }

    /// Sets whether reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As fcntl(2); no input causes one.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Sets how long a read or write on a blocking connection may wait before it fails with
    /// `WouldBlock`. `None` or zero, the initial setting, means forever.
    ///
    /// # Errors
    /// As setsockopt(2): EDOM if the time is too long.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(timeout)
    }

    /// Turns it into a TCP stream, blocking as those of the standard library are. It counts as
    /// closed from then on, unless its [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a unix connection, which is then closed; or if the mode can't be
    /// changed.
    pub fn into_tcp_stream(self) -> io::Result<TcpStream> {
        self.0.into_tcp_stream()
    }

    /// Turns it into a unix stream, blocking as those of the standard library are. It counts as
    /// closed from then on, unless its [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a TCP connection, which is then closed; or if the mode can't be
    /// changed.
    pub fn into_unix_stream(self) -> io::Result<UnixStream> {
        self.0.into_unix_stream()
    }

    /// Shuts down reading, writing, or both.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl Source for Connection {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The connection counts as closed from then on, unless its [`hold`](Connection::hold) was taken
/// before.
impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> OwnedFd {
        connection.0.into()
    }
}

impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
