//! Random walks: an embedder and a primary that may do anything.

use alloc::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::Misuse;

/// What may happen; the numbers pick among what there is.
#[derive(Clone, Debug)]
enum Op {
    NewConn { at: u64, count: u32, handles: usize },
    Sent(usize),
    Take(Option<u64>),
    Decline(Option<u64>),
    Listen,
    Reply { shared: bool, fails: bool, handles: usize },
    Close(u64),
    Suicide,
    Leave,
    Ack(u64),
    Drain,
    Ping,
    Closed,
}

fn op() -> impl Strategy<Value = Op> {
    let at = || prop::option::of(1..4_u64);
    prop_oneof![
        8 => (1..4_u64, 1..4_u32, 0..5_usize)
            .prop_map(|(at, count, handles)| Op::NewConn { at, count, handles }),
        8 => (1..6_usize).prop_map(Op::Sent),
        8 => at().prop_map(Op::Take),
        2 => at().prop_map(Op::Decline),
        4 => Just(Op::Listen),
        4 => (any::<bool>(), any::<bool>(), 0..2_usize)
            .prop_map(|(shared, fails, handles)| Op::Reply { shared, fails, handles }),
        1 => (1..4_u64).prop_map(Op::Close),
        1 => Just(Op::Suicide),
        1 => Just(Op::Leave),
        1 => (1..8_u64).prop_map(Op::Ack),
        1 => Just(Op::Drain),
        1 => Just(Op::Ping),
        1 => Just(Op::Closed),
    ]
}

/// An embedder and a primary, and what they remember.
#[derive(Default)]
struct World {
    worker: Worker,
    custody: Custody<()>,
    handed: u64,
    replied: u64,
    asks: u32,
    /// The connection behind each number that has one.
    conn_of: BTreeMap<Seq, ConnId>,
    /// Polled and unconfirmed.
    sending: alloc::collections::VecDeque<FromWorker>,
    /// Connections whose acceptance was confirmed as sent.
    sure: BTreeSet<ConnId>,
    answered: BTreeMap<Seq, bool>,
    transcript: Vec<Out>,
    gone: bool,
}

impl World {
    fn input(&mut self, input: In) {
        self.worker.handle_input(Time::ZERO, input).unwrap();
        self.worker.check().unwrap();
    }

    fn tell(&mut self, msg: ToWorker, handles: usize) {
        let handles = self.custody.admit_all(core::iter::repeat_n((), handles));
        self.input(In::Message { msg, handles });
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::NewConn { at, count, handles } => {
                let first = self.handed + 1;
                self.handed += u64::from(count);
                let handles = self.custody.admit_all(core::iter::repeat_n((), handles));
                self.conn_of.extend((first..=self.handed).map(seq).zip(handles));
                self.input(In::Message { msg: new_conn(first, at, count), handles });
            }
            Op::Sent(count) => {
                self.drain();
                for _ in 0..count {
                    let Some(msg) = self.sending.pop_front() else { break };
                    if let FromWorker::Ack { ack, accepted: true } = msg {
                        self.sure.insert(self.conn_of[&ack]);
                    }
                    self.input(In::Sent);
                }
            }
            Op::Take(at) => self.input(In::Take { listener: at.map(listener) }),
            Op::Decline(at) => self.input(In::Decline { listener: at.map(listener) }),
            Op::Listen => {
                self.asks += 1;
                self.input(In::Listen { ask: self.asks, key: key(), backlog: 0, data: vec![] });
            }
            Op::Reply { shared, fails, handles } => {
                self.replied += 1;
                let msg = if fails {
                    ToWorker::QueryReply { ack: seq(self.replied), result: Err(Errno::EMFILE) }
                } else {
                    granted(self.replied, shared)
                };
                self.tell(msg, handles);
            }
            Op::Close(at) => self.input(In::CloseListener { listener: listener(at) }),
            Op::Suicide => self.input(In::RequestReplacement),
            Op::Leave => self.input(In::Leave),
            Op::Ack(n) => self.tell(ToWorker::Ack { ack: seq(n) }, 0),
            Op::Drain => self.tell(ToWorker::Drain { deadline_ms: 1 }, 0),
            Op::Ping => self.tell(ToWorker::Ping { seq: seq(1) }, 1),
            Op::Closed => {
                self.gone = true;
                self.input(In::ChannelClosed);
            }
        }
    }

    /// Polls everything and checks it against what is remembered.
    fn drain(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match &output {
                Out::Send(msg) => {
                    if let FromWorker::Ack { ack, accepted } = *msg {
                        let twice = self.answered.insert(ack, accepted);
                        assert_eq!(twice, None, "{ack} was answered twice");
                    }
                    self.sending.push_back(msg.clone());
                }
                Out::Deliver { conn, .. } => {
                    assert!(self.sure.contains(conn), "{conn} before its acceptance was sent");
                    assert!(self.custody.release(*conn).is_some(), "{conn} ended twice");
                }
                Out::Discard { conn } => {
                    assert!(!self.sure.contains(conn), "{conn} was accepted, then discarded");
                    assert!(self.custody.release(*conn).is_some(), "{conn} ended twice");
                }
                Out::Granted { handle, .. } => {
                    assert!(handle.is_none_or(|conn| self.custody.release(conn).is_some()));
                }
                Out::Refused { .. }
                | Out::Draining { .. }
                | Out::SuicideAcked
                | Out::CloseChannel
                | Out::PrimaryGone => {}
            }
            self.transcript.push(output);
        }
        assert_eq!(self.custody.len(), self.worker.held().len(), "something was forgotten");
        if !self.gone {
            let open = self.handed as usize - self.answered.len();
            assert_eq!(open, self.worker.untaken(), "each number has one answer, or waits");
        }
    }

    fn misuse_changes_nothing(&mut self) {
        let before = self.worker.clone();
        let mut wrong = vec![];
        if before.last_conn > 0 {
            // Made by another custody, so that it begins again at c1.
            let handles = Custody::new().admit_all([()]);
            wrong.push(In::Message { msg: ToWorker::Disconnect, handles });
        }
        if before.polled == 0 && !before.is_alone() {
            wrong.push(In::Sent);
        }
        if let Some(ask) = before.asks.first() {
            let ask = ask.ask;
            wrong.push(In::Listen { ask, key: key(), backlog: 0, data: vec![] });
        }
        for input in wrong {
            let result: Result<(), Misuse> =
                self.worker.handle_input(Time::from_millis(9), input.clone());
            assert!(result.is_err(), "{input:?}");
            assert_eq!(self.worker, before, "{input:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_connection_ends_once_and_every_number_is_answered_once(
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let mut world = World::default();
        for op in &ops {
            world.apply(op);
            world.drain();
        }
        world.gone = true;
        world.input(In::ChannelClosed);
        world.drain();
        prop_assert!(world.custody.is_empty());
    }

    #[test]
    fn a_batch_of_inputs_is_the_same_as_one_by_one(ops in prop::collection::vec(op(), 0..80)) {
        let (mut batch, mut single) = (World::default(), World::default());
        for op in &ops {
            batch.apply(op);
            single.apply(op);
            single.drain();
        }
        batch.drain();
        single.drain();
        prop_assert_eq!(batch.transcript, single.transcript);
        prop_assert_eq!(batch.worker, single.worker);
    }

    #[test]
    fn misuse_leaves_the_state_as_it_was(ops in prop::collection::vec(op(), 0..40)) {
        let mut world = World::default();
        for op in &ops {
            world.apply(op);
            world.misuse_changes_nothing();
        }
    }
}
