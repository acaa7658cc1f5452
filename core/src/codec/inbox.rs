//! Messages with the handles that came along.

use alloc::collections::VecDeque;
use core::ops::Range;

use crate::ToWorker;
use crate::wire::{DecodeError, Decoder};

/// A decoder that knows which handle belongs to which message.
///
/// A send with handles carries bytes of one message alone, from its first byte on; and one read
/// never goes past the end of such a send, though bytes before it may come in the same read
/// (unix(7)). So the handles of a read belong to the message that its last byte is part of, which
/// must begin in that read. Handles that the kernel could not deliver are missing at the end of a
/// message's handles, never in the middle.
#[derive(Clone, Debug)]
pub struct Inbox<T> {
    decoder: Decoder<ToWorker>,
    /// Bytes fed so far.
    end: u64,
    /// Reads that brought handles, in order.
    laden: VecDeque<Laden>,
    /// The handles of all of them, in order.
    handles: VecDeque<T>,
    /// How many of them belong to the message that was polled last.
    due: usize,
    error: Option<DecodeError>,
}

#[derive(Clone, Debug)]
struct Laden {
    read: Range<u64>,
    count: usize,
}

/// A message, and how many handles came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The message.
    pub msg: ToWorker,
    /// How many handles to take with [`Inbox::take_handle`] before the next poll.
    pub handles: usize,
}

impl<T> Inbox<T> {
    /// An inbox at the start of a stream.
    pub const fn new(max_frame: u32) -> Self {
        Inbox {
            decoder: Decoder::new(max_frame),
            end: 0,
            laden: VecDeque::new(),
            handles: VecDeque::new(),
            due: 0,
            error: None,
        }
    }

    /// Takes in what one read brought.
    pub fn feed(&mut self, bytes: &[u8], handles: impl IntoIterator<Item = T>) {
        let start = self.end;
        self.end += bytes.len() as u64;
        self.decoder.feed(bytes);
        let before = self.handles.len();
        self.handles.extend(handles);
        let count = self.handles.len() - before;
        if count > 0 {
            self.laden.push_back(Laden { read: start..self.end, count });
        }
    }

    /// The next message. Handles of the previous message that were not taken are dropped, so that
    /// they can't be mistaken for this one's.
    ///
    /// # Errors
    /// [`DecodeError`], which every later call returns again; the handles that are left can still
    /// be taken, to close them.
    pub fn poll(&mut self) -> Result<Option<Received>, DecodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.handles.drain(..self.due.min(self.handles.len()));
        self.due = 0;
        self.step().inspect_err(|error| self.error = Some(*error))
    }

    /// The next handle of the message that was polled last; or, after an error, any that is left.
    pub fn take_handle(&mut self) -> Option<T> {
        if self.error.is_none() {
            self.due = self.due.checked_sub(1)?;
        }
        self.handles.pop_front()
    }

    fn step(&mut self) -> Result<Option<Received>, DecodeError> {
        let Some((msg, frame)) = self.decoder.poll()? else { return Ok(None) };
        let mut handles = 0;
        while let Some(first) = self.laden.front()
            && first.read.end <= frame.end
        {
            let begins_there = frame.start >= first.read.start && frame.start < first.read.end;
            if !begins_there {
                return Err(DecodeError::UnexpectedHandles);
            }
            handles = first.count;
            self.laden.pop_front();
        }
        if handles > msg.handles() as usize {
            return Err(DecodeError::UnexpectedHandles);
        }
        self.due = handles;
        Ok(Some(Received { msg, handles }))
    }
}

#[cfg(test)]
mod tests;
