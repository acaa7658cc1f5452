//! What is to be sent on a channel: in order, as far as it goes, encoded as late as possible.

use std::collections::VecDeque;

use nix::errno::Errno;

use crate::unix::channel::End;
use crate::unix::sys::MAX_HANDLES;

/// Messages without handles that are sent together, in bytes.
const COALESCE: usize = 64 * 1024;

/// A queue of messages with the handles that ride on their first byte.
#[derive(Debug)]
pub struct Outbox<M, H> {
    queue: VecDeque<Entry<M>>,
    /// Of all entries of `queue`, in their order.
    handles: VecDeque<H>,
    /// Bytes that go before everything that has not begun to be sent.
    first: Vec<u8>,
    /// Encoded bytes that are on their way; their handles are gone.
    bytes: Vec<u8>,
    sent: usize,
    /// Messages of which the last byte is in `bytes`.
    begun: usize,
}

#[derive(Debug)]
struct Entry<M> {
    msg: M,
    handles: usize,
}

/// How a flush ended.
#[derive(Debug)]
pub enum Flush<M, H> {
    /// Nothing is left.
    Done,
    /// The channel is full: go on when it is ready to write.
    Blocked,
    /// Too many descriptors are under way, or the kernel is out of memory: go on later.
    TooManyRefs,
    /// The other end is closed.
    Closed,
    /// This message can never go. It is out of the queue, and none of its bytes went: flush again
    /// for the rest.
    Failed {
        /// The message.
        msg: M,
        /// Its handles.
        handles: Vec<H>,
        /// Why.
        errno: i32,
    },
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

    /// Puts bytes that are no message in front of everything that has not begun to be sent.
    pub fn interject(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
    }

    /// Queues a message.
    pub fn push(&mut self, msg: M, handles: impl IntoIterator<Item = H>) {
        let before = self.handles.len();
        self.handles.extend(handles);
        self.queue.push_back(Entry { msg, handles: self.handles.len() - before });
    }

    /// The last message, if it has not begun to be sent.
    pub fn last_mut(&mut self) -> Option<&mut M> {
        self.queue.back_mut().map(|entry| &mut entry.msg)
    }

    /// Adds handles to the last message, after others were merged into it.
    pub fn extend_last(&mut self, handles: impl IntoIterator<Item = H>) {
        let before = self.handles.len();
        self.handles.extend(handles);
        let more = self.handles.len() - before;
        if let Some(last) = self.queue.back_mut() {
            last.handles += more;
        }
    }

    /// Messages that are not yet entirely in the kernel; of interjected bytes, each begun 64
    /// count as one.
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
    }

    /// Sends what can be sent. `encode` appends a message's bytes (none if it can't be encoded,
    /// which fails a message with handles and leaves out one without), `resolve` lends the
    /// descriptor behind a handle, `done` is told how many messages have got into the kernel
    /// entirely.
    pub fn flush<'a, E: End>(
        &mut self,
        end: &mut E,
        mut encode: impl FnMut(&M, &mut Vec<u8>),
        mut resolve: impl FnMut(&H) -> Option<E::Lent<'a>>,
        mut done: impl FnMut(usize),
    ) -> Flush<M, H> {
        loop {
            if let Err(flush) = self.send_rest(end) {
                return flush;
            }
            done(std::mem::take(&mut self.begun));
            self.bytes.clear();
            self.sent = 0;
            if !self.first.is_empty() {
                std::mem::swap(&mut self.first, &mut self.bytes);
                continue;
            }
            let Some(first) = self.queue.front() else { return Flush::Done };
            if first.handles > 0 {
                if let Err(flush) = self.send_laden(end, &mut encode, &mut resolve) {
                    return flush;
                }
            } else {
                while self.bytes.len() < COALESCE
                    && self.queue.front().is_some_and(|entry| entry.handles == 0)
                    && let Some(entry) = self.queue.pop_front()
                {
                    encode(&entry.msg, &mut self.bytes);
                    self.begun += 1;
                }
            }
        }
    }

    /// Sends the first message with its handles; what is left of its bytes goes without.
    fn send_laden<'a, E: End>(
        &mut self,
        end: &mut E,
        encode: &mut impl FnMut(&M, &mut Vec<u8>),
        resolve: &mut impl FnMut(&H) -> Option<E::Lent<'a>>,
    ) -> Result<(), Flush<M, H>> {
        let Some(first) = self.queue.front() else { return Ok(()) };
        let count = first.handles;
        if count > MAX_HANDLES {
            return Err(self.fail(Errno::EINVAL));
        }
        let Some(filler) = self.handles.front().and_then(&mut *resolve) else {
            return Err(self.fail(Errno::EBADF));
        };
        // A place for each, so that nothing is allocated.
        let mut places: [E::Lent<'a>; MAX_HANDLES] = std::array::from_fn(|_| filler.clone());
        for (place, handle) in places.iter_mut().zip(&self.handles).skip(1).take(count - 1) {
            match resolve(handle) {
                Some(resolved) => *place = resolved,
                None => return Err(self.fail(Errno::EBADF)),
            }
        }
        encode(&first.msg, &mut self.bytes);
        if self.bytes.is_empty() {
            // Descriptors need a byte to ride on; the kernel would drop them without a word.
            return Err(self.fail(Errno::EMSGSIZE));
        }
        match end.send(&self.bytes, &places[..count]) {
            Ok(count_sent) => {
                self.sent = count_sent;
                self.queue.pop_front();
                self.handles.drain(..count);
                self.begun = 1;
                Ok(())
            }
            Err(error) => {
                let errno = Errno::from_raw(error.0);
                // Not one byte went: the message stays whole, to be encoded again.
                self.bytes.clear();
                Err(stopped_by(errno).unwrap_or_else(|| self.fail(errno)))
            }
        }
    }

    fn send_rest(&mut self, end: &mut impl End) -> Result<(), Flush<M, H>> {
        while self.sent < self.bytes.len() {
            match end.send(&self.bytes[self.sent..], &[]) {
                Ok(count) => self.sent += count,
                // Bytes alone fail for no other reason than that the channel is gone.
                Err(error) => {
                    return Err(stopped_by(Errno::from_raw(error.0)).unwrap_or(Flush::Closed));
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, errno: Errno) -> Flush<M, H> {
        match self.queue.pop_front() {
            Some(Entry { msg, handles }) => {
                let handles = self.handles.drain(..handles).collect();
                Flush::Failed { msg, handles, errno: errno as i32 }
            }
            None => Flush::Done,
        }
    }
}

/// What an error of sendmsg(2) says about the channel, if it is not about the message.
fn stopped_by<M, H>(errno: Errno) -> Option<Flush<M, H>> {
    match errno {
        Errno::EAGAIN => Some(Flush::Blocked),
        Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM => Some(Flush::TooManyRefs),
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Some(Flush::Closed),
        _ => None,
    }
}

impl<M, H> Default for Outbox<M, H> {
    fn default() -> Self {
        Outbox::new()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::unix::channel;

    /// A message of `len` bytes, all of them `byte`.
    struct Fill(u8, usize);

    fn encode(msg: &Fill, bytes: &mut Vec<u8>) {
        bytes.extend(std::iter::repeat_n(msg.0, msg.1));
    }

    fn small_pair() -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = channel::pair().unwrap();
        setsockopt(&ours, sockopt::SndBuf, &4096).unwrap();
        (ours, theirs)
    }

    /// Reads everything that is there: the bytes, and at which byte each read with handles began.
    fn drain(fd: &OwnedFd, into: &mut Vec<u8>, laden: &mut Vec<(u8, usize)>) {
        loop {
            let (mut buffer, mut handles) = ([0; 65536], Vec::new());
            match channel::recv_handles(fd.as_fd(), &mut buffer, &mut handles) {
                Ok(received) => {
                    assert!(!received.truncated);
                    if !handles.is_empty() {
                        laden.push((buffer[received.len - 1], handles.len()));
                    }
                    into.extend_from_slice(&buffer[..received.len]);
                }
                Err(_) => return,
            }
        }
    }

    #[test]
    fn order_holds_through_a_full_channel() {
        let (ours, theirs) = small_pair();
        crate::unix::channel::set_nonblocking(&theirs).unwrap();
        let (cargo, _peer) = channel::pair().unwrap();
        let mut outbox: Outbox<Fill, ()> = Outbox::new();
        let mut expected = Vec::new();
        for n in 0..60_u8 {
            let handles = usize::from(n % 3 == 0) * 2;
            outbox.push(Fill(n, 1_000), vec![(); handles]);
            encode(&Fill(n, 1_000), &mut expected);
        }
        let (mut got, mut laden, mut finished, mut blocked) = (Vec::new(), Vec::new(), 0, 0);
        loop {
            match outbox.flush(
                &mut ours.as_fd(),
                encode,
                |()| Some(cargo.as_fd()),
                |count| finished += count,
            ) {
                Flush::Done => break,
                Flush::Blocked => blocked += 1,
                _ => panic!("neither done nor blocked"),
            }
            assert!(finished + outbox.len() == 60 && blocked < 10_000);
            drain(&theirs, &mut got, &mut laden);
        }
        drain(&theirs, &mut got, &mut laden);
        assert!(blocked > 0, "the channel was never full");
        assert_eq!(got, expected);
        assert_eq!(finished, 60);
        let wanted: Vec<(u8, usize)> = (0..60).step_by(3).map(|n| (n, 2)).collect();
        assert_eq!(laden, wanted);
    }

    #[test]
    fn a_message_without_its_handle_is_given_back() {
        let (ours, theirs) = channel::pair().unwrap();
        crate::unix::channel::set_nonblocking(&theirs).unwrap();
        let mut outbox = Outbox::new();
        outbox.push(Fill(1, 10), [7]);
        outbox.push(Fill(2, 10), []);
        let flush = outbox.flush(&mut ours.as_fd(), encode, |_: &i32| None, |_| {});
        assert!(
            matches!(flush, Flush::Failed { msg: Fill(1, _), errno, .. } if errno == Errno::EBADF as i32)
        );
        assert!(matches!(outbox.flush(&mut ours.as_fd(), encode, |_| None, |_| {}), Flush::Done));
        let (mut got, mut laden) = (Vec::new(), Vec::new());
        drain(&theirs, &mut got, &mut laden);
        assert_eq!(got, [2; 10]);
    }

    #[test]
    fn a_closed_channel_is_told() {
        let (ours, theirs) = channel::pair().unwrap();
        drop(theirs);
        let mut outbox = Outbox::new();
        outbox.push(Fill(1, 10), []);
        let flush = outbox.flush(&mut ours.as_fd(), encode, |_: &i32| None, |_| {});
        assert!(matches!(flush, Flush::Closed));
    }

    #[test]
    fn a_message_that_has_no_bytes_keeps_its_handles() {
        let (ours, theirs) = channel::pair().unwrap();
        crate::unix::channel::set_nonblocking(&theirs).unwrap();
        let mut outbox = Outbox::new();
        outbox.push(Fill(1, 0), [7]);
        let flush = outbox.flush(&mut ours.as_fd(), encode, |_: &i32| Some(theirs.as_fd()), |_| {});
        let Flush::Failed { handles, errno, .. } = flush else { panic!("sent") };
        assert_eq!((handles, errno), (vec![7], Errno::EMSGSIZE as i32));
        assert!(outbox.is_empty());
    }

    #[test]
    fn as_many_handles_as_the_kernel_takes_and_no_more() {
        let (ours, theirs) = channel::pair().unwrap();
        let mut outbox = Outbox::new();
        outbox.push(Fill(1, 10), vec![(); MAX_HANDLES + 1]);
        outbox.push(Fill(2, 10), vec![(); MAX_HANDLES]);
        let resolve = |(): &()| Some(theirs.as_fd());
        let flush = outbox.flush(&mut ours.as_fd(), encode, resolve, |_| {});
        let Flush::Failed { handles, errno, .. } = flush else { panic!("sent") };
        assert_eq!((handles.len(), errno), (MAX_HANDLES + 1, Errno::EINVAL as i32));
        assert!(matches!(outbox.flush(&mut ours.as_fd(), encode, resolve, |_| {}), Flush::Done));
        let (mut buffer, mut handles) = ([0; 64], Vec::new());
        let received = channel::recv_handles(theirs.as_fd(), &mut buffer, &mut handles).unwrap();
        assert_eq!((received.len, received.truncated), (10, false));
        assert_eq!((buffer[0], handles.len()), (2, MAX_HANDLES));
    }

    #[test]
    fn a_laden_message_cut_in_two_carries_its_handles_once() {
        let (ours, theirs) = small_pair();
        crate::unix::channel::set_nonblocking(&theirs).unwrap();
        let (cargo, _peer) = channel::pair().unwrap();
        let mut outbox = Outbox::new();
        // Longer than the channel holds, so that it is cut.
        outbox.push(Fill(1, 100_000), [()]);
        outbox.push(Fill(2, 10), [()]);
        let resolve = |(): &()| Some(cargo.as_fd());
        let mut done = 0;
        assert!(matches!(
            outbox.flush(&mut ours.as_fd(), encode, resolve, |count| done += count),
            Flush::Blocked
        ));
        assert_eq!((done, outbox.len()), (0, 2), "a begun message is not done");
        // Only the second can still be merged with.
        assert_eq!(outbox.last_mut().map(|msg| msg.0), Some(2));
        let (mut got, mut laden) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            drain(&theirs, &mut got, &mut laden);
            let flush = outbox.flush(&mut ours.as_fd(), encode, resolve, |count| done += count);
            if matches!(flush, Flush::Done) {
                break;
            }
        }
        drain(&theirs, &mut got, &mut laden);
        assert_eq!((got.len(), done), (100_010, 2));
        assert_eq!(laden, [(1, 1), (2, 1)]);
    }
}
