//! A worker's channel and its socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
use roundel_core::{
    Codec, Config, ConnRange, Custody, DecodeError, FromWorker, PrimaryChannel, ToWorker, Transmit,
};

use crate::unix::channel;
use crate::unix::transmit::{Flush, Sent, transmit};

/// A channel to a primary, with either codec.
#[derive(Debug)]
pub(super) struct ChannelIo {
    fd: Arc<OwnedFd>,
    channel: PrimaryChannel<OwnedFd>,
    buffer: Box<[u8]>,
}

impl ChannelIo {
    pub(super) fn new(fd: OwnedFd, codec: Codec) -> Option<ChannelIo> {
        let defaults = Config::default();
        let channel = PrimaryChannel::new(codec, defaults.max_frame(), defaults.max_line())?;
        let buffer = vec![0; 16 * 1024].into_boxed_slice();
        Some(ChannelIo { fd: Arc::new(fd), channel, buffer })
    }

    pub(super) fn is_node(&self) -> bool {
        self.channel.is_node()
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.channel.has_unsent()
    }

    /// Queues a message.
    pub(super) fn push(&mut self, msg: FromWorker) {
        self.channel.push(msg);
    }

    /// Reads once; false at the end of the channel, or if the bytes that came are not valid.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut handles = Vec::new();
        let room = if self.is_node() { channel::NODE_ROOM } else { channel::MAX_ROOM };
        let fd = self.fd.as_fd();
        let len = channel::recv_some_handles(fd, &mut self.buffer, room, &mut handles)?.len;
        let is_fed = self.channel.feed(&self.buffer[..len], handles).is_ok();
        Ok(is_fed && len > 0)
    }

    /// The next message; the handles that came with it go into custody.
    ///
    /// # Errors
    /// [`DecodeError`], after which the channel stays unusable.
    pub(super) fn poll(
        &mut self,
        custody: &mut Custody<OwnedFd>,
    ) -> Result<Option<(ToWorker, ConnRange)>, DecodeError> {
        self.channel.poll(custody)
    }

    /// Sends what can be sent now; returns how many messages have been written to the kernel
    /// completely.
    pub(super) fn flush(&mut self) -> (usize, Flush) {
        let flush = loop {
            let Some(bytes) = self.channel.poll_transmit() else { break Flush::Done };
            let next: Transmit<'_, ()> = Transmit { bytes, handles: &[] };
            match transmit(&mut self.fd.as_fd(), &next, |()| None) {
                Sent::Bytes(count) => self.channel.sent(count),
                Sent::Blocked => break Flush::Blocked,
                Sent::TooManyRefs => break Flush::TooManyRefs,
                Sent::Closed | Sent::Never(_) => break Flush::Closed,
            }
        };
        (self.channel.take_finished(), flush)
    }
}

impl Drop for ChannelIo {
    fn drop(&mut self) {
        // Another holder of the descriptor, such as an event loop, must not delay the end.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }
}
