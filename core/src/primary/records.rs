//! What the primary knows of each worker, slot and listener.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::leaving::Leave;
use super::output::ExitClass;
use crate::inline_queue::InlineQueue;
use crate::transitions::Life;
use crate::{
    Address, Codec, ConnId, ExitStatus, ListenKey, ListenerId, Seq, Slot, SockName, Time,
    Transport, WorkerId,
};

/// A worker: one process and its channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
    pub(crate) pid: Option<i32>,
    pub(crate) codec: Option<Codec>,
    pub(crate) life: Life,
    pub(crate) spawned_at: Time,
    pub(crate) ready_at: Option<Time>,
    /// When it began to leave; says something only in that state.
    pub(crate) leaving_since: Time,
    pub(crate) window: u32,
    pub(crate) next_seq: Seq,
    /// What is in flight, in the order of the numbers, which is that of handoff. With a window of
    /// 1 there is no second one.
    pub(crate) in_flight: InlineQueue<InFlight>,
    /// Since when it owes an answer, if anything is in flight.
    pub(crate) owes_since: Time,
    /// An ack deadline is set, for when that is too long ago or earlier.
    pub(crate) ack_armed: bool,
    /// A frame deadline is set.
    pub(crate) mid_frame: bool,
    pub(crate) shares: Vec<Share>,
    /// Queries whose bind is not done.
    pub(crate) queries: u32,
    pub(crate) accepted: u64,
    pub(crate) declined: u64,
    /// Stray messages since the last valid ack.
    pub(crate) strays: u32,
    /// Pings that it has not answered, the latest few.
    pub(crate) pings: Vec<Seq>,
    /// When all its failed queries are forgiven.
    pub(crate) forgiven_at: Time,
    /// It announced its leave, or was told to leave: its end is no crash.
    pub(crate) voluntary: bool,
    /// Its program said that it is ready.
    pub(crate) said_ready: bool,
    /// Why the primary killed it, once it has.
    pub(crate) killed_as: Option<ExitClass>,
    /// Its slot has, or waits for, another worker.
    pub(crate) replaced: bool,
    pub(crate) read_shut: bool,
    pub(crate) channel_closed: bool,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) leave: Leave,
}

impl WorkerRecord {
    pub(crate) fn new(slot: Slot, generation: u32, now: Time) -> Self {
        WorkerRecord {
            slot,
            generation,
            pid: None,
            codec: None,
            life: Life::Starting,
            spawned_at: now,
            ready_at: None,
            leaving_since: Time::ZERO,
            window: 1,
            next_seq: Seq::FIRST,
            in_flight: InlineQueue::default(),
            owes_since: Time::ZERO,
            ack_armed: false,
            mid_frame: false,
            shares: Vec::new(),
            queries: 0,
            accepted: 0,
            declined: 0,
            strays: 0,
            pings: Vec::new(),
            forgiven_at: Time::ZERO,
            voluntary: false,
            said_ready: false,
            killed_as: None,
            replaced: false,
            read_shut: false,
            channel_closed: false,
            exit: None,
            leave: Leave::default(),
        }
    }

    #[inline(always)]
    pub(crate) fn in_flight_count(&self) -> u32 {
        self.in_flight.len() as u32
    }

    /// Takes out what a number stands for. Answers mostly come in order.
    #[inline(always)]
    pub(crate) fn answered(&mut self, seq: Seq) -> Option<InFlight> {
        self.in_flight.remove_by(&seq, |entry| entry.seq)
    }

    pub(crate) fn has_credit(&self) -> bool {
        self.life == Life::Ready && self.in_flight_count() < self.window
    }

    pub(crate) fn share(&self, listener: ListenerId) -> Option<&Share> {
        self.shares.iter().find(|share| share.listener == listener)
    }

    pub(crate) fn share_mut(&mut self, listener: ListenerId) -> Option<&mut Share> {
        self.shares.iter_mut().find(|share| share.listener == listener)
    }

    /// Whether a connection of this listener may go to the worker, apart from its credit.
    pub(crate) fn takes(&self, listener: ListenerId) -> bool {
        let Some(share) = self.share(listener) else { return false };
        match share.cool {
            None => share.listening,
            Some(Cool { until: Some(_), .. }) => false,
            // Declined before: one at a time until it accepts.
            Some(Cool { until: None, .. }) => {
                share.listening && !self.in_flight.iter().any(|entry| entry.listener == listener)
            }
        }
    }

    /// Ended too early to be a service that crashed: never ready, or no connection in the first
    /// second of being ready.
    pub(crate) fn failed_early(&self, now: Time) -> bool {
        match self.ready_at {
            None => true,
            Some(at) => now.since(at) < Duration::from_secs(1) && self.accepted == 0,
        }
    }

    pub(crate) fn take_seq(&mut self) -> Seq {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        seq
    }
}

/// A connection that was handed off and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct InFlight {
    pub(crate) seq: Seq,
    pub(crate) conn: ConnId,
    pub(crate) listener: ListenerId,
    pub(crate) attempts: u8,
    /// The worker may have served it without our knowing.
    pub(crate) in_doubt: bool,
}

/// A worker's part in a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) listener: ListenerId,
    /// Its server is up: connections may go to it.
    pub(crate) listening: bool,
    pub(crate) cool: Option<Cool>,
}

/// Set by a decline, ended by an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Cool {
    /// Nothing goes to it until then; `None` once that has passed.
    pub(crate) until: Option<Time>,
    /// How long the next decline cools.
    pub(crate) next: Duration,
}

/// A place for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) state: SlotState,
    pub(crate) restarts: u64,
    /// When its workers failed early, within the period that counts.
    pub(crate) failures: VecDeque<Time>,
    /// The delay before the next respawn after an early failure.
    pub(crate) delay: Duration,
    /// Its last start failed for want of resources: how long it waits after the next one that does.
    pub(crate) wanting: Option<Duration>,
    pub(crate) last_exit: Option<LastExit>,
}

/// The worker that is, or will be, in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum SlotState {
    /// Nobody yet: the listeners are being bound.
    Empty,
    /// This worker.
    Filled(WorkerId),
    /// The next worker, after a delay.
    Waiting,
    /// The next worker, once a process has ended: there are twice as many as wanted. Until then
    /// the failing worker's suicide is not confirmed, so that it waits for its replacement.
    Crowded { failing: WorkerId, suicide: Option<Seq> },
    /// Nobody any more: its workers failed too often.
    GivenUp,
    /// Nobody any more: it ended and is not respawned.
    Ended,
}

/// How the last worker of a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastExit {
    /// How the process ended; `None` if it was never started, or is stuck in the kernel.
    pub status: Option<ExitStatus>,
    /// What that means.
    pub class: ExitClass,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    pub(crate) key: ListenKey,
    /// Given by the operator: lives as long as the primary.
    pub(crate) operator: bool,
    /// Workers get the listener itself, not its connections.
    pub(crate) shared: bool,
    pub(crate) state: ListenerState,
    /// The workers that ask for it until it is bound.
    pub(crate) askers: Vec<Asker>,
    /// The slots whose workers it was ever given to.
    pub(crate) slots: BTreeSet<Slot>,
    /// A connection has come to it.
    pub(crate) used: bool,
    /// The operator was told that it is not what the workers ask for.
    pub(crate) told: bool,
    pub(crate) sockname: Option<SockName>,
    /// The first worker's; goes to all.
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) holders: BTreeSet<WorkerId>,
    /// Ordered by id.
    pub(crate) pending: VecDeque<Pending>,
    /// Accepting was resumed and not paused since.
    pub(crate) accepting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ListenerState {
    /// To be bound, with this backlog, once those that it collides with are closed.
    Waiting {
        backlog: u32,
    },
    Binding,
    Open,
    /// Being emptied and closed.
    Closing,
    /// Closed, in a shutdown: its queue is still there.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) worker: WorkerId,
    pub(crate) seq: Seq,
}

/// A connection that waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) conn: ConnId,
    pub(crate) attempts: u8,
}

impl ListenerRecord {
    pub(crate) fn new(key: ListenKey, operator: bool, shared: bool) -> Self {
        ListenerRecord {
            key,
            operator,
            shared,
            state: ListenerState::Binding,
            askers: Vec::new(),
            slots: BTreeSet::new(),
            used: false,
            told: false,
            sockname: None,
            data: None,
            holders: BTreeSet::new(),
            pending: VecDeque::new(),
            accepting: false,
        }
    }

    /// A bind output for it.
    pub(crate) fn boxed_key(&self) -> Box<ListenKey> {
        Box::new(self.key.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == ListenerState::Open
    }

    /// Whether the primary accepts its connections and hands them off.
    pub(crate) fn is_handed_off(&self) -> bool {
        self.is_open() && !self.shared
    }

    /// Whether workers asked for it and none has it any more.
    pub(crate) fn is_unheld(&self) -> bool {
        self.is_open() && !self.operator && self.holders.is_empty()
    }

    /// Its address with the port that it really has.
    pub(crate) fn effective_address(&self) -> Address {
        match (&self.key.address, &self.sockname) {
            // Bound without IPv6, where the machine has none.
            (Address::Any { .. }, Some(SockName::Ip(real))) if real.is_ipv4() => Address::Ip(*real),
            (Address::Any { .. }, Some(SockName::Ip(real))) => Address::Any { port: real.port() },
            (Address::Ip(_) | Address::Fd(_), Some(SockName::Ip(real))) => Address::Ip(*real),
            (Address::Fd(_), Some(SockName::Unix(path))) => Address::Unix(path.clone()),
            (address, _) => address.clone(),
        }
    }

    /// Whether the kernel would refuse to bind `key` while this one is open.
    pub(crate) fn is_in_the_way_of(&self, key: &ListenKey) -> bool {
        // A path is taken whatever kind of socket it is, a port for UDP whatever its option is,
        // unless both have that. Closing our copy of an inherited socket frees nothing.
        let alike = match (self.key.transport, key.transport) {
            (Transport::DatagramReuse, Transport::DatagramReuse) => false,
            (Transport::Stream, other) | (other, Transport::Stream) => other == Transport::Stream,
            (Transport::Datagram | Transport::DatagramReuse, _) => true,
        };
        (alike || matches!(key.address, Address::Unix(_)))
            && !matches!(self.key.address, Address::Fd(_))
            && self.effective_address().collides(self.key.v6_only, &key.address, key.v6_only)
            && key.address.port() != Some(0)
    }

    /// Puts a connection at its place in the queue.
    pub(crate) fn enqueue(&mut self, entry: Pending) {
        match self.pending.back() {
            Some(last) if last.conn > entry.conn => {
                let at = self.pending.partition_point(|other| other.conn < entry.conn);
                self.pending.insert(at, entry);
            }
            _ => self.pending.push_back(entry),
        }
    }
}
