//! Guarantee 2: what is in flight at a worker that dies reaches another one, from its place in the
//! queue, and is refused only after too many deaths. An exit alone moves nothing.

use roundel_core::{Address, Config, Event, ExitStatus, FromWorker, Input, ListenKey, Output};
use roundel_core::{
    Codec, ConnId, Custody, Errno, Primary, Seq, SockName, Time, ToWorker, WorkerId,
};
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;
use std::net::SocketAddr;

use crate::support::{catches, holds};

#[test]
fn nothing_is_lost_when_workers_die() {
    holds(&[Property::NoLoss], Mix { stops: false, ..Mix::ALL }, 200);
}

#[test]
fn a_connection_tried_too_often_is_noticed() {
    catches(Property::NoLoss, Mutant::ForgetAttempts, Mix { stops: false, ..Mix::ALL });
}

#[test]
fn another_order_is_noticed() {
    catches(Property::NoLoss, Mutant::Reorder, Mix { stops: false, ..Mix::ALL });
}

/// A primary with one ready worker and one operator's listener.
struct One {
    primary: Primary,
    custody: Custody<()>,
    worker: WorkerId,
}

const T: Time = Time::from_millis(1);

impl One {
    fn new(config: roundel_core::ConfigBuilder) -> One {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let key = ListenKey::stream(Address::Ip(address));
        let config = config.listeners(vec![key.clone()]).build().unwrap();
        let mut one = One {
            primary: Primary::new(config),
            custody: Custody::new(),
            worker: WorkerId::from_raw(1).unwrap(),
        };
        let bound = one.outputs().into_iter().find_map(|output| match output {
            Output::Bind { listener, .. } => Some(listener),
            _ => None,
        });
        let listener = bound.unwrap();
        one.input(Input::Bound { listener, result: Ok(SockName::Ip(address)) });
        one.join(key);
        one
    }

    fn input(&mut self, input: Input) {
        self.primary.handle_input(T, input).unwrap();
    }

    fn say(&mut self, msg: FromWorker) {
        self.input(Input::Message { worker: self.worker, msg });
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.primary.poll_output()).collect()
    }

    fn join(&mut self, key: ListenKey) {
        let worker = self.worker;
        self.input(Input::Spawned { worker, pid: 1 });
        self.input(Input::Hello { worker, codec: Codec::Native });
        self.say(FromWorker::Online);
        let (seq, key) = (Seq::from_raw(1).unwrap(), Box::new(key));
        self.say(FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
        let listener = self.primary.listeners().next().unwrap().id;
        self.say(FromWorker::Listening { listener });
        self.outputs();
    }

    fn connect(&mut self) -> ConnId {
        let conn = self.custody.admit(());
        let listener = self.primary.listeners().next().unwrap().id;
        self.input(Input::Incoming { listener, conn });
        conn
    }
}

#[test]
fn an_exit_alone_moves_nothing() {
    let mut one = One::new(Config::builder());
    let conn = one.connect();
    one.outputs();
    one.input(Input::Exited { worker: one.worker, status: ExitStatus::Signal(9) });
    let moved = |output: &Output| matches!(output, Output::Event(Event::Redispatched { .. }));
    let outputs = one.outputs();
    assert!(!outputs.iter().any(moved));
    // It may be held by somebody else: its read side is shut down.
    assert!(outputs.iter().any(|output| matches!(output, Output::ShutdownRead { .. })));
    assert_eq!((one.primary.in_flight(), one.primary.pending()), (1, 0));
    // The answer that was still in the channel counts.
    one.say(FromWorker::Ack { ack: Seq::from_raw(1).unwrap(), accepted: true });
    one.input(Input::ChannelClosed { worker: one.worker });
    assert!(!one.outputs().iter().any(moved));
    assert!(one.custody.release(conn).is_some());
}

#[test]
fn the_end_of_the_channel_redispatches_in_order() {
    let mut one = One::new(Config::builder().window(3));
    let conns: Vec<ConnId> = (0..5).map(|_| one.connect()).collect();
    assert_eq!((one.primary.in_flight(), one.primary.pending()), (3, 2));
    one.input(Input::ChannelClosed { worker: one.worker });
    one.input(Input::Exited { worker: one.worker, status: ExitStatus::Signal(9) });
    assert_eq!((one.primary.in_flight(), one.primary.pending()), (0, 5));
    one.outputs();
    one.primary.handle_input(Time::from_millis(5_000), Input::Wake).unwrap();
    let spawned = one.outputs().into_iter().find_map(|output| match output {
        Output::Spawn { worker, .. } => Some(worker),
        _ => None,
    });
    one.worker = spawned.unwrap();
    let key = one.primary.listeners().next().unwrap().key.clone();
    let worker = one.worker;
    one.input(Input::Spawned { worker, pid: 2 });
    one.input(Input::Hello { worker, codec: Codec::Native });
    one.say(FromWorker::Online);
    let (seq, key) = (Seq::from_raw(1).unwrap(), Box::new(key));
    one.say(FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
    let listener = one.primary.listeners().next().unwrap().id;
    one.say(FromWorker::Listening { listener });
    let handed: Vec<ConnId> = one
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::Send {
                msg: ToWorker::NewConn { .. },
                attach: Some(roundel_core::Attach::Conn(conn)),
                ..
            } => Some(conn),
            _ => None,
        })
        .collect();
    assert_eq!(handed, conns[..3]);
}

#[test]
fn a_handoff_that_could_not_be_sent_comes_back() {
    let mut one = One::new(Config::builder());
    let conn = one.connect();
    let seq = Seq::from_raw(1).unwrap();
    one.input(Input::HandoffFailed { worker: one.worker, seq, errno: Errno(109) });
    assert_eq!(one.primary.held(), [conn]);
    assert_eq!(one.primary.pending(), 1);
}
