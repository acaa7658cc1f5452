//! A connection that the program has taken.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockaddrLike, SockaddrStorage, getpeername, getsockname, recv, send,
    setsockopt, shutdown, sockopt,
};
use nix::sys::time::TimeVal;
use roundel_core::SockName;

use super::load::Hold;
use crate::unix::socket;

/// A connection of this worker: it is acknowledged, and no other worker will get it.
///
/// Non-blocking, unless [set otherwise](Connection::set_nonblocking), and close-on-exec. Dropping
/// it shuts down writing first, so that the client sees the end at once: the primary may hold its
/// copy of the descriptor for a moment longer, and a socket's FIN goes out only when the last copy
/// is closed (close(2)). A stream made from it does not do that.
#[derive(Debug)]
pub struct Connection {
    fd: Option<OwnedFd>,
    /// Dropped after the descriptor.
    hold: Hold,
}

impl Connection {
    pub(super) fn new(fd: OwnedFd, hold: Hold) -> Self {
        Connection { fd: Some(fd), hold }
    }

    /// Takes over the count: the connection counts as open until this is dropped, instead of until
    /// the connection is closed. For a program that turns it into something else. The second call
    /// returns one that counts nothing.
    pub fn hold(&mut self) -> Hold {
        std::mem::take(&mut self.hold)
    }

    /// The client's address; a unix client usually has an empty path.
    ///
    /// # Errors
    /// As getpeername(2): ENOTCONN if the client has left.
    pub fn peer_addr(&self) -> io::Result<SockName> {
        let found: SockaddrStorage = getpeername(self.as_raw_fd())?;
        socket::name_of(&found).ok_or_else(|| Errno::EAFNOSUPPORT.into())
    }

    /// Sets whether reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As fcntl(2); no input causes one.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mut flags = OFlag::from_bits_retain(fcntl(self, FcntlArg::F_GETFL)?);
        flags.set(OFlag::O_NONBLOCK, nonblocking);
        fcntl(self, FcntlArg::F_SETFL(flags))?;
        Ok(())
    }

    /// Sets how long a read or write on a blocking connection may wait before it fails with
    /// `WouldBlock`. `None` or zero, the initial setting, means forever (socket(7), `SO_RCVTIMEO`).
    ///
    /// # Errors
    /// As setsockopt(2): EDOM if the time is too long.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.unwrap_or_default();
        let seconds = timeout.as_secs().try_into().map_err(|_| Errno::EDOM)?;
        let timeout = TimeVal::new(seconds, timeout.subsec_micros().into());
        setsockopt(self, sockopt::ReceiveTimeout, &timeout)?;
        Ok(setsockopt(self, sockopt::SendTimeout, &timeout)?)
    }

    /// Turns it into a TCP stream, blocking as those of the standard library are. It counts as
    /// closed from then on, unless its [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a unix connection, which is then closed; or if the mode can't be
    /// changed.
    pub fn into_tcp_stream(self) -> io::Result<TcpStream> {
        if self.is_unix()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a unix connection"));
        }
        let stream = TcpStream::from(OwnedFd::from(self));
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// Turns it into a unix stream, blocking as those of the standard library are. It counts as
    /// closed from then on, unless its [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a TCP connection, which is then closed; or if the mode can't be
    /// changed.
    pub fn into_unix_stream(self) -> io::Result<UnixStream> {
        if !self.is_unix()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a TCP connection"));
        }
        let stream = UnixStream::from(OwnedFd::from(self));
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    fn is_unix(&self) -> io::Result<bool> {
        let own: SockaddrStorage = getsockname(self.as_raw_fd())?;
        Ok(own.family() == Some(AddressFamily::Unix))
    }

    /// Shuts down reading, writing, or both.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => nix::sys::socket::Shutdown::Read,
            Shutdown::Write => nix::sys::socket::Shutdown::Write,
            Shutdown::Both => nix::sys::socket::Shutdown::Both,
        };
        Ok(shutdown(self.as_fd().as_raw_fd(), how)?)
    }
}

impl AsFd for Connection {
    #[expect(clippy::expect_used, reason = "it is empty only inside `from` and `drop`")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("a connection has its descriptor").as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

/// The connection counts as closed from then on, unless its [`hold`](Connection::hold) was taken
/// before.
impl From<Connection> for OwnedFd {
    #[expect(clippy::expect_used, reason = "it is empty only from here on")]
    fn from(mut connection: Connection) -> OwnedFd {
        connection.fd.take().expect("a connection has its descriptor")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            // It fails only if the client is gone already.
            let _ = shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        }
    }
}

impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.as_raw_fd(), buffer, MsgFlags::empty())?)
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
