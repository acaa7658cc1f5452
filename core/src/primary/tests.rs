//! The primary by hand, one rule at a time.

mod canonical;
mod check;
mod life;
mod listeners;
mod mute;
mod queue;
mod reload;
mod reload_proven;
mod stall;
mod unheld;
mod want;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::state::SlotState;
use super::*;
use crate::config::ConfigBuilder;
use crate::testing::Hand;
use crate::transitions::{Channel, Intent, Life};
use crate::{Address, Codec, ConnId, Errno, ListenKey, Seq, SockName, ToWorker};

impl Hand {
    /// A primary whose listeners, if it has some, are bound where `names` say.
    fn bound_at(config: ConfigBuilder, names: &[SockName]) -> Hand {
        let mut hand = Hand::over(Primary::new(config.build().unwrap()), Time::ZERO);
        for (nth, name) in (1..).zip(names) {
            hand.bound(nth, name);
        }
        for nth in 1..=u64::from(hand.core.config().workers()) {
            hand.online(worker(nth)).unwrap();
        }
        hand
    }

    /// A primary with one listener of the operator, to which all workers listen.
    fn serving(config: ConfigBuilder) -> Hand {
        let key = stream(Address::Any { port: 80 });
        let mut hand = Hand::bound_at(config.listeners(vec![key.clone()]), &[name("[::]:80")]);
        for nth in 1..=u64::from(hand.core.config().workers()) {
            hand.listens(nth, &key);
        }
        hand
    }

    fn listens(&mut self, nth: u64, key: &ListenKey) {
        let granted = self.ask(nth, key).unwrap().unwrap();
        self.says(nth, FromWorker::Listening { listener: granted });
    }

    /// Binds a listener of a worker's own, and lets the worker listen.
    fn listens_anew(&mut self, nth: u64, key: &ListenKey, at: &str) {
        assert_eq!(self.ask(nth, key), None);
        let last = self.core.listeners.keys_sorted().last().unwrap().get();
        self.bound(last, &name(at));
        self.says(nth, FromWorker::Listening { listener: listener(last) });
    }

    fn incoming(&mut self, conn: u64) -> Vec<Output> {
        self.tell(Input::Incoming { listener: listener(1), conn: conn_id(conn) })
    }

    fn ack(&mut self, nth: u64, ack: u64, accepted: bool) -> Vec<Output> {
        self.says(nth, FromWorker::Ack { ack: Seq::from_raw(ack).unwrap(), accepted })
    }

    /// Lets time pass; outputs from before are dropped.
    fn later(&mut self, span: Duration) -> Vec<Output> {
        self.outputs();
        self.pass(span).unwrap();
        self.outputs()
    }

    fn worker(&mut self, nth: u64) -> &mut state::WorkerRecord {
        self.core.workers.get_mut(worker(nth)).unwrap()
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.outputs();
        self.input(input).unwrap();
        self.outputs()
    }

    fn bound(&mut self, nth: u64, name: &SockName) -> Vec<Output> {
        self.tell(Input::Bound { listener: listener(nth), result: Ok(name.clone()) })
    }

    fn says(&mut self, nth: u64, msg: FromWorker) -> Vec<Output> {
        self.tell(Input::Message { worker: worker(nth), msg })
    }

    /// The immediate answer to a query, if there is one.
    fn ask(&mut self, nth: u64, key: &ListenKey) -> Option<Result<ListenerId, Errno>> {
        self.ask_with(nth, key, vec![])
    }

    fn ask_with(
        &mut self,
        nth: u64,
        key: &ListenKey,
        data: Vec<u8>,
    ) -> Option<Result<ListenerId, Errno>> {
        let query =
            FromWorker::Query { seq: Seq::FIRST, key: Box::new(key.clone()), backlog: 0, data };
        let outputs = self.says(nth, query);
        outputs.into_iter().find_map(|output| {
            let Output::Send { msg: ToWorker::QueryReply { result, .. }, .. } = output else {
                return None;
            };
            Some(result.map(|granted| granted.listener))
        })
    }
}

fn conn_id(raw: u64) -> ConnId {
    ConnId::from_raw(raw).unwrap()
}

fn events(outputs: &[Output]) -> Vec<&'static str> {
    let event =
        |output: &Output| if let Output::Event(it) = output { Some(it.name()) } else { None };
    outputs.iter().filter_map(event).collect()
}

/// How many connections are handed off.
fn handed(outputs: &[Output]) -> usize {
    let is_it =
        |output: &&Output| matches!(output, Output::Send { msg: ToWorker::NewConn { .. }, .. });
    outputs.iter().filter(is_it).count()
}

fn worker(nth: u64) -> WorkerId {
    WorkerId::from_raw(nth).unwrap()
}

fn listener(nth: u64) -> ListenerId {
    ListenerId::from_raw(nth).unwrap()
}

fn stream(address: Address) -> ListenKey {
    ListenKey::stream(address)
}

fn ip(address: &str) -> Address {
    Address::Ip(address.parse().unwrap())
}

fn name(address: &str) -> SockName {
    SockName::Ip(address.parse().unwrap())
}
