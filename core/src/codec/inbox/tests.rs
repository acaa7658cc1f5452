use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

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

#[test]
fn handles_left_behind_do_not_pass_for_those_of_the_next_message() {
    let mut hello = Vec::new();
    encode_hello(&mut hello);
    let mut frame = Vec::new();
    encode(&new_conn(2), MAX, &mut frame).unwrap();
    let mut inbox = Inbox::new(MAX);
    inbox.feed(&hello, []);
    inbox.feed(&frame, [1, 2]);
    inbox.feed(&frame, [3]);
    assert_eq!(inbox.take_handle(), None, "no message was polled");
    assert_eq!(inbox.poll().unwrap().unwrap().handles, 2);
    assert_eq!(inbox.take_handle(), Some(1));
    assert_eq!(inbox.poll().unwrap().unwrap().handles, 1);
    assert_eq!((inbox.take_handle(), inbox.take_handle()), (Some(3), None));
}

#[test]
fn an_error_lasts_and_leaves_every_handle_to_be_closed() {
    let mut bytes = Vec::new();
    encode_hello(&mut bytes);
    encode(&ToWorker::Disconnect, MAX, &mut bytes).unwrap();
    let mut inbox = Inbox::new(MAX);
    inbox.feed(&bytes, [1]);
    assert_eq!(inbox.poll(), Err(DecodeError::UnexpectedHandles));
    let mut good = Vec::new();
    encode(&new_conn(1), MAX, &mut good).unwrap();
    inbox.feed(&good, [2]);
    assert_eq!(inbox.poll(), Err(DecodeError::UnexpectedHandles));
    let left = [inbox.take_handle(), inbox.take_handle(), inbox.take_handle()];
    assert_eq!(left, [Some(1), Some(2), None]);
}

/// A message, and how many of the handles that it announces the kernel delivered.
fn any_send() -> impl Strategy<Value = (ToWorker, u32)> {
    prop_oneof![
        Just((ToWorker::Disconnect, 0)),
        any::<u64>().prop_map(|deadline_ms| (ToWorker::Drain { deadline_ms }, 0)),
        (1..5_u32, 0..5_u32)
            .prop_map(|(count, lost)| (new_conn(count), count.saturating_sub(lost))),
    ]
}

proptest! {
    #[test]
    fn a_handle_never_goes_to_another_message(
        messages in vec(any_send(), 0..20),
        size in 1..64_usize,
    ) {
        let mut hello = Vec::new();
        encode_hello(&mut hello);
        let mut sends = alloc::vec![(hello, Vec::new())];
        let mut wanted = Vec::new();
        for (nth, (msg, count)) in messages.iter().enumerate() {
            let mut bytes = Vec::new();
            encode(msg, MAX, &mut bytes).unwrap();
            let handles: Vec<u32> = (0..*count).map(|at| nth as u32 * 10 + at).collect();
            wanted.push((msg.clone(), handles.clone()));
            sends.push((bytes, handles));
        }
        let mut inbox = Inbox::new(MAX);
        let mut got = Vec::new();
        for (bytes, handles) in reads(&sends, size) {
            inbox.feed(&bytes, handles);
            while let Some(received) = inbox.poll().unwrap() {
                let handles: Vec<u32> = core::iter::from_fn(|| inbox.take_handle()).collect();
                prop_assert_eq!(handles.len(), received.handles);
                got.push((received.msg, handles));
            }
        }
        prop_assert_eq!(got, wanted);
    }
}
