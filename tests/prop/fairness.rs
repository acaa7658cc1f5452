//! Guarantee 4: each handoff goes to the eligible worker with the fewest in flight, among equals
//! to the one longest there; and the even spread that follows.

use std::collections::BTreeMap;

use std::net::SocketAddr;

use roundel_core::{
    Codec, Config, ConnId, Custody, ExitStatus, FromWorker, Input, ListenerId, Output, Primary,
    Seq, SockName, Time, ToWorker, WorkerId,
};
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};
use roundel_tests::sim::plan::key;

use crate::support::{catches, holds, small_plan};

#[test]
fn the_rule_of_the_reference_is_kept() {
    holds(&[Property::Fairness], Mix { stops: false, ..Mix::ALL }, 250);
}

#[test]
fn the_rule_is_kept_by_traffic_alone() {
    holds(&[Property::Fairness], Mix { declines: true, ..Mix::CALM }, 250);
}

#[test]
fn a_skipped_worker_is_noticed() {
    catches(Property::Fairness, Mutant::SkipWorker, Mix::CALM);
}

#[test]
fn equal_workers_get_equal_numbers() {
    for workers in 1..5 {
        let mut ops = vec![Op::Round, Op::Round];
        for _ in 0..100 {
            ops.extend([Op::Connect(0, 1), Op::Accept(0, 1), Op::Round]);
        }
        let sim = Sim::after(&small_plan(workers, ops), Time::from_millis(5), None);
        let mut counts: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for output in &sim.outputs {
            if let Output::Send { worker, msg: ToWorker::NewConn { .. }, .. } = output {
                *counts.entry(*worker).or_default() += 1;
            }
        }
        let (least, most) = (counts.values().min(), counts.values().max());
        assert_eq!(counts.len(), workers as usize);
        assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
    }
}

/// Two workers and three listeners of the operator; handoffs as they are made.
struct Two {
    primary: Primary,
    custody: Custody<()>,
    listeners: Vec<ListenerId>,
}

impl Two {
    fn new() -> Two {
        let keys = (1..4).map(key).collect();
        let config = Config::builder().workers(2).window(2).listeners(keys).build().unwrap();
        let mut two =
            Two { primary: Primary::new(config), custody: Custody::new(), listeners: Vec::new() };
        two.listeners = two.primary.listeners().map(|listener| listener.id).collect();
        for listener in two.listeners.clone() {
            let sockname = SockName::Ip(SocketAddr::from(([127, 0, 0, 1], 9)));
            two.say(Input::Bound { listener, result: Ok(sockname) });
        }
        for raw in 1..3 {
            let worker = WorkerId::from_raw(raw).unwrap();
            two.say(Input::Spawned { worker, pid: 1 });
            two.say(Input::Hello { worker, codec: Codec::Native });
            two.hear(raw, FromWorker::Online);
        }
        two
    }

    /// Tells the primary something; returns what was handed off, to whom.
    fn say(&mut self, input: Input) -> Vec<(u64, ConnId)> {
        self.primary.handle_input(Time::from_millis(1), input).unwrap();
        let mut handed = Vec::new();
        while let Some(output) = self.primary.poll_output() {
            if let Output::Send { worker, attach: Some(roundel_core::Attach::Conn(conn)), .. } =
                output
            {
                handed.push((worker.get(), conn));
            }
        }
        handed
    }

    fn hear(&mut self, raw: u64, msg: FromWorker) -> Vec<(u64, ConnId)> {
        self.say(Input::Message { worker: WorkerId::from_raw(raw).unwrap(), msg })
    }

    fn listen(&mut self, raw: u64, nth: usize) {
        let (seq, key) = (Seq::from_raw(1).unwrap(), Box::new(key(nth as u16 + 1)));
        self.hear(raw, FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
        self.hear(raw, FromWorker::Listening { listener: self.listeners[nth] });
    }

    fn connect(&mut self, nth: usize) -> (ConnId, Vec<(u64, ConnId)>) {
        let conn = self.custody.admit(());
        (conn, self.say(Input::Incoming { listener: self.listeners[nth], conn }))
    }
}

/// A listener that waits longest is served first, also after others were served past it.
#[test]
fn a_listener_that_nobody_takes_keeps_its_turn() {
    let mut two = Two::new();
    let first = two.connect(0).0;
    for nth in [1, 2] {
        two.listen(1, nth);
    }
    let on_one: Vec<ConnId> = [1, 2].map(|nth| two.connect(nth).0).into();
    for nth in [1, 2] {
        two.listen(2, nth);
    }
    // The other worker has room for one more.
    assert_eq!(two.connect(1).1.len(), 1);
    let worker = WorkerId::from_raw(1).unwrap();
    let moved = two.say(Input::ChannelClosed { worker });
    assert_eq!(moved, [(2, on_one[0])]);
    two.say(Input::Exited { worker, status: ExitStatus::Signal(9) });
    two.listen(2, 0);
    let freed = two.hear(2, FromWorker::Ack { ack: Seq::from_raw(1).unwrap(), accepted: true });
    assert_eq!(freed, [(2, first)]);
    let freed = two.hear(2, FromWorker::Ack { ack: Seq::from_raw(2).unwrap(), accepted: true });
    assert_eq!(freed, [(2, on_one[1])]);
}
