//! A worker's end of its channel: either codec, behind one face.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
#[cfg(feature = "node")]
use roundel_core::node::{WorkerEvent, WorkerSide};
use roundel_core::wire;
use roundel_core::{Codec, Config, ConnRange, Custody, DecodeError, FromWorker, Inbox, ToWorker};

use crate::outbox::{Flush, Outbox};
use crate::unix::channel;

/// A channel to a primary, whatever it speaks.
#[derive(Debug)]
pub(super) struct PrimaryChannel {
    fd: Arc<OwnedFd>,
    speech: Speech,
    outbox: Outbox<FromWorker, Infallible>,
    buffer: Box<[u8]>,
}

/// What the primary speaks.
#[derive(Debug)]
enum Speech {
    Native(Inbox<OwnedFd>),
    #[cfg(feature = "node")]
    Node(Box<WorkerSide<OwnedFd>>),
}

impl PrimaryChannel {
    pub(super) fn new(fd: OwnedFd, codec: Codec) -> PrimaryChannel {
        let mut outbox = Outbox::new();
        let config = Config::builder().build();
        let speech = match codec {
            #[cfg(feature = "node")]
            Codec::Node => {
                let max_line = config.map_or(8 << 20, |config| *config.max_line());
                Speech::Node(Box::new(WorkerSide::new(max_line)))
            }
            _ => {
                let mut hello = Vec::new();
                wire::encode_hello(&mut hello);
                outbox.interject(&hello);
                let max_frame = config.map_or(1 << 20, |config| *config.max_frame());
                Speech::Native(Inbox::new(max_frame))
            }
        };
        let buffer = vec![0; 16 * 1024].into_boxed_slice();
        PrimaryChannel { fd: Arc::new(fd), speech, outbox, buffer }
    }

    pub(super) fn is_node(&self) -> bool {
        match self.speech {
            Speech::Native(_) => false,
            #[cfg(feature = "node")]
            Speech::Node(_) => true,
        }
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Queues a message.
    pub(super) fn push(&mut self, msg: FromWorker) {
        self.outbox.push(msg, []);
    }

    /// One read; false at the end of the channel, or if what came can't be.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut handles = Vec::new();
        let room = if self.is_node() { channel::NODE_ROOM } else { channel::MAX_ROOM };
        let fd = self.fd.as_fd();
        let len = channel::recv_some_handles(fd, &mut self.buffer, room, &mut handles)?.len;
        let bytes = &self.buffer[..len];
        match &mut self.speech {
            Speech::Native(inbox) => inbox.feed(bytes, handles),
            // Node sends one a message; others would belong to nothing.
            #[cfg(feature = "node")]
            Speech::Node(_) if handles.len() > 1 => return Ok(false),
            #[cfg(feature = "node")]
            Speech::Node(side) => side.feed(bytes, handles.pop()),
        }
        Ok(len > 0)
    }

    /// The next message; the handles that came with it go into custody.
    ///
    /// # Errors
    /// [`DecodeError`], for good.
    pub(super) fn poll(
        &mut self,
        custody: &mut Custody<OwnedFd>,
    ) -> Result<Option<(ToWorker, ConnRange)>, DecodeError> {
        match &mut self.speech {
            Speech::Native(inbox) => Ok(inbox.poll()?.map(|received| {
                let fds = (0..received.handles).map_while(|_| inbox.take_handle());
                (received.msg, custody.admit_all(fds))
            })),
            #[cfg(feature = "node")]
            Speech::Node(side) => loop {
                match side.poll()? {
                    Some(WorkerEvent::Message { msg, handle }) => {
                        return Ok(Some((msg, custody.admit_all(handle))));
                    }
                    Some(WorkerEvent::Answer(bytes)) => self.outbox.interject(&bytes),
                    // What the primary's program says is not for this library.
                    Some(_) => {}
                    None => return Ok(None),
                }
            },
        }
    }

    /// Sends what can be sent now; tells how many messages have got into the kernel entirely.
    pub(super) fn flush(&mut self) -> (usize, Flush<FromWorker, Infallible>) {
        let (mut sent, speech) = (0, &mut self.speech);
        let flush = self.outbox.flush(
            &mut self.fd.as_fd(),
            |msg, bytes| match speech {
                Speech::Native(_) => {
                    // Only a query's data could be too long, which `ask` leaves to the primary.
                    let _ = wire::encode(msg, u32::MAX, bytes);
                }
                #[cfg(feature = "node")]
                Speech::Node(side) => side.encode(msg, bytes),
            },
            |never| match *never {},
            |count| sent += count,
        );
        (sent, flush)
    }
}

impl Drop for PrimaryChannel {
    fn drop(&mut self) {
        // Another holder of the descriptor, such as an event loop, must not delay the end.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }
}
