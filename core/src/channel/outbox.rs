//! Messages that go out on a channel: in order, as far as the channel takes them, encoded as late
//! as possible.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// How much of messages without handles is sent together, in bytes.
const COALESCE: usize = 64 * 1024;

/// A queue of messages with the handles that ride on their first byte.
///
/// [`push`](Outbox::push) messages, [`prepare`](Outbox::prepare) and send what
/// [`transmit`](Outbox::transmit) gives, and report the result: [`sent`](Outbox::sent), or
/// [`take_unsendable`](Outbox::take_unsendable).
#[derive(Clone, Debug)]
pub struct Outbox<M, H> {
    queue: VecDeque<Entry<M>>,
    /// The handles of all entries of `queue`, in their order.
    handles: VecDeque<H>,
    /// Bytes that go before everything that has not begun to be sent.
    first: Vec<u8>,
    /// Encoded bytes that are on their way.
    bytes: Vec<u8>,
    sent: usize,
    /// Messages whose last byte is in `bytes`.
    begun: usize,
    /// Messages that are in the kernel and were not taken by `take_finished` yet.
    finished: usize,
    /// `bytes` is the first message of `queue`, whose handles go with its first byte.
    laden: bool,
}

#[derive(Clone, Debug)]
struct Entry<M> {
    msg: M,
    handles: usize,
}

/// What to send next, in one sendmsg(2).
#[derive(Debug, PartialEq, Eq)]
pub struct Transmit<'a, H> {
    /// The bytes, at least one.
    pub bytes: &'a [u8],
    /// The handles that ride on the first of them.
    pub handles: &'a [H],
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
            finished: 0,
            laden: false,
        }
    }

    /// Puts bytes that are not a message in front of everything that has not begun to be sent.
    pub fn interject(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
    }

    /// Queues a message.
    pub fn push(&mut self, msg: M, handles: impl IntoIterator<Item = H>) {
        let before = self.handles.len();
        self.handles.extend(handles);
        self.queue.push_back(Entry { msg, handles: self.handles.len() - before });
    }

    /// Lets `merge` extend the last message, and adds these handles to it, if it has not begun to
    /// be sent. `merge` returns whether it did.
    pub fn merge(
        &mut self,
        merge: impl FnOnce(&mut M) -> bool,
        handles: impl IntoIterator<Item = H>,
    ) -> bool {
        self.take_back();
        let Some(last) = self.queue.back_mut() else { return false };
        if !merge(&mut last.msg) {
            return false;
        }
        let before = self.handles.len();
        self.handles.extend(handles);
        last.handles += self.handles.len() - before;
        true
    }

    /// How many messages are not yet entirely in the kernel. Of interjected bytes, every 64 or part
    /// of them count as one message.
    pub fn len(&self) -> usize {
        self.queue.len() + self.begun + self.first.len().div_ceil(64)
    }

    /// The messages that have not begun to be sent.
    pub fn waiting(&self) -> impl Iterator<Item = &M> {
        self.queue.iter().map(|entry| &entry.msg)
    }

    /// Whether everything is in the kernel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.sent == self.bytes.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.handles.clear();
        self.first.clear();
        self.bytes.clear();
        self.sent = 0;
        self.begun = 0;
        self.laden = false;
    }

    /// Encodes what goes next, if nothing is on its way. `encode` appends a message's bytes, or
    /// none if it can't be encoded: a message without handles is then left out, and one with
    /// handles is returned, since descriptors need a byte to ride on. Call this until it returns
    /// nothing.
    ///
    /// A message whose handles have not been sent is encoded again each time: others may have been
    /// merged into it, and bytes put in front of it.
    pub fn prepare(&mut self, mut encode: impl FnMut(&M, &mut Vec<u8>)) -> Option<M> {
        self.take_back();
        while self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            self.finished += core::mem::take(&mut self.begun);
            if !self.first.is_empty() {
                core::mem::swap(&mut self.first, &mut self.bytes);
                break;
            }
            let first = self.queue.front()?;
            if first.handles > 0 {
                encode(&first.msg, &mut self.bytes);
                self.laden = true;
                return if self.bytes.is_empty() { self.take_unsendable() } else { None };
            }
            while self.bytes.len() < COALESCE
                && self.queue.front().is_some_and(|entry| entry.handles == 0)
                && let Some(entry) = self.queue.pop_front()
            {
                encode(&entry.msg, &mut self.bytes);
                self.begun += 1;
            }
        }
        None
    }

    /// What to send next, in one sendmsg(2), as [`prepare`](Outbox::prepare) left it; `None` if
    /// everything is in the kernel. Report the result before anything else: call
    /// [`sent`](Outbox::sent), [`take_unsendable`](Outbox::take_unsendable), or nothing if the
    /// channel is full.
    pub fn transmit(&mut self) -> Option<Transmit<'_, H>> {
        let bytes = self.bytes.get(self.sent..).filter(|bytes| !bytes.is_empty())?;
        let count = self.queue.front().filter(|_| self.laden).map_or(0, |entry| entry.handles);
        let handles = self.handles.make_contiguous().get(..count)?;
        Some(Transmit { bytes, handles })
    }

    /// Notes that `count` bytes of what [`transmit`](Outbox::transmit) gave were sent, with its
    /// handles.
    pub fn sent(&mut self, count: usize) {
        if count > 0
            && core::mem::take(&mut self.laden)
            && let Some(entry) = self.queue.pop_front()
        {
            self.handles.drain(..entry.handles);
            self.begun = 1;
        }
        self.sent = (self.sent + count).min(self.bytes.len());
        if self.sent == self.bytes.len() {
            self.finished += core::mem::take(&mut self.begun);
        }
    }

    /// How many messages got into the kernel entirely since the last call.
    pub fn take_finished(&mut self) -> usize {
        core::mem::take(&mut self.finished)
    }

    /// Takes out the message with handles that [`transmit`](Outbox::transmit) gave, if none of its
    /// bytes was sent and none ever can be. `None` if it has no handles: bytes alone fail only if
    /// the channel is gone.
    pub fn take_unsendable(&mut self) -> Option<M> {
        if !self.take_back() {
            return None;
        }
        let entry = self.queue.pop_front()?;
        self.handles.drain(..entry.handles);
        Some(entry.msg)
    }

    /// Forgets the bytes of a message whose handles have not been sent. False if there is none.
    fn take_back(&mut self) -> bool {
        let laden = core::mem::take(&mut self.laden);
        if laden {
            self.bytes.clear();
        }
        laden
    }
}

impl<M, H> Default for Outbox<M, H> {
    fn default() -> Self {
        Outbox::new()
    }
}

#[cfg(test)]
mod tests;
