//! One worker's channel, as the primary holds it.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Attach, BYTES_PER_TURN, Codec, FromWorker, MESSAGES_PER_TURN, ToWorker, Violation,
};

use crate::channel;
use crate::outbox::{Flush, Outbox};

/// While more than this waits to be sent to a worker, nothing is read from it: who does not read
/// is slowed, and what waits stays bounded.
const MAX_UNSENT: usize = 256;

/// The primary's end of a channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: Arc<OwnedFd>,
    /// The codec that the worker must speak, if not any.
    wanted: Option<Codec>,
    reading: Reading,
    outbox: Outbox<ToWorker, Attach>,
    /// Whether the adapter was asked to watch for readiness to write.
    pub(super) watched_for_write: bool,
    /// The other end is closed: nothing more can be sent, but acks may still be unread.
    deaf: bool,
    fenced: bool,
}

#[derive(Debug)]
enum Reading {
    /// Nothing was read yet.
    Fresh,
    Native(Decoder<FromWorker>),
    /// What comes is no protocol any more; it is read and thrown away, to reach the end of file.
    Discarding,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Heard {
    Hello(Codec),
    Message(FromWorker),
    Violation(Violation),
    /// An unfinished frame is left over.
    FrameBegun,
    Closed,
}

/// Whether a channel was read to would-block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadState {
    Empty,
    /// The budget ran out, or what waits to be sent holds the reading up.
    More,
    /// As above, but it makes no sense to go on before something was sent.
    Held,
    Closed,
}

impl Link {
    pub(super) fn new(fd: OwnedFd, wanted: Option<Codec>) -> Self {
        Link {
            fd: Arc::new(fd),
            wanted,
            reading: Reading::Fresh,
            outbox: Outbox::new(),
            watched_for_write: false,
            deaf: false,
            fenced: false,
        }
    }

    /// Reads within the budget of a turn and tells what was heard, in order.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        max_frame: u32,
        mut heard: impl FnMut(Heard),
    ) -> ReadState {
        let mut messages = 0;
        let mut bytes = 0;
        loop {
            match self.decode(&mut messages, &mut heard) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => return ReadState::More,
            }
            if self.outbox.len() > MAX_UNSENT && !self.fenced && !self.deaf {
                return ReadState::Held;
            }
            if bytes >= BYTES_PER_TURN {
                return ReadState::More;
            }
            match channel::recv(self.fd.as_fd(), buffer) {
                Ok(0) => {
                    heard(Heard::Closed);
                    return ReadState::Closed;
                }
                Ok(count) => {
                    bytes += count;
                    self.take_in(&buffer[..count], max_frame, &mut heard);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Reading::Native(decoder) = &self.reading
                        && decoder.is_mid_frame()
                    {
                        heard(Heard::FrameBegun);
                    }
                    return ReadState::Empty;
                }
                // The other end died with something unread: end of file comes next (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(_) => {
                    heard(Heard::Closed);
                    return ReadState::Closed;
                }
            }
        }
    }

    fn take_in(&mut self, bytes: &[u8], max_frame: u32, heard: &mut impl FnMut(Heard)) {
        if let Reading::Fresh = self.reading
            && let Some(&first) = bytes.first()
        {
            let codec =
                Codec::detect(first).filter(|codec| self.wanted.is_none_or(|w| w == *codec));
            match codec {
                Some(Codec::Native) => {
                    let mut hello = Vec::new();
                    wire::encode_hello(&mut hello);
                    self.outbox.greet(&hello);
                    heard(Heard::Hello(Codec::Native));
                    self.reading = Reading::Native(Decoder::new(max_frame));
                }
                Some(_) | None => self.give_up(Violation::UnknownCodec, heard),
            }
        }
        if let Reading::Native(decoder) = &mut self.reading {
            decoder.feed(bytes);
        }
    }

    /// Decodes what is there; breaks off when the turn's messages are used up.
    fn decode(&mut self, messages: &mut u32, heard: &mut impl FnMut(Heard)) -> ControlFlow<()> {
        while let Reading::Native(decoder) = &mut self.reading {
            if *messages >= MESSAGES_PER_TURN {
                return ControlFlow::Break(());
            }
            match decoder.poll() {
                Ok(Some((msg, _))) => {
                    *messages += 1;
                    heard(Heard::Message(msg));
                }
                Ok(None) => break,
                Err(error) => self.give_up(Violation::Decode(error), heard),
            }
        }
        ControlFlow::Continue(())
    }

    fn give_up(&mut self, what: Violation, heard: &mut impl FnMut(Heard)) {
        self.reading = Reading::Discarding;
        heard(Heard::Violation(what));
    }

    /// Queues a message. A handoff that follows another one to the same worker goes with it in
    /// one message, if that one is not on its way yet.
    pub(super) fn push(&mut self, msg: ToWorker, attach: Option<Attach>) {
        if self.deaf {
            return;
        }
        if let Some(last) = self.outbox.last_mut()
            && last.merge(&msg)
        {
            self.outbox.extend_last(attach);
            return;
        }
        self.outbox.push(msg, attach);
    }

    /// Sends what can be sent now.
    pub(super) fn flush<'a>(
        &mut self,
        max_frame: u32,
        resolve: impl FnMut(&Attach) -> Option<std::os::fd::BorrowedFd<'a>>,
    ) -> Flush<ToWorker, Attach> {
        let encode = |msg: &ToWorker, bytes: &mut Vec<u8>| {
            // It can't be too long: what workers give the primary to send back is bounded.
            let _ = wire::encode(msg, max_frame, bytes);
        };
        let flush = self.outbox.flush(self.fd.as_fd(), encode, resolve, |_| {});
        if matches!(flush, Flush::Closed) {
            self.deaf = true;
            self.outbox.clear();
        }
        flush
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// From here on only what the worker wrote before is read, then end of file.
    pub(super) fn fence(&mut self) {
        self.fenced = true;
        // It fails only if the other end is closed already, which has the same effect.
        let _ = channel::fence(self.fd.as_fd());
    }
}
