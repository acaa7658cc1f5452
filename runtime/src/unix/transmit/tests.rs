use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use roundel_core::{Errno, Outbox};

use super::*;

use crate::unix::channel;

/// A message of `len` bytes, all of them `byte`.
#[derive(Debug)]
struct Fill(u8, usize);

fn encode(msg: &Fill, bytes: &mut Vec<u8>) {
    bytes.extend(std::iter::repeat_n(msg.0, msg.1));
}

/// The result of a flush: a message that could not be sent, and why, or how far the flush came.
type Flushed = Result<Flush, (Fill, Errno)>;

/// Sends what can be sent.
fn flush<'a, H>(
    outbox: &mut Outbox<Fill, H>,
    end: &OwnedFd,
    mut resolve: impl FnMut(&H) -> Option<BorrowedFd<'a>>,
) -> Flushed {
    loop {
        if let Some(msg) = outbox.prepare(encode) {
            return Err((msg, Errno::EMSGSIZE));
        }
        let Some(next) = outbox.transmit() else { return Ok(Flush::Done) };
        match transmit(&mut end.as_fd(), &next, &mut resolve) {
            Sent::Bytes(count) => outbox.sent(count),
            Sent::Blocked => return Ok(Flush::Blocked),
            Sent::TooManyRefs => return Ok(Flush::TooManyRefs),
            Sent::Closed => return Ok(Flush::Closed),
            Sent::Never(errno) => return Err((outbox.take_unsendable().unwrap(), errno)),
        }
    }
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
        let flush = flush(&mut outbox, &ours, |()| Some(cargo.as_fd()));
        finished += outbox.take_finished();
        match flush.unwrap() {
            Flush::Done => break,
            Flush::Blocked => blocked += 1,
            other => panic!("{other:?}"),
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
    let flushed = flush(&mut outbox, &ours, |_: &i32| None);
    assert!(matches!(flushed, Err((Fill(1, _), Errno::EBADF))), "{flushed:?}");
    assert_eq!(flush(&mut outbox, &ours, |_| None).unwrap(), Flush::Done);
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
    assert_eq!(flush(&mut outbox, &ours, |_: &i32| None).unwrap(), Flush::Closed);
}

#[test]
fn a_message_that_has_no_bytes_is_given_back() {
    let (ours, theirs) = channel::pair().unwrap();
    crate::unix::channel::set_nonblocking(&theirs).unwrap();
    let mut outbox = Outbox::new();
    outbox.push(Fill(1, 0), [7]);
    let flushed = flush(&mut outbox, &ours, |_: &i32| Some(theirs.as_fd()));
    assert!(matches!(flushed, Err((Fill(1, 0), Errno::EMSGSIZE))), "{flushed:?}");
    assert!(outbox.is_empty());
}

#[test]
fn as_many_handles_as_the_kernel_takes_and_no_more() {
    let (ours, theirs) = channel::pair().unwrap();
    let mut outbox = Outbox::new();
    outbox.push(Fill(1, 10), vec![(); MAX_HANDLES + 1]);
    outbox.push(Fill(2, 10), vec![(); MAX_HANDLES]);
    let resolve = |(): &()| Some(theirs.as_fd());
    let flushed = flush(&mut outbox, &ours, resolve);
    assert!(matches!(flushed, Err((Fill(1, 10), Errno::EINVAL))), "{flushed:?}");
    assert_eq!(flush(&mut outbox, &ours, resolve).unwrap(), Flush::Done);
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
    assert_eq!(flush(&mut outbox, &ours, resolve).unwrap(), Flush::Blocked);
    assert_eq!((outbox.take_finished(), outbox.len()), (0, 2), "a begun message is not done");
    let (mut got, mut laden) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        drain(&theirs, &mut got, &mut laden);
        if flush(&mut outbox, &ours, resolve).unwrap() == Flush::Done {
            break;
        }
    }
    drain(&theirs, &mut got, &mut laden);
    assert_eq!((got.len(), outbox.take_finished()), (100_010, 2));
    assert_eq!(laden, [(1, 1), (2, 1)]);
}
