//! A channel: one `SOCK_STREAM` socket pair, on which descriptors travel with the bytes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv as nix_recv, shutdown, socketpair,
};

pub use crate::unix::sys::Received;

use crate::unix::sys::MAX_HANDLES;

/// Room for as many descriptors as one message can carry.
pub(crate) const MAX_ROOM: usize = MAX_HANDLES;

/// Room on a Node channel: one descriptor with a message, and one more, so that a message with too
/// many is noticed.
pub(crate) const NODE_ROOM: usize = 2;

/// One end of a channel: a socket, or what a simulation has in its place.
pub trait End {
    /// What arrives with bytes: a descriptor, or its stand-in.
    type Handle;
    /// What is lent to be sent with bytes.
    type Lent<'a>: Clone;

    /// See [`recv`].
    ///
    /// # Errors
    /// As [`recv`].
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// See [`recv_handles`]; returns how many bytes came.
    ///
    /// # Errors
    /// As [`recv_handles`].
    fn recv_handles(
        &mut self,
        buffer: &mut [u8],
        room: usize,
        handles: &mut Vec<Self::Handle>,
    ) -> io::Result<usize>;

    /// See [`send`].
    ///
    /// # Errors
    /// As [`send`].
    fn send(
        &mut self,
        bytes: &[u8],
        handles: &[Self::Lent<'_>],
    ) -> Result<usize, roundel_core::Errno>;

    /// See [`shutdown_read`]. It fails only if the other end is closed already, which has the same
    /// effect.
    fn shutdown_read(&mut self);
}

impl End for BorrowedFd<'_> {
    type Handle = OwnedFd;
    type Lent<'a> = BorrowedFd<'a>;

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        recv(*self, buffer)
    }

    fn recv_handles(
        &mut self,
        buffer: &mut [u8],
        room: usize,
        handles: &mut Vec<OwnedFd>,
    ) -> io::Result<usize> {
        Ok(recv_some_handles(*self, buffer, room, handles)?.len)
    }

    fn send(
        &mut self,
        bytes: &[u8],
        handles: &[BorrowedFd<'_>],
    ) -> Result<usize, roundel_core::Errno> {
        send(*self, bytes, handles)
    }

    fn shutdown_read(&mut self) {
        let _ = shutdown_read(*self);
    }
}

/// A new channel: the primary's end, which is non-blocking, and the worker's, which blocks until
/// the worker changes that. Both are close-on-exec.
///
/// # Errors
/// As socketpair(2): usually because descriptors ran out.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// Makes reads and writes return instead of waiting, for every process that shares the open file
/// description (fcntl(2)).
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads bytes only; 0 is end of file. The kernel discards descriptors that come with them, because
/// there is no room for them (recvmsg(2)).
///
/// # Errors
/// As recv(2); `WouldBlock` if nothing is there.
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| nix_recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from))
}

/// Reads bytes and the descriptors that come with them, which are appended to `handles`,
/// close-on-exec. One read returns the descriptors of at most one message.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` if nothing is there.
pub fn recv_handles(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    handles: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    recv_some_handles(fd, buffer, MAX_HANDLES, handles)
}

/// Like [`recv_handles`], with room for a given number of descriptors: any more are closed.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` if nothing is there.
pub fn recv_some_handles(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    room: usize,
    handles: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    retry(|| crate::unix::sys::recv_handles(fd, buffer, room, handles))
}

/// Sends bytes, with descriptors attached to the first of them. Returns how many bytes were sent;
/// if any were, the descriptors were sent with them.
///
/// # Errors
/// As sendmsg(2): EAGAIN if the channel is full; EINVAL for more than 253 descriptors.
pub fn send(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    handles: &[BorrowedFd<'_>],
) -> Result<usize, roundel_core::Errno> {
    loop {
        match crate::unix::sys::send_handles(fd, bytes, handles) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(|errno| roundel_core::Errno(errno as i32)),
        }
    }
}

/// Ends reading after what was written so far; later writes at the other end get EPIPE.
///
/// # Errors
/// As shutdown(2): ENOTCONN if the other end is closed.
pub fn shutdown_read(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(fd.as_raw_fd(), Shutdown::Read)?)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn descriptors_come_with_the_first_byte_and_nobody_elses() {
        let (ours, theirs) = pair().unwrap();
        let (cargo, _peer) = pair().unwrap();
        send(theirs.as_fd(), b"plain", &[]).unwrap();
        send(theirs.as_fd(), b"laden", &[cargo.as_fd(), cargo.as_fd()]).unwrap();
        send(theirs.as_fd(), b"after", &[]).unwrap();
        let mut buffer = [0; 64];
        let mut handles = Vec::new();
        let received = recv_handles(ours.as_fd(), &mut buffer, &mut handles).unwrap();
        assert_eq!((received.len, handles.len()), (10, 2), "the read ends with the laden send");
        let received = recv_handles(ours.as_fd(), &mut buffer, &mut handles).unwrap();
        assert_eq!((received.len, handles.len()), (5, 2));
    }

    #[test]
    fn no_more_descriptors_come_than_there_is_room_for() {
        let (ours, theirs) = pair().unwrap();
        let (cargo, peer) = pair().unwrap();
        for room in 0..4 {
            send(theirs.as_fd(), b"x", &[cargo.as_fd(); 100]).unwrap();
            let mut handles = Vec::new();
            let received =
                recv_some_handles(ours.as_fd(), &mut [0; 8], room, &mut handles).unwrap();
            assert_eq!((received.len, handles.len(), received.truncated), (1, room, true));
        }
        drop(cargo);
        let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1), "all are closed");
    }

    #[test]
    fn a_plain_read_discards_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let (cargo, peer) = pair().unwrap();
        send(theirs.as_fd(), b"x", &[cargo.as_fd()]).unwrap();
        drop(cargo);
        assert_eq!(recv(ours.as_fd(), &mut [0; 8]).unwrap(), 1);
        // Only a child that another test forks may still hold it for a moment, so wait.
        let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
        assert_eq!(recv(peer.as_fd(), &mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_fence_keeps_what_was_written_before_it() {
        let (ours, theirs) = pair().unwrap();
        send(theirs.as_fd(), b"before", &[]).unwrap();
        shutdown_read(ours.as_fd()).unwrap();
        assert_eq!(
            send(theirs.as_fd(), b"after", &[]),
            Err(roundel_core::Errno(Errno::EPIPE as i32))
        );
        let mut buffer = [0; 64];
        assert_eq!(recv(ours.as_fd(), &mut buffer).unwrap(), 6);
        assert_eq!(recv(ours.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn messages_of_a_dead_peer_stay_readable() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), b"unread", &[]).unwrap();
        send(theirs.as_fd(), b"ack", &[]).unwrap();
        drop(theirs);
        let mut buffer = [0; 64];
        assert_eq!(send(ours.as_fd(), b"more", &[]), Err(roundel_core::Errno(Errno::EPIPE as i32)));
        assert_eq!(recv(ours.as_fd(), &mut buffer).unwrap(), 3);
        let error = recv(ours.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(recv(ours.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn an_empty_channel_makes_nobody_wait_on_either_end() {
        let (ours, theirs) = pair().unwrap();
        for fd in [&ours, &theirs] {
            let plain = recv(fd.as_fd(), &mut [0; 8]).unwrap_err();
            let laden = recv_handles(fd.as_fd(), &mut [0; 8], &mut Vec::new()).unwrap_err();
            assert_eq!(plain.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(laden.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
