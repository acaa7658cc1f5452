use alloc::vec;

use super::*;
use crate::{ConnId, ListenerId, Seq};

fn channel() -> WorkerChannel {
    WorkerChannel::new(None, &Config::builder().build().unwrap(), Host::NONE)
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode_hello(&mut bytes);
    bytes
}

fn events(channel: &mut WorkerChannel) -> Vec<ChannelEvent> {
    core::iter::from_fn(|| channel.poll()).collect()
}

fn handoff(seq: u64) -> (ToWorker, Option<Attach>) {
    let msg = ToWorker::NewConn {
        first_seq: Seq::from_raw(seq).unwrap(),
        listener: ListenerId::from_raw(1).unwrap(),
        count: 1,
    };
    (msg, Some(Attach::Conn(ConnId::from_raw(seq).unwrap())))
}

/// The channel to a native worker that has said `online`, and knows the primary.
fn online() -> WorkerChannel {
    let mut channel = channel();
    let mut bytes = hello();
    wire::encode(&FromWorker::Online, 1 << 10, &mut bytes).unwrap();
    channel.feed(&bytes, 0);
    let online = ChannelEvent::Message(FromWorker::Online);
    assert_eq!(events(&mut channel), [ChannelEvent::Hello(Codec::Native), online]);
    let greeting = channel.poll_transmit().unwrap().bytes.to_vec();
    assert_eq!(greeting, hello());
    channel.sent(greeting.len());
    assert!(!channel.has_unsent());
    channel
}

#[test]
fn handoffs_that_wait_together_go_as_one_message() {
    let mut channel = online();
    let pushed: Vec<bool> = (1..=3).map(handoff).map(|(msg, at)| channel.push(msg, at)).collect();
    assert_eq!(pushed, [false, true, true]);
    let next = channel.poll_transmit().unwrap();
    assert_eq!(next.handles.len(), 3);
    let count = next.bytes.len();
    channel.sent(count);
    assert!(channel.poll_transmit().is_none());
}

#[test]
fn unsendable_handoffs_are_reported_one_by_one() {
    let mut channel = online();
    for (msg, attach) in (1..=2).map(handoff) {
        channel.push(msg, attach);
    }
    assert!(channel.poll_transmit().is_some());
    channel.not_sent(Errno::EBADF);
    let lost: Vec<_> = core::iter::from_fn(|| channel.poll_unsent()).collect();
    let not_sent =
        |n| ChannelEvent::NotSent { seq: Seq::from_raw(n).unwrap(), errno: Errno::EBADF };
    assert_eq!(lost, [not_sent(1), not_sent(2)]);
    assert!(!channel.has_unsent());
}

#[test]
fn bytes_that_fail_mean_that_nobody_reads() {
    let mut channel = online();
    channel.push(ToWorker::Disconnect, None);
    assert!(channel.poll_transmit().is_some());
    channel.not_sent(Errno::EINVAL);
    assert!(channel.poll_transmit().is_none() && !channel.has_unsent());
    // Nothing is queued any more either, but what the worker wrote before is read.
    channel.push(ToWorker::Disconnect, None);
    assert!(channel.poll_transmit().is_none() && channel.wants_read());
}

#[test]
fn invalid_bytes_are_reported_once_and_read_to_the_end() {
    let mut channel = channel();
    channel.feed(b"\x00rest", 0);
    let unknown = ChannelEvent::Violation(Violation::UnknownCodec);
    assert_eq!(events(&mut channel), [unknown]);
    channel.feed(b"more", 0);
    channel.end();
    assert_eq!(events(&mut channel), [ChannelEvent::Closed]);
}

#[test]
fn a_frame_that_has_begun_is_told_when_nothing_more_is_there() {
    let mut channel = online();
    channel.would_block();
    assert_eq!(events(&mut channel), []);
    let mut bytes = vec![];
    wire::encode(&FromWorker::Ready, 1 << 10, &mut bytes).unwrap();
    channel.feed(&bytes[..1], 0);
    channel.would_block();
    assert_eq!(events(&mut channel), [ChannelEvent::FrameBegun]);
    channel.feed(&bytes[1..], 0);
    assert_eq!(events(&mut channel), [ChannelEvent::Message(FromWorker::Ready)]);
    channel.would_block();
    assert_eq!(events(&mut channel), []);
}

/// What waits to be sent, as far as the channel takes it.
#[cfg(feature = "node")]
fn sent(channel: &mut WorkerChannel) -> Vec<(Vec<u8>, Vec<Attach>)> {
    let mut all = Vec::new();
    while let Some(next) = channel.poll_transmit() {
        all.push((next.bytes.to_vec(), next.handles.to_vec()));
        let length = next.bytes.len();
        channel.sent(length);
    }
    all
}

#[test]
#[cfg(feature = "node")]
fn what_the_node_codec_wants_sent_is_sent_and_is_no_event() {
    let mut channel = channel();
    let line = br#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    channel.feed(&[line, &b"\n"[..]].concat(), 1);
    let json = "\"take\"".into();
    let user = ChannelEvent::User { json, handle: Some(node::HandleKind::NetSocket) };
    assert_eq!(events(&mut channel), [ChannelEvent::Hello(Codec::Node), user]);
    assert_eq!(sent(&mut channel), [(node::HANDLE_ACK.to_vec(), vec![])]);

    let listener = ListenerId::from_raw(1).unwrap();
    let attach = Attach::Listener(listener);
    channel.push(ToWorker::PassListener { listener }, Some(attach));
    let first = sent(&mut channel);
    assert_eq!(first[0].1, [attach]);
    channel.feed(node::HANDLE_NACK, 0);
    assert_eq!(events(&mut channel), []);
    assert_eq!(sent(&mut channel), first, "it goes again");

    // Nothing is sent to a worker that has hung up.
    channel.hung_up();
    channel.feed(node::HANDLE_NACK, 0);
    channel.feed(&[line, &b"\n"[..]].concat(), 1);
    assert_eq!(events(&mut channel).len(), 1);
    assert!(!channel.has_unsent());
}
