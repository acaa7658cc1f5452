//! What is to be sent: in order, as far as it goes, encoded as late as possible, as the runtime
//! does it (`runtime/src/outbox.rs`), but into a pipe.

use std::collections::VecDeque;

use super::pipe::{Pipe, Unwritten};
use super::socket::Handle;

/// A queue of messages with the handles that ride on their first byte.
#[derive(Debug)]
pub struct Outbox<M, H> {
    queue: VecDeque<(M, usize)>,
    handles: VecDeque<H>,
    /// Bytes that go before everything that has not begun to be sent.
    first: Vec<u8>,
    bytes: Vec<u8>,
    sent: usize,
    /// Messages of which the last byte is in `bytes`.
    begun: usize,
}

/// How a flush ended.
#[derive(Debug)]
pub enum Flush<M> {
    /// Nothing is left.
    Done,
    /// The pipe is full.
    Blocked,
    /// Too many descriptors are under way.
    TooManyRefs,
    /// Nobody reads it.
    Closed,
    /// This message can never go.
    Failed(M),
}

/// What befalls the next send with handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// ETOOMANYREFS.
    TooManyRefs,
    /// An error that is about the message.
    Fails,
}

impl<M, H> Outbox<M, H> {
    /// An empty outbox.
    pub const fn new() -> Self {
        Outbox {
            queue: VecDeque::new(),
            handles: VecDeque::new(),
            first: Vec::new(),
            bytes: Vec::new(),
            sent: 0,
            begun: 0,
        }
    }

    /// Puts bytes in front of everything that has not begun to be sent.
    pub fn interject(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
    }

    /// Queues a message.
    pub fn push(&mut self, msg: M, handle: Option<H>) {
        self.queue.push_back((msg, usize::from(handle.is_some())));
        self.handles.extend(handle);
    }

    /// The last message, if it has not begun to be sent.
    pub fn last_mut(&mut self) -> Option<&mut M> {
        self.queue.back_mut().map(|(msg, _)| msg)
    }

    /// Adds a handle to the last message.
    pub fn extend_last(&mut self, handle: Option<H>) {
        if let Some((_, count)) = self.queue.back_mut() {
            *count += usize::from(handle.is_some());
            self.handles.extend(handle);
        }
    }

    /// Messages that are not yet entirely under way.
    pub fn len(&self) -> usize {
        self.queue.len() + self.begun + self.first.len().div_ceil(64)
    }

    /// Whether everything is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.sent == self.bytes.len()
    }

    /// Whether a message, or bytes, is half sent.
    pub fn is_cut(&self) -> bool {
        self.sent > 0 && self.sent < self.bytes.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Outbox::new();
    }

    /// Sends what can be sent; `done` is told how many messages went entirely.
    pub fn flush(
        &mut self,
        pipe: &mut Pipe<Handle>,
        trouble: &mut Option<Trouble>,
        mut encode: impl FnMut(&M, &mut Vec<u8>),
        mut resolve: impl FnMut(&H) -> Option<Handle>,
        mut done: impl FnMut(usize),
    ) -> Flush<M> {
        loop {
            while self.sent < self.bytes.len() {
                match pipe.write(&self.bytes[self.sent..], []) {
                    Ok(count) => self.sent += count,
                    Err(why) => return stopped_by(why),
                }
            }
            done(std::mem::take(&mut self.begun));
            self.bytes.clear();
            self.sent = 0;
            if !self.first.is_empty() {
                std::mem::swap(&mut self.first, &mut self.bytes);
                continue;
            }
            match self.queue.front() {
                None => return Flush::Done,
                Some((_, 0)) => {
                    while let Some((msg, 0)) = self.queue.front() {
                        encode(msg, &mut self.bytes);
                        self.queue.pop_front();
                        self.begun += 1;
                    }
                }
                Some((msg, count)) => {
                    match trouble.take() {
                        None => {}
                        Some(Trouble::TooManyRefs) => return Flush::TooManyRefs,
                        Some(Trouble::Fails) => return self.fail(),
                    }
                    let count = *count;
                    let handles: Option<Vec<Handle>> =
                        self.handles.iter().take(count).map(&mut resolve).collect();
                    let Some(handles) = handles else { return self.fail() };
                    encode(msg, &mut self.bytes);
                    if self.bytes.is_empty() {
                        return self.fail();
                    }
                    match pipe.write(&self.bytes, handles) {
                        Ok(sent) => {
                            self.sent = sent;
                            self.queue.pop_front();
                            self.handles.drain(..count);
                            self.begun = 1;
                        }
                        Err(why) => {
                            self.bytes.clear();
                            return stopped_by(why);
                        }
                    }
                }
            }
        }
    }

    fn fail(&mut self) -> Flush<M> {
        self.bytes.clear();
        match self.queue.pop_front() {
            Some((msg, count)) => {
                self.handles.drain(..count);
                Flush::Failed(msg)
            }
            None => Flush::Done,
        }
    }
}

fn stopped_by<M>(why: Unwritten) -> Flush<M> {
    match why {
        Unwritten::Full => Flush::Blocked,
        Unwritten::Broken => Flush::Closed,
    }
}

impl<M, H> Default for Outbox<M, H> {
    fn default() -> Self {
        Outbox::new()
    }
}
