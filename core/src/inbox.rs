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
/// must begin in that read. What the kernel could not deliver is missing at the end of a
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
    /// How many of them are those of the message that was polled last.
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
pub struct Received {
    /// The message.
    pub msg: ToWorker,
    /// How many handles are to be taken with [`Inbox::take_handle`] before the next poll.
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

    /// The next message. Handles of the one before that were not taken are dropped: they must not
    /// pass for those of this one.
    ///
    /// # Errors
    /// [`DecodeError`], for good; the handles that are left can still be taken, to be closed.
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
            if !begins_there || handles > 0 {
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
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::{encode, encode_hello};
    use crate::{ListenerId, Seq};

    const MAX: u32 = 1 << 16;

    fn new_conn(count: u32) -> ToWorker {
        let first_seq = Seq::from_raw(1).unwrap();
        ToWorker::NewConn { first_seq, listener: ListenerId::from_raw(1).unwrap(), count }
    }

    /// A send: its bytes, and the handles on its first byte.
    type Sent = (Vec<u8>, Vec<u32>);

    fn sends() -> Vec<Sent> {
        let mut hello = Vec::new();
        encode_hello(&mut hello);
        let ping = ToWorker::Ping { seq: Seq::from_raw(1).unwrap() };
        encode(&ping, MAX, &mut hello).unwrap();
        let mut sends = alloc::vec![(hello, Vec::new())];
        for (msg, handles) in [
            (new_conn(1), alloc::vec![10]),
            (new_conn(2), alloc::vec![20, 21]),
            (ping, Vec::new()),
            // The kernel lost one.
            (new_conn(3), alloc::vec![30, 31]),
            (new_conn(1), alloc::vec![]),
            (new_conn(1), alloc::vec![50]),
        ] {
            let mut bytes = Vec::new();
            encode(&msg, MAX, &mut bytes).unwrap();
            sends.push((bytes, handles));
        }
        sends
    }

    /// Reads of at most `size` bytes, as the kernel makes them of these sends: several plain ones
    /// may come together, and the first byte of one with handles may follow them, but nothing
    /// comes after its last byte.
    fn reads(sends: &[Sent], size: usize) -> Vec<Sent> {
        let mut reads: Vec<Sent> = alloc::vec![(Vec::new(), Vec::new())];
        for (bytes, handles) in sends {
            for (at, &byte) in bytes.iter().enumerate() {
                let (read, with) = reads.last().unwrap();
                let laden = !handles.is_empty() && at == 0;
                if read.len() >= size || (laden && !with.is_empty()) {
                    reads.push((Vec::new(), Vec::new()));
                }
                let (read, with) = reads.last_mut().unwrap();
                read.push(byte);
                if laden {
                    with.extend(handles);
                }
            }
            if reads.last().is_some_and(|(_, with)| !with.is_empty()) {
                reads.push((Vec::new(), Vec::new()));
            }
        }
        reads.retain(|(bytes, _)| !bytes.is_empty());
        reads
    }

    #[test]
    fn handles_go_to_their_message_however_it_is_cut() {
        let sends = sends();
        for size in 1..200 {
            let mut inbox = Inbox::new(MAX);
            let mut got = Vec::new();
            for (bytes, handles) in reads(&sends, size) {
                inbox.feed(&bytes, handles);
                while let Some(received) = inbox.poll().unwrap() {
                    let taken = (0..received.handles).map(|_| inbox.take_handle().unwrap());
                    got.push((received.msg.handles(), taken.collect::<Vec<u32>>()));
                }
            }
            assert!(inbox.handles.is_empty());
            let wanted: Vec<(u32, Vec<u32>)> = alloc::vec![
                (0, alloc::vec![]),
                (1, alloc::vec![10]),
                (2, alloc::vec![20, 21]),
                (0, alloc::vec![]),
                (3, alloc::vec![30, 31]),
                (1, alloc::vec![]),
                (1, alloc::vec![50]),
            ];
            assert_eq!(got, wanted, "reads of {size}");
        }
    }

    #[test]
    fn handles_that_nobody_announced_are_an_error_and_can_be_closed() {
        let mut bytes = Vec::new();
        encode_hello(&mut bytes);
        encode(&ToWorker::Disconnect, MAX, &mut bytes).unwrap();
        let mut inbox = Inbox::new(MAX);
        inbox.feed(&bytes, [1, 2]);
        assert_eq!(inbox.poll(), Err(DecodeError::UnexpectedHandles));
        assert_eq!((inbox.take_handle(), inbox.take_handle()), (Some(1), Some(2)));
        // In the middle of a message.
        let mut bytes = Vec::new();
        encode_hello(&mut bytes);
        encode(&new_conn(1), MAX, &mut bytes).unwrap();
        let (first, rest) = bytes.split_at(bytes.len() - 2);
        let mut inbox = Inbox::new(MAX);
        inbox.feed(first, []);
        assert_eq!(inbox.poll(), Ok(None));
        inbox.feed(rest, [1]);
        assert_eq!(inbox.poll(), Err(DecodeError::UnexpectedHandles));
    }
}
