//! A worker's channel: what is read from it, and what a send on it can come to.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Attach, Codec, ConnId, FromWorker, Input, READS_PER_TURN, ToWorker, Violation, WorkerId,
};

const MAX_FRAME: u32 = 1 << 20;

/// While more messages wait to be sent to a worker, nothing is read from it: one that asks and never
/// reads the answers is slowed down, and what waits stays bounded.
const MAX_UNSENT: usize = 256;

/// A worker's channel.
pub(crate) struct WorkerChannel {
    socket: UnixStream,
    /// Known since the first byte.
    decoder: Option<Decoder<FromWorker>>,
    /// What is to be sent.
    unsent: VecDeque<(ToWorker, Option<Attach>)>,
    /// The first of them, encoded, and how much of it was sent.
    encoded: Vec<u8>,
    sent: usize,
    sending: Sending,
    /// Only what was written before is still to be read.
    read_shut: bool,
}

/// What the last send came to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sending {
    Fine,
    /// The channel is full: readiness to write tells when to go on.
    Full,
    /// Too many descriptors are under way: nothing tells, but an answer of any worker may.
    Later,
    /// The worker does not read any more (EPIPE): there is no more use in sending, nor in waiting
    /// for readiness to write, which a closed socket always has. Acks may still be unread.
    Deaf,
}

impl WorkerChannel {
    /// A new channel, which must not block.
    pub(crate) fn new(socket: UnixStream) -> WorkerChannel {
        WorkerChannel {
            socket,
            decoder: None,
            unsent: VecDeque::new(),
            encoded: Vec::new(),
            sent: 0,
            sending: Sending::Fine,
            read_shut: false,
        }
    }

    pub(crate) fn sending(&self) -> Sending {
        self.sending
    }

    /// Whether it is to be read from.
    pub(crate) fn wants_read(&self) -> bool {
        self.unsent.len() <= MAX_UNSENT || self.read_shut
    }

    /// Queues a message.
    pub(crate) fn push(&mut self, msg: ToWorker, attach: Option<Attach>) {
        if self.sending != Sending::Deaf {
            self.unsent.push_back((msg, attach));
        }
    }

    /// From here on only what the worker wrote before is read, then end of file.
    pub(crate) fn shutdown_read(&mut self) {
        self.read_shut = true;
        // It fails only if the other end is closed, which has the same effect.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Reads until it would block, or until others have their turn. False at the end of the
    /// channel.
    pub(crate) fn read(&mut self, worker: WorkerId, inputs: &mut Vec<Input>) -> bool {
        let mut buffer = [0; 4096];
        let reads = if self.wants_read() { READS_PER_TURN } else { 0 };
        for _ in 0..reads {
            // read(2) has no room for descriptors: the kernel closes those that nobody asked for.
            let count = match self.socket.read(&mut buffer) {
                Ok(count @ 1..) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                // The other end died with something unread: end of file comes next (unix(7)).
                Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => {
                    inputs.push(Input::ChannelClosed { worker });
                    return false;
                }
            };
            let decoder = self.decoder.get_or_insert_with(|| {
                inputs.push(match Codec::detect(buffer[0]) {
                    Some(Codec::Native) => Input::Hello { worker, codec: Codec::Native },
                    _ => Input::Violation { worker, what: Violation::UnknownCodec },
                });
                // In front of all that is to be sent.
                wire::encode_hello(&mut self.encoded);
                Decoder::new(MAX_FRAME)
            });
            decoder.feed(&buffer[..count]);
            loop {
                match decoder.poll() {
                    Ok(Some((msg, _))) => inputs.push(Input::Message { worker, msg }),
                    Ok(None) => break,
                    // The machine heeds the first one. What comes after it is read to the end of the
                    // channel, and the decoder throws it away.
                    Err(error) => {
                        let what = Violation::Decode(error);
                        inputs.push(Input::Violation { worker, what });
                        break;
                    }
                }
            }
            inputs.extend(decoder.is_mid_frame().then_some(Input::FrameBegun { worker }));
        }
        true
    }

    /// Sends until it would block, or until nothing is left.
    pub(crate) fn flush<'a>(&mut self, stream_of: impl Fn(ConnId) -> Option<&'a TcpStream>) {
        // The worker speaks first.
        while self.decoder.is_some() && self.sending != Sending::Deaf {
            let mut handle = None;
            let begins = self.sent == self.encoded.len();
            if begins {
                self.encoded.clear();
                self.sent = 0;
                let Some((msg, attach)) = self.unsent.front() else {
                    self.sending = Sending::Fine;
                    return;
                };
                if let Some(Attach::Conn(conn)) = attach {
                    handle = stream_of(*conn).map(AsFd::as_fd);
                    if handle.is_none() {
                        // Released before it was sent: nobody asks for it any more.
                        self.unsent.pop_front();
                        continue;
                    }
                }
                wire::encode(msg, MAX_FRAME, &mut self.encoded).expect("it is not too long");
            }
            match send(&self.socket, &self.encoded[self.sent..], handle) {
                Ok(count) => {
                    self.sent += count;
                    if begins {
                        self.unsent.pop_front();
                    }
                }
                Err(errno) => {
                    if begins {
                        // Not one byte went: it is encoded again, with its handle.
                        self.encoded.clear();
                    }
                    self.sending = match errno {
                        Errno::EAGAIN | Errno::EINTR => Sending::Full,
                        Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM => Sending::Later,
                        _ => {
                            self.unsent.clear();
                            Sending::Deaf
                        }
                    };
                    return;
                }
            }
        }
    }
}

impl AsFd for WorkerChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// sendmsg(2); the handle rides on the first byte.
fn send(socket: &UnixStream, bytes: &[u8], handle: Option<BorrowedFd<'_>>) -> Result<usize, Errno> {
    let handles: Vec<i32> = handle.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&handles)];
    let rights = if handles.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)
}
