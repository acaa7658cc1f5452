//! A worker's end of the channel to its primary.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::convert::Infallible;

use super::outbox::{Outbox, Transmit};
use crate::node::{self, WorkerEvent, WorkerSide};
use crate::{Codec, ConnRange, Custody, DecodeError, FromWorker, Inbox, ToWorker, wire};

/// A worker's end of the channel to its primary, whichever codec the primary speaks. `T` stands for
/// a handle that the primary sent.
///
/// Coming in: [`feed`](PrimaryChannel::feed) it what one recvmsg(2) brought, then
/// [`poll`](PrimaryChannel::poll) messages until there are none, each of which is a
/// [`WorkerInput::Message`](crate::WorkerInput::Message).
///
/// Going out: [`push`](PrimaryChannel::push) the message of each
/// [`WorkerOutput::Send`](crate::WorkerOutput::Send), send what
/// [`poll_transmit`](PrimaryChannel::poll_transmit) gives and call [`sent`](PrimaryChannel::sent);
/// then tell the [`Worker`](crate::Worker) [`Sent`](crate::WorkerInput::Sent) for each message that
/// [is in the kernel](PrimaryChannel::take_finished).
#[derive(Debug)]
pub struct PrimaryChannel<T> {
    speech: Speech<T>,
    outbox: Outbox<FromWorker, Infallible>,
}

/// What the primary speaks.
#[derive(Debug)]
enum Speech<T> {
    Native(Inbox<T>),
    Node(Box<WorkerSide<T>>),
}

impl<T> PrimaryChannel<T> {
    /// A channel at its start. `max_frame` and `max_line` are the longest frame and line, in bytes.
    /// `None` for a primary of Node if the feature `node` is off.
    pub fn new(codec: Codec, max_frame: u32, max_line: u32) -> Option<Self> {
        let mut outbox = Outbox::new();
        let speech = match codec {
            Codec::Node => Speech::Node(Box::new(node::worker_side(max_line)?)),
            Codec::Native => {
                let mut hello = Vec::new();
                wire::encode_hello(&mut hello);
                outbox.interject(&hello);
                Speech::Native(Inbox::new(max_frame))
            }
        };
        Some(PrimaryChannel { speech, outbox })
    }

    /// Whether it is Node's primary.
    pub const fn is_node(&self) -> bool {
        matches!(self.speech, Speech::Node(_))
    }

    /// Takes in what one read brought. Poll until nothing comes before feeding more.
    ///
    /// # Errors
    /// [`DecodeError::TooManyHandles`] if a primary of Node sent two handles at once: the second
    /// would belong to no message.
    pub fn feed(&mut self, bytes: &[u8], mut handles: Vec<T>) -> Result<(), DecodeError> {
        match &mut self.speech {
            Speech::Native(inbox) => inbox.feed(bytes, handles),
            Speech::Node(_) if handles.len() > 1 => return Err(DecodeError::TooManyHandles),
            Speech::Node(side) => side.feed(bytes, handles.pop()),
        }
        Ok(())
    }

    /// The next message; the handles that came with it go into custody.
    ///
    /// # Errors
    /// [`DecodeError`], which every later call returns again.
    pub fn poll(
        &mut self,
        custody: &mut Custody<T>,
    ) -> Result<Option<(ToWorker, ConnRange)>, DecodeError> {
        match &mut self.speech {
            Speech::Native(inbox) => Ok(inbox.poll()?.map(|received| {
                let handles = (0..received.handles).map_while(|_| inbox.take_handle());
                (received.msg, custody.admit_all(handles))
            })),
            Speech::Node(side) => loop {
                match side.poll()? {
                    Some(WorkerEvent::Message { msg, handle }) => {
                        return Ok(Some((msg, custody.admit_all(handle))));
                    }
                    Some(WorkerEvent::Answer(bytes)) => self.outbox.interject(&bytes),
                    // Nothing here uses what the primary's program says.
                    Some(
                        WorkerEvent::User { .. }
                        | WorkerEvent::Skipped { .. }
                        | WorkerEvent::UserNotArrived,
                    ) => {}
                    None => return Ok(None),
                }
            },
        }
    }

    /// Queues a message.
    pub fn push(&mut self, msg: FromWorker) {
        self.outbox.push(msg, []);
    }

    /// What to send next; `None` if nothing waits. Then call [`sent`](PrimaryChannel::sent), or
    /// nothing if the channel is full: this gives the same again. Any other error of sendmsg(2)
    /// means that the primary is gone.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        let speech = &mut self.speech;
        let encode = |msg: &FromWorker, bytes: &mut Vec<u8>| match speech {
            Speech::Native(_) => {
                // Only a query's data could be too long, and the primary checks that.
                let _ = wire::encode(msg, u32::MAX, bytes);
            }
            Speech::Node(side) => side.encode(msg, bytes),
        };
        // No message has handles, so none is given back.
        let _ = self.outbox.prepare(encode);
        self.outbox.transmit().map(|Transmit { bytes, .. }| bytes)
    }

    /// Notes that `count` bytes of it were sent.
    pub fn sent(&mut self, count: usize) {
        self.outbox.sent(count);
    }

    /// How many messages got into the kernel entirely since the last call.
    pub fn take_finished(&mut self) -> usize {
        self.outbox.take_finished()
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}
