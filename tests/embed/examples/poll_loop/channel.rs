//! A worker's socket: what is read from it goes to core's end of the channel, and what that has to
//! say is sent.

use std::io::{ErrorKind, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use roundel_core::node::Host;
use roundel_core::{
    Attach, Codec, Config, ConnId, Input, READS_PER_TURN, Transmit, WorkerChannel, WorkerId,
};

/// A worker's channel and its socket.
pub(crate) struct ChannelSocket {
    socket: UnixStream,
    channel: WorkerChannel,
    sending: Sending,
}

/// What the last send came to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sending {
    Fine,
    /// The channel is full: readiness to write tells when to go on.
    Full,
    /// Too many descriptors are under way: nothing tells, but an answer of any worker may.
    Later,
    /// The worker does not read any more (EPIPE): there is no more use in waiting for readiness to
    /// write, which a closed socket always has. Acks may still be unread.
    Deaf,
}

impl ChannelSocket {
    /// A new channel, which must not block.
    pub(crate) fn new(socket: UnixStream, config: &Config) -> ChannelSocket {
        let channel = WorkerChannel::new(Some(Codec::Native), config, Host::NONE);
        ChannelSocket { socket, channel, sending: Sending::Fine }
    }

    pub(crate) fn sending(&self) -> Sending {
        self.sending
    }

    /// Whether it is to be read from.
    pub(crate) fn wants_read(&self) -> bool {
        self.channel.wants_read()
    }

    /// Queues a message.
    pub(crate) fn push(&mut self, msg: roundel_core::ToWorker, attach: Option<Attach>) {
        self.channel.push(msg, attach);
    }

    /// From here on only what the worker wrote before is read, then end of file.
    pub(crate) fn shutdown_read(&mut self) {
        self.channel.read_was_shut();
        // It fails only if the other end is closed, which has the same effect.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Reads until it would block, or until others have their turn. False at the end of the
    /// channel.
    pub(crate) fn read(&mut self, worker: WorkerId, inputs: &mut Vec<Input>) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..READS_PER_TURN {
            if !self.wants_read() {
                return true;
            }
            // read(2) has no room for descriptors: the kernel closes those that nobody asked for.
            let (mut is_dry, mut is_open) = (false, true);
            match self.socket.read(&mut buffer) {
                Ok(count @ 1..) => self.channel.feed(&buffer[..count], 0),
                // The other end died with something unread: end of file comes next (unix(7)).
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.channel.would_block();
                    is_dry = true;
                }
                Ok(0) | Err(_) => {
                    self.channel.end();
                    is_open = false;
                }
            }
            while let Some(event) = self.channel.poll() {
                inputs.extend(event.into_input(worker));
            }
            if is_dry || !is_open {
                return is_open;
            }
        }
        true
    }

    /// Sends until it would block, or until nothing is left. What never can be sent is an input.
    pub(crate) fn flush<'a>(
        &mut self,
        worker: WorkerId,
        inputs: &mut Vec<Input>,
        stream_of: impl Fn(ConnId) -> Option<&'a TcpStream>,
    ) {
        if self.sending != Sending::Deaf {
            self.sending = Sending::Fine;
        }
        while let Some(next) = self.channel.poll_transmit() {
            match send(&self.socket, &next, &stream_of) {
                Ok(count) => self.channel.sent(count),
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    self.sending = Sending::Full;
                    break;
                }
                Err(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.sending = Sending::Later;
                    break;
                }
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.channel.hung_up();
                    self.sending = Sending::Deaf;
                }
                // A connection that was released before it was sent, for one.
                Err(errno) => self.channel.not_sent(roundel_core::Errno(errno as i32)),
            }
        }
        while let Some(event) = self.channel.poll_unsent() {
            inputs.extend(event.into_input(worker));
        }
    }
}

impl AsFd for ChannelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// sendmsg(2); the handles ride on the first byte.
fn send<'a>(
    socket: &UnixStream,
    next: &Transmit<'_, Attach>,
    stream_of: impl Fn(ConnId) -> Option<&'a TcpStream>,
) -> Result<usize, Errno> {
    let number = |attach: &Attach| match attach {
        Attach::Conn(conn) => stream_of(*conn).map(AsRawFd::as_raw_fd).ok_or(Errno::EBADF),
        // This primary has no shared listeners.
        Attach::Listener(_) => Err(Errno::EBADF),
    };
    let handles = next.handles.iter().map(number).collect::<Result<Vec<i32>, Errno>>()?;
    let rights = [ControlMessage::ScmRights(&handles)];
    let rights = if handles.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(next.bytes)], rights, flags, None)
}
