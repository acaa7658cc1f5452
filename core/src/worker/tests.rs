mod check;
mod walk;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::conns::{MAX_BATCH, MAX_UNTAKEN};
use super::{Worker, WorkerInput as In, WorkerOutput as Out};
use crate::{
    Address, ConnId, ConnRange, Custody, Errno, FromWorker, Granted, ListenKey, ListenerId, Seq,
    SockName, Time, ToWorker,
};

fn key() -> Box<ListenKey> {
    Box::new(ListenKey::stream(Address::Any { port: 80 }))
}

fn listener(n: u64) -> ListenerId {
    ListenerId::from_raw(n).unwrap()
}

fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

fn conn(n: u64) -> ConnId {
    ConnId::from_raw(n).unwrap()
}

fn granted(n: u64, shared: bool) -> ToWorker {
    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
    let granted = Granted { listener: listener(n), sockname, shared, data: vec![] };
    ToWorker::QueryReply { ack: seq(n), result: Ok(Box::new(granted)) }
}

fn new_conn(first: u64, at: u64, count: u32) -> ToWorker {
    ToWorker::NewConn { first_seq: seq(first), listener: listener(at), count }
}

fn say(worker: &mut Worker, input: In) {
    worker.handle_input(Time::ZERO, input).unwrap();
    worker.check().unwrap();
}

fn tell(worker: &mut Worker, msg: ToWorker, handles: ConnRange) {
    say(worker, In::Message { msg, handles });
}

fn outputs(worker: &mut Worker) -> Vec<Out> {
    core::iter::from_fn(|| worker.poll_output()).collect()
}

/// Polls everything, and confirms every message as sent.
fn settle(worker: &mut Worker) -> Vec<Out> {
    let mut all = Vec::new();
    while let Some(output) = worker.poll_output() {
        if matches!(output, Out::Send(_)) {
            say(worker, In::Sent);
        }
        all.push(output);
    }
    all
}

fn ack(n: u64, accepted: bool) -> Out {
    Out::Send(FromWorker::Ack { ack: seq(n), accepted })
}

/// A worker that listens at l1 and has sent all that it has to send.
fn serving() -> Worker {
    let mut worker = Worker::new();
    say(&mut worker, In::Listen { ask: 7, key: key(), backlog: 0, data: vec![] });
    tell(&mut worker, granted(1, false), ConnRange::EMPTY);
    settle(&mut worker);
    worker
}

#[test]
fn the_first_words() {
    let mut worker = Worker::new();
    say(&mut worker, In::Listen { ask: 7, key: key(), backlog: 9, data: vec![1] });
    let query = FromWorker::Query { seq: seq(1), key: key(), backlog: 9, data: vec![1] };
    assert_eq!(settle(&mut worker), [Out::Send(FromWorker::Online), Out::Send(query)]);
    tell(&mut worker, granted(1, false), ConnRange::EMPTY);
    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
    let id = listener(1);
    let grant = Out::Granted { ask: 7, listener: id, sockname, handle: None, data: vec![] };
    let listening = Out::Send(FromWorker::Listening { listener: id });
    assert_eq!(settle(&mut worker), [grant, listening]);
}

#[test]
fn delivery_waits_for_the_acknowledgement_to_be_sent() {
    let mut worker = serving();
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 1, 2), custody.admit_all([(), ()]));
    assert_eq!(outputs(&mut worker), []);
    say(&mut worker, In::Take { listener: None });
    say(&mut worker, In::Take { listener: None });
    assert_eq!(outputs(&mut worker), [ack(1, true), ack(2, true)]);
    say(&mut worker, In::Sent);
    let id = listener(1);
    assert_eq!(outputs(&mut worker), [Out::Deliver { conn: conn(1), listener: id }]);
    say(&mut worker, In::ChannelClosed);
    assert_eq!(outputs(&mut worker), [Out::Discard { conn: conn(2) }, Out::PrimaryGone]);
}

#[test]
fn a_take_with_nothing_there_is_not_remembered() {
    let mut worker = serving();
    say(&mut worker, In::Take { listener: None });
    tell(&mut worker, new_conn(1, 1, 1), Custody::new().admit_all([()]));
    assert_eq!(settle(&mut worker), []);
    assert_eq!((worker.untaken(), worker.untaken_at(listener(1))), (1, 1));
}

#[test]
fn missing_handles_are_declined_and_extra_ones_discarded() {
    let mut worker = serving();
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 1, 3), custody.admit_all([()]));
    assert_eq!(settle(&mut worker), [ack(2, false), ack(3, false)]);
    tell(&mut worker, new_conn(4, 1, 1), custody.admit_all([(), ()]));
    assert_eq!(settle(&mut worker), [Out::Discard { conn: conn(3) }]);
    assert_eq!(worker.untaken(), 2);
    // A count that no message can carry makes no more work than one that can.
    tell(&mut worker, new_conn(5, 1, u32::MAX), ConnRange::EMPTY);
    assert_eq!((settle(&mut worker).len(), worker.strays()), (253, 1));
}

#[test]
fn the_oldest_of_all_listeners_comes_first() {
    let mut worker = serving();
    say(&mut worker, In::Listen { ask: 8, key: key(), backlog: 0, data: vec![] });
    let asked = settle(&mut worker);
    let second =
        |output: &Out| matches!(output, Out::Send(FromWorker::Query { key, .. }) if key.index == 1);
    assert!(asked.iter().any(second), "a second server on the address");
    tell(&mut worker, granted(2, false), ConnRange::EMPTY);
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 2, 1), custody.admit_all([()]));
    tell(&mut worker, new_conn(2, 1, 1), custody.admit_all([()]));
    tell(&mut worker, new_conn(3, 2, 1), custody.admit_all([()]));
    settle(&mut worker);
    for (wanted, expected) in [(None, 1), (Some(listener(2)), 3), (None, 2)] {
        say(&mut worker, In::Take { listener: wanted });
        assert!(settle(&mut worker).contains(&ack(expected, true)));
    }
    say(&mut worker, In::CloseListener { listener: listener(1) });
    say(&mut worker, In::Listen { ask: 9, key: key(), backlog: 0, data: vec![] });
    let again = FromWorker::Query { seq: seq(3), key: key(), backlog: 0, data: vec![] };
    assert_eq!(settle(&mut worker).last(), Some(&Out::Send(again)), "index 0 is free again");
}

#[test]
fn a_worker_that_leaves_by_itself_declines_its_connections() {
    for (input, is_suicide) in [(In::RequestReplacement, true), (In::Leave, false)] {
        let mut worker = serving();
        let mut custody = Custody::new();
        tell(&mut worker, new_conn(1, 1, 1), custody.admit_all([()]));
        say(&mut worker, input.clone());
        say(&mut worker, input);
        let said = seq(2);
        let leave_notice = if is_suicide {
            FromWorker::Suicide { seq: said }
        } else {
            FromWorker::ExitedAfterDisconnect { seq: said }
        };
        let declined = [ack(1, false), Out::Discard { conn: conn(1) }];
        assert_eq!(settle(&mut worker), [&[Out::Send(leave_notice)], &declined[..]].concat());
        tell(&mut worker, new_conn(2, 1, 1), custody.admit_all([()]));
        assert_eq!(settle(&mut worker), [ack(2, false), Out::Discard { conn: conn(2) }]);
        tell(&mut worker, ToWorker::Ack { ack: said }, ConnRange::EMPTY);
        tell(&mut worker, ToWorker::Ack { ack: said }, ConnRange::EMPTY);
        let end = if is_suicide { Out::SuicideAcked } else { Out::CloseChannel };
        assert_eq!((settle(&mut worker), worker.strays()), (vec![end], 1));
    }
}

#[test]
fn a_drained_worker_takes_what_arrived_and_nothing_new() {
    let mut worker = serving();
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 1, 1), custody.admit_all([()]));
    let now = Time::from_millis(5);
    let msg = ToWorker::Drain { deadline_ms: 10 };
    worker.handle_input(now, In::Message { msg, handles: ConnRange::EMPTY }).unwrap();
    tell(&mut worker, new_conn(2, 1, 1), custody.admit_all([()]));
    say(&mut worker, In::Take { listener: None });
    say(&mut worker, In::Listen { ask: 1, key: key(), backlog: 0, data: vec![] });
    let deadline = Some(Time::from_millis(15));
    let expected = [
        Out::Draining { deadline },
        ack(2, false),
        Out::Discard { conn: conn(2) },
        ack(1, true),
        Out::Refused { ask: 1, errno: Errno::ECANCELED },
        Out::Deliver { conn: conn(1), listener: listener(1) },
    ];
    assert_eq!(settle(&mut worker), expected);
}

#[test]
fn a_shared_listener_needs_its_handle() {
    let mut worker = Worker::new();
    let mut custody = Custody::new();
    for ask in 1..=2 {
        say(&mut worker, In::Listen { ask, key: key(), backlog: 0, data: vec![] });
    }
    tell(&mut worker, granted(1, true), custody.admit_all([(), ()]));
    tell(&mut worker, granted(2, true), ConnRange::EMPTY);
    let all = settle(&mut worker);
    assert!(all.iter().any(|o| matches!(o, Out::Granted { ask: 1, handle: Some(_), .. })));
    assert!(all.contains(&Out::Discard { conn: conn(2) }));
    assert!(all.contains(&Out::Refused { ask: 2, errno: Errno::EMFILE }));
    assert!(all.contains(&Out::Send(FromWorker::Close { listener: listener(2) })));
}

#[test]
fn without_a_primary_every_input_is_harmless() {
    let mut worker = serving();
    say(&mut worker, In::Listen { ask: 1, key: key(), backlog: 0, data: vec![] });
    settle(&mut worker);
    say(&mut worker, In::ChannelClosed);
    let refused = Out::Refused { ask: 1, errno: Errno::ECANCELED };
    assert_eq!(settle(&mut worker), [refused.clone(), Out::PrimaryGone]);
    for input in [
        In::ChannelClosed,
        In::Sent,
        In::Take { listener: None },
        In::Decline { listener: None },
        In::RequestReplacement,
        In::Leave,
        In::Load { open: 1 },
        In::CloseListener { listener: listener(1) },
        In::Message { msg: ToWorker::Ping { seq: seq(1) }, handles: ConnRange::EMPTY },
        In::Message { msg: ToWorker::Disconnect, handles: ConnRange::EMPTY },
    ] {
        say(&mut worker, input);
        assert_eq!(settle(&mut worker), []);
    }
    say(&mut worker, In::Listen { ask: 1, key: key(), backlog: 0, data: vec![] });
    tell(&mut worker, new_conn(1, 1, 1), Custody::new().admit_all([()]));
    assert_eq!(settle(&mut worker), [refused, Out::Discard { conn: conn(1) }]);
}

#[test]
fn it_says_what_it_waits_for() {
    let mut worker = Worker::new();
    assert!(worker.has_output());
    settle(&mut worker);
    assert!(!worker.has_output());
    let waits = |worker: &Worker| (worker.awaits_suicide_ack(), worker.awaits_leave_ack());
    assert_eq!(waits(&worker), (false, false));
    say(&mut worker, In::RequestReplacement);
    settle(&mut worker);
    assert_eq!(waits(&worker), (true, false));
    say(&mut worker, In::Leave);
    settle(&mut worker);
    assert_eq!(waits(&worker), (true, true));
    let mut alone = worker.clone();
    for (n, left) in [(1, (false, true)), (2, (false, false))] {
        tell(&mut worker, ToWorker::Ack { ack: seq(n) }, ConnRange::EMPTY);
        settle(&mut worker);
        assert_eq!(waits(&worker), left);
    }
    say(&mut alone, In::ChannelClosed);
    assert_eq!(waits(&alone), (false, false), "nobody will confirm it");
}

#[test]
fn it_waits_for_an_acceptance_to_be_sent() {
    let mut worker = serving();
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 1, 2), custody.admit_all([(), ()]));
    assert!(!worker.awaits_delivery());
    say(&mut worker, In::Decline { listener: None });
    assert!(!worker.awaits_delivery(), "that one is not to be delivered");
    say(&mut worker, In::Take { listener: None });
    assert!(worker.awaits_delivery());
    settle(&mut worker);
    assert!(!worker.awaits_delivery());
}

#[test]
fn messages_with_unknown_numbers_are_counted() {
    let mut worker = serving();
    assert_eq!(worker.strays(), 0);
    let strays = [ToWorker::Ack { ack: seq(9) }, ToWorker::PassListener { listener: listener(1) }];
    for (stray, count) in strays.into_iter().zip(1..) {
        tell(&mut worker, stray, ConnRange::EMPTY);
        assert_eq!(worker.strays(), count);
    }
    assert_eq!(settle(&mut worker), []);
}

#[test]
fn more_than_a_batch_is_not_all_declined() {
    let mut worker = serving();
    let mut custody = Custody::new();
    let batch = MAX_BATCH as usize;
    tell(&mut worker, new_conn(1, 1, MAX_BATCH), custody.admit_all(vec![(); batch]));
    assert_eq!((worker.untaken(), worker.strays()), (batch, 0));
    let next = u64::from(MAX_BATCH) + 1;
    tell(&mut worker, new_conn(next, 1, MAX_BATCH + 1), custody.admit_all(vec![(); batch]));
    assert_eq!((worker.untaken(), worker.strays()), (2 * batch, 1));
}

#[test]
fn no_more_wait_than_may() {
    let mut worker = serving();
    worker.untaken = MAX_UNTAKEN - 1;
    let mut custody = Custody::new();
    let msg = new_conn(1, 1, 2);
    let handles = custody.admit_all([(), ()]);
    worker.handle_input(Time::ZERO, In::Message { msg, handles }).unwrap();
    assert_eq!((worker.untaken, worker.untaken_at(listener(1))), (MAX_UNTAKEN, 1));
    assert_eq!(outputs(&mut worker), [ack(2, false), Out::Discard { conn: conn(2) }]);
}

#[test]
fn a_reply_to_nothing_is_counted() {
    let mut worker = serving();
    tell(&mut worker, granted(9, false), ConnRange::EMPTY);
    assert_eq!(worker.strays(), 1);
    assert_eq!(settle(&mut worker), []);
}

#[test]
fn a_second_grant_is_refused() {
    let mut worker = serving();
    say(&mut worker, In::Listen { ask: 8, key: key(), backlog: 0, data: vec![] });
    settle(&mut worker);
    let ToWorker::QueryReply { result, .. } = granted(1, false) else { panic!("no reply") };
    tell(&mut worker, ToWorker::QueryReply { ack: seq(2), result }, ConnRange::EMPTY);
    let refused = Out::Refused { ask: 8, errno: Errno::EMFILE };
    assert_eq!(settle(&mut worker), [refused], "what it has it keeps");
}

#[test]
fn a_handle_that_a_grant_does_not_call_for_is_nobodys() {
    let mut worker = Worker::new();
    let mut custody = Custody::new();
    say(&mut worker, In::Listen { ask: 1, key: key(), backlog: 0, data: vec![] });
    tell(&mut worker, granted(1, false), custody.admit_all([()]));
    let all = settle(&mut worker);
    assert!(all.iter().any(|o| matches!(o, Out::Granted { ask: 1, handle: None, .. })), "{all:?}");
    assert!(all.contains(&Out::Discard { conn: conn(1) }));
}
