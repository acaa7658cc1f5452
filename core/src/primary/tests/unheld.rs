//! Listeners that nobody holds: which workers may have them back, which listeners they yield to,
//! and when they are closed.

use super::*;
use crate::config::Overflow;
use state::ListenerState;

const SECOND: Duration = Duration::from_secs(1);

fn any4(port: u16) -> ListenKey {
    stream(ip(&alloc::format!("0.0.0.0:{port}")))
}

fn any(port: u16) -> ListenKey {
    stream(Address::Any { port })
}

fn close(hand: &mut Hand, nth: u64, of: u64) -> Vec<Output> {
    hand.says(nth, FromWorker::Close { listener: listener(of) })
}

fn arrives(hand: &mut Hand, at: u64, conn: u64) -> Vec<Output> {
    hand.tell(Input::Incoming { listener: listener(at), conn: conn_id(conn) })
}

fn unbinds(outputs: &[Output]) -> Vec<u64> {
    let it = |output: &Output| {
        let Output::Unbind { listener } = output else { return None };
        Some(listener.get())
    };
    outputs.iter().filter_map(it).collect()
}

fn binds(outputs: &[Output]) -> Vec<u64> {
    let it = |output: &Output| {
        let Output::Bind { listener, .. } = output else { return None };
        Some(listener.get())
    };
    outputs.iter().filter_map(it).collect()
}

/// Connections that were refused because their listener was closed.
fn closed(outputs: &[Output]) -> Vec<u64> {
    let it = |output: &Output| {
        let Output::Release { conn, end: ConnEnd::Refused(Refusal::Closed) } = output else {
            return None;
        };
        Some(conn.get())
    };
    outputs.iter().filter_map(it).collect()
}

fn answers(outputs: &[Output]) -> Vec<Result<u64, Errno>> {
    let it = |output: &Output| {
        let Output::Send { msg: ToWorker::QueryReply { result, .. }, .. } = output else {
            return None;
        };
        Some(result.clone().map(|granted| granted.listener.get()))
    };
    outputs.iter().filter_map(it).collect()
}

/// One worker that serves `key` as the first listener of all.
fn serves(key: &ListenKey, bound: &str) -> Hand {
    let mut hand = Hand::bound_at(Config::builder(), &[]);
    assert_eq!(hand.ask(1, key), None);
    hand.bound(1, &name(bound));
    hand.says(1, FromWorker::Listening { listener: listener(1) });
    hand
}

/// The same, with two connections, of which the worker has the first; then the worker closes the
/// listener.
fn kept(key: &ListenKey, bound: &str) -> Hand {
    let mut hand = serves(key, bound);
    arrives(&mut hand, 1, 1);
    arrives(&mut hand, 1, 2);
    assert_eq!(unbinds(&close(&mut hand, 1, 1)), [0; 0]);
    hand
}

fn query(hand: &mut Hand, nth: u64, key: &ListenKey) -> Vec<Output> {
    let key = Box::new(key.clone());
    hand.says(nth, FromWorker::Query { seq: Seq::FIRST, key, backlog: 7, data: vec![] })
}

#[test]
fn a_port_probe_leaves_nothing_behind() {
    let mut hand = serves(&any4(80), "0.0.0.0:80");
    assert_eq!(unbinds(&close(&mut hand, 1, 1)), [1]);
    // The next ask, and the one after that, find the port free once it is.
    assert_eq!(binds(&query(&mut hand, 1, &any(80))), [0; 0]);
    let outputs = hand.tell(Input::Unbound { listener: listener(1) });
    let again = Output::Bind { listener: listener(2), key: Box::new(any(80)), backlog: 7 };
    assert!(outputs.contains(&again), "{outputs:?}");
    assert_eq!(answers(&hand.bound(2, &name("[::]:80"))), [Ok(2)]);
}

#[test]
fn a_leaving_workers_listeners_are_kept_for_its_replacement() {
    let mut hand = serves(&any(80), "[::]:80");
    hand.says(1, FromWorker::Suicide { seq: Seq::FIRST });
    assert_eq!(unbinds(&close(&mut hand, 1, 1)), [0; 0]);
    let mut hand = serves(&any(80), "[::]:80");
    let outputs = hand.tell(Input::ChannelClosed { worker: worker(1) });
    assert_eq!(unbinds(&outputs), [0; 0]);
}

#[test]
fn connections_at_a_kept_listener_go_to_the_first_worker_back() {
    let mut hand = kept(&any(80), "[::]:80");
    assert_eq!(answers(&query(&mut hand, 1, &any(80))), [Ok(1)]);
    hand.ack(1, 1, true);
    let outputs = hand.says(1, FromWorker::Listening { listener: listener(1) });
    assert_eq!((handed(&outputs), closed(&outputs)), (1, vec![]));
}

#[test]
fn it_yields_at_once_to_what_it_collides_with() {
    let cases = [
        (any4(80), "0.0.0.0:80", any(80)),
        (any4(80), "0.0.0.0:80", stream(ip("127.0.0.1:80"))),
        (any(80), "[::]:80", any4(80)),
        (any(0), "[::]:80", any(80)),
        (any(0), "[::]:80", stream(ip("[::1]:80"))),
        // On a machine without IPv6.
        (any(0), "0.0.0.0:80", any4(80)),
        (stream(ip("127.0.0.1:0")), "127.0.0.1:80", stream(ip("[::ffff:127.0.0.1]:80"))),
    ];
    for (old, bound, new) in cases {
        let mut hand = kept(&old, bound);
        let outputs = query(&mut hand, 1, &new);
        assert_eq!(unbinds(&outputs), [1], "{old:?} {new:?}");
        assert_eq!((closed(&outputs), binds(&outputs)), (vec![2], vec![]));
        // One that was not yet accepted then is closed too, and so is what comes back.
        assert_eq!(closed(&arrives(&mut hand, 1, 3)), [3]);
        assert_eq!(closed(&hand.ack(1, 1, false)), [1]);
        hand.core.check().unwrap();
        assert_eq!(binds(&hand.tell(Input::Unbound { listener: listener(1) })), [2]);
        hand.core.check().unwrap();
    }
}

#[test]
fn it_stays_where_it_is_in_nobodys_way() {
    for other in [
        any(81),
        any(0),
        stream(Address::Unix("/a".into())),
        ListenKey { transport: crate::Transport::Datagram, ..any4(80) },
        ListenKey { v6_only: true, ..stream(ip("[::]:80")) },
    ] {
        let mut hand = kept(&any4(80), "0.0.0.0:80");
        let outputs = query(&mut hand, 1, &other);
        assert_eq!((unbinds(&outputs), binds(&outputs)), (vec![], vec![2]), "{other:?}");
    }
}

#[test]
fn one_that_somebody_holds_yields_to_nobody() {
    let mut hand = Hand::bound_at(Config::builder().workers(2), &[]);
    hand.ask(1, &any4(80));
    hand.bound(1, &name("0.0.0.0:80"));
    let outputs = query(&mut hand, 2, &any(80));
    assert_eq!((unbinds(&outputs), binds(&outputs)), (vec![], vec![2]));
    let outputs = hand.tell(Input::Bound { listener: listener(2), result: Err(Errno::EADDRINUSE) });
    assert_eq!(answers(&outputs), [Err(Errno::EADDRINUSE)]);
}

#[test]
fn several_make_way_for_one_and_several_wait() {
    let mut hand = Hand::bound_at(Config::builder().workers(2), &[]);
    for (nth, key) in [(1, "127.0.0.1:80"), (2, "127.0.0.2:80"), (3, "127.0.0.3:81")] {
        hand.ask(1, &stream(ip(key)));
        hand.bound(nth, &name(key));
        hand.says(1, FromWorker::Listening { listener: listener(nth) });
        arrives(&mut hand, nth, nth);
        close(&mut hand, 1, nth);
    }
    let outputs = query(&mut hand, 1, &any(80));
    assert_eq!((unbinds(&outputs), binds(&outputs)), (vec![1, 2], vec![]));
    // The same ask joins; a collision with one that is being closed waits as well.
    assert_eq!(answers(&query(&mut hand, 2, &any(80))), []);
    assert_eq!(binds(&query(&mut hand, 2, &stream(ip("127.0.0.2:80")))), [0; 0]);
    assert_eq!(binds(&hand.tell(Input::Unbound { listener: listener(1) })), [0; 0]);
    hand.core.check().unwrap();
    assert_eq!(binds(&hand.tell(Input::Unbound { listener: listener(2) })), [4, 5]);
    assert_eq!(answers(&hand.bound(4, &name("[::]:80"))), [Ok(4), Ok(4)]);
}

#[test]
fn a_shutdown_ends_the_waiting() {
    let mut hand = kept(&any4(80), "0.0.0.0:80");
    query(&mut hand, 1, &any(80));
    let outputs = hand.tell(Input::Command(Command::Stop));
    assert_eq!(answers(&outputs), [Err(Errno::ECANCELED)]);
    assert_eq!(hand.worker(1).queries, 0);
    assert_eq!(binds(&hand.tell(Input::Unbound { listener: listener(1) })), [0; 0]);
    hand.core.check().unwrap();
}

/// Node counts a worker's failed asks, so its next one has another index.
#[test]
fn a_retry_is_the_same_ask() {
    let mut hand = Hand::bound_at(Config::builder().workers(2), &[]);
    hand.ask(1, &any(80));
    hand.tell(Input::Bound { listener: listener(1), result: Err(Errno::EADDRINUSE) });
    hand.ask(1, &ListenKey { index: 1, ..any(80) });
    hand.bound(2, &name("[::]:80"));
    assert_eq!(hand.ask(2, &any(80)), Some(Ok(listener(2))));
    // No worker gets it twice.
    let second = ListenKey { index: 2, ..any(80) };
    assert_eq!(hand.ask(1, &second), Some(Err(Errno::EADDRINUSE)));
    // Port 0 gives another listener each time.
    assert_eq!(binds(&query(&mut hand, 1, &any(0))), [3]);
    assert_eq!(binds(&query(&mut hand, 1, &ListenKey { index: 1, ..any(0) })), [4]);
}

#[test]
fn it_is_closed_when_all_former_holders_are_back_without_it() {
    let mut hand = Hand::bound_at(Config::builder().workers(2), &[]);
    hand.listens_anew(1, &any(80), "[::]:80");
    hand.listens_anew(1, &any(81), "[::]:81");
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    hand.tell(Input::Exited { worker: worker(1), status: ExitStatus::Code(1) });
    hand.later(10 * SECOND);
    // Another worker that starts or leaves all the time makes no difference.
    hand.says(2, FromWorker::Suicide { seq: Seq::FIRST });
    hand.online(worker(3)).unwrap();
    assert_eq!(unbinds(&hand.later(2 * SECOND)), [0; 0], "it may ask yet");
    assert_eq!(hand.ask(3, &any(80)), Some(Ok(listener(1))));
    assert_eq!(unbinds(&hand.later(SECOND - Duration::from_nanos(1))), [0; 0]);
    assert_eq!(unbinds(&hand.later(Duration::from_nanos(1))), [2]);
}

/// A worker asks for as many as it may, serves one connection and fails; its replacement does the
/// same.
#[test]
fn listeners_count_for_the_slot() {
    let config = Config::builder().workers(2).max_listeners_per_worker(3);
    let mut hand = Hand::bound_at(config, &[]);
    for port in 1..=3 {
        hand.listens_anew(1, &any(port), &alloc::format!("[::]:{port}"));
    }
    arrives(&mut hand, 1, 1);
    hand.ack(1, 1, true);
    hand.later(2 * SECOND);
    hand.says(1, FromWorker::Suicide { seq: Seq::FIRST });
    hand.online(worker(3)).unwrap();
    let full = Some(Err(Errno::EMFILE));
    assert_eq!(hand.ask(3, &any(4)), full);
    assert_eq!(hand.ask(3, &any(2)), Some(Ok(listener(2))), "what its slot has it may have");
    assert_eq!(hand.ask(2, &any(4)), None, "others are not concerned");
    // The listeners of its predecessor, which no worker has any more, make room one by one.
    hand.says(3, FromWorker::Listening { listener: listener(2) });
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    assert_eq!(unbinds(&query(&mut hand, 3, &any(5))), [1]);
    assert_eq!(unbinds(&query(&mut hand, 3, &any(6))), [3]);
    assert_eq!(hand.ask(3, &any(7)), full);
}

/// They are the operator's, not the slot's.
#[test]
fn listeners_of_the_operator_count_for_nobody() {
    let keys = vec![any(80), any(81)];
    let config = Config::builder().max_listeners_per_worker(3).listeners(keys.clone());
    let mut hand = Hand::bound_at(config, &[name("[::]:80"), name("[::]:81")]);
    for (at, port) in (3..).zip(1..=2) {
        hand.ask(1, &any(port));
        hand.bound(at, &name(&alloc::format!("[::]:{port}")));
        hand.says(1, FromWorker::Listening { listener: listener(at) });
    }
    hand.later(2 * SECOND);
    hand.says(1, FromWorker::Suicide { seq: Seq::FIRST });
    hand.online(worker(2)).unwrap();
    assert_eq!(hand.ask(2, &any(3)), None);
    for key in &keys {
        assert!(matches!(hand.ask(2, key), Some(Ok(_))), "the slot has all it may ask for");
    }
    assert_eq!(hand.ask(2, &any(4)), Some(Err(Errno::EMFILE)));
}

#[test]
fn the_operator_is_told_once_what_to_write() {
    let (narrow, wide) = (any4(80), any(80));
    let config = Config::builder().listeners(vec![narrow]);
    let mut hand = Hand::bound_at(config, &[name("0.0.0.0:80")]);
    let outputs = query(&mut hand, 1, &wide);
    assert_eq!(answers(&outputs), [Err(Errno::EADDRINUSE)]);
    assert_eq!(events(&outputs), ["bind_too_narrow"]);
    let outputs = query(&mut hand, 1, &wide);
    assert_eq!(answers(&outputs), [Err(Errno::EADDRINUSE)]);
    assert_eq!(events(&outputs), [""; 0]);
}

#[test]
fn a_bind_that_nobody_wants_is_told_once_all_are_ready() {
    let keys = vec![any(80), any(81)];
    let config = Config::builder().workers(2).listeners(keys.clone());
    let mut hand = Hand::bound_at(config, &[name("[::]:80"), name("[::]:81")]);
    hand.listens(1, &keys[0]);
    assert_eq!(events(&hand.later(2 * SECOND)), [""; 0]);
    hand.listens(2, &keys[0]);
    assert_eq!(events(&hand.later(SECOND)), ["bind_unused"]);
    assert_eq!(events(&hand.later(100 * SECOND)), [""; 0]);

    let mut hand = Hand::bound_at(
        Config::builder().listeners(keys.clone()),
        &[name("[::]:80"), name("[::]:81")],
    );
    hand.listens(1, &keys[0]);
    hand.listens(1, &keys[1]);
    assert_eq!(events(&hand.later(SECOND)), [""; 0]);
}

#[test]
fn a_kept_listener_is_bounded_as_others_are() {
    let config = Config::builder().max_pending(2).overflow(Overflow::Refuse);
    let mut hand = Hand::bound_at(config, &[]);
    hand.listens_anew(1, &any(80), "[::]:80");
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    for conn in 1..=2 {
        arrives(&mut hand, 1, conn);
    }
    let outputs = arrives(&mut hand, 1, 3);
    let refused = Output::Release { conn: conn_id(3), end: ConnEnd::Refused(Refusal::Overflow) };
    assert!(outputs.contains(&refused));
    assert!(hand.core.listeners.get(listener(1)).is_some_and(|it| it.state == ListenerState::Open));
}
