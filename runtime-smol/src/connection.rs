//! A connection for async programs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_io::Async;
use futures_lite::io::{AsyncRead, AsyncWrite};
use roundel_core::SockName;
use roundel_runtime::worker::{self, Hold};

type Watch = Async<Arc<worker::Connection>>;

/// A connection of this worker: it is acknowledged, and no other worker will get it.
///
/// Dropping it shuts down writing first, so that the client sees the end at once: the primary may
/// hold its copy of the descriptor for a moment longer, and a socket's FIN goes out only when the
/// last copy is closed (close(2)). A stream made from it does not do that.
#[derive(Debug)]
pub struct Connection {
    /// Made at the first wait: many connections are answered without one.
    watch: Option<Watch>,
    connection: Arc<worker::Connection>,
    /// Dropped after the descriptor.
    hold: Hold,
    /// Whether the next read or write waits first. It does if the last one would have blocked, or
    /// did less than it was asked to. That saves a system call for each wait.
    waits: [bool; 2],
}

impl Connection {
    pub(crate) fn new(mut connection: worker::Connection) -> Connection {
        let hold = connection.hold();
        Connection { watch: None, connection: Arc::new(connection), hold, waits: [false; 2] }
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
        self.connection.peer_addr()
    }

    /// Turns it into a TCP stream. It counts as closed from then on, unless its
    /// [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a unix connection, which is then closed; or if it can't be watched.
    pub fn into_tcp_stream(self) -> io::Result<Async<TcpStream>> {
        Async::new(self.into_inner().into_tcp_stream()?)
    }

    /// Turns it into a unix stream. It counts as closed from then on, unless its
    /// [`hold`](Connection::hold) was taken before.
    ///
    /// # Errors
    /// `InvalidInput` if it is a TCP connection, which is then closed; or if it can't be watched.
    pub fn into_unix_stream(self) -> io::Result<Async<UnixStream>> {
        Async::new(self.into_inner().into_unix_stream()?)
    }

    /// Waits until a read may not block: for a program that reads without waiting, from
    /// `&Connection`.
    ///
    /// # Errors
    /// If it can't be watched, because memory ran out.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.watch()?.readable().await
    }

    /// Waits until a write may not block.
    ///
    /// # Errors
    /// As [`readable`](Connection::readable).
    pub async fn writable(&mut self) -> io::Result<()> {
        self.watch()?.writable().await
    }

    /// Shuts down reading, writing, or both.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.connection.shutdown(how)
    }

    #[expect(clippy::expect_used, reason = "the watch, the only other holder, is dropped first")]
    fn into_inner(self) -> worker::Connection {
        let Connection { watch, connection, .. } = self;
        drop(watch);
        Arc::into_inner(connection).expect("no other handle to the connection exists")
    }

    fn watch(&mut self) -> io::Result<&Watch> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            empty => Ok(empty.insert(Async::new_nonblocking(Arc::clone(&self.connection))?)),
        }
    }

    /// Reads or writes up to `count` bytes with `act`, once that may not block.
    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        count: usize,
        mut act: impl FnMut(&worker::Connection) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.waits[way as usize] {
                let watch = self.watch()?;
                ready!(match way {
                    Way::Read => watch.poll_readable(cx),
                    Way::Write => watch.poll_writable(cx),
                })?;
            }
            match act(&self.connection) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waits[way as usize] = true;
                }
                result => {
                    self.waits[way as usize] = result.as_ref().is_ok_and(|done| *done < count);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Read,
    Write,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// The connection counts as closed from then on, unless its [`hold`](Connection::hold) was taken
/// before.
impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> OwnedFd {
        connection.into_inner().into()
    }
}

/// Reads without waiting: `WouldBlock` if nothing is there.
impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.connection).read(buffer)
    }
}

/// Writes without waiting: `WouldBlock` if there is no room.
impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.connection).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_io(cx, Way::Read, buffer.len(), |mut it| it.read(buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_io(cx, Way::Write, bytes.len(), |mut it| it.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}
