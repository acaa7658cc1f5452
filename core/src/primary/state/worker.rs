//! What the primary knows about a worker: its process, its channel, what is in flight there.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::collections::inline_queue::InlineQueue;
use crate::transitions::{Channel, Intent, Life, Process};
use crate::{Codec, ConnId, ListenerId, Seq, Signal, Slot, Time};

/// What kind of worker it is, and so which messages it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum WorkerKind {
    /// It links this crate.
    Native,
    /// A worker of Node's `cluster`.
    NodeCluster,
    /// A child of Node's `child_process`, which knows nothing of `cluster`: the operator's
    /// listeners are passed to it, and whether it serves can't be seen.
    NodeChild,
}

impl WorkerKind {
    pub(crate) const fn codec(self) -> Codec {
        match self {
            WorkerKind::Native => Codec::Native,
            WorkerKind::NodeCluster | WorkerKind::NodeChild => Codec::Node,
        }
    }
}

/// A worker: one process and its channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
    pub(crate) pid: Option<i32>,
    /// What it speaks, once that is known.
    pub(crate) kind: Option<WorkerKind>,
    pub(crate) life: Life,
    pub(crate) channel: Channel,
    pub(crate) process: Process,
    pub(crate) intent: Intent,
    pub(crate) spawned_at: Time,
    pub(crate) ready_at: Option<Time>,
    /// When it began to leave; has a meaning only in that state.
    pub(crate) leaving_since: Time,
    pub(crate) window: u32,
    pub(crate) next_seq: Seq,
    /// What is in flight, in the order of the numbers, which is that of handoff. With a window of
    /// 1 there is no second one.
    pub(crate) in_flight: InlineQueue<InFlight>,
    /// Since when it owes an answer, if anything is in flight.
    pub(crate) owes_since: Time,
    /// An ack deadline is set, for the time at which that is too long ago, or earlier.
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
    /// Heartbeats since it last answered a ping.
    pub(crate) missed: u32,
    /// When all its failed queries are forgiven.
    pub(crate) forgiven_at: Time,
    /// Its program said that it is ready.
    pub(crate) said_ready: bool,
    /// It counts as ready only because it has said nothing.
    pub(crate) assumed: bool,
    /// Its slot has, or waits for, another worker.
    pub(crate) replaced: bool,
    pub(crate) leave: Leave,
    /// It is ready, and nothing keeps connections from it: see `WorkerRecord::refresh`.
    pub(crate) serves: bool,
    /// It is the new worker of a reload and does not count yet, or never will.
    pub(crate) held: bool,
    pub(crate) online_at: Option<Time>,
    /// How many connections it may accept before it is replaced.
    pub(crate) recycle_at: u64,
    /// It is not replaced for its memory before then.
    pub(crate) recycle_after: Time,
    /// It was last seen with too much memory.
    pub(crate) is_large: bool,
    /// How many connections it has open, as it says.
    pub(crate) open: Option<u32>,
    /// How late its event loop is, in milliseconds, as it says.
    pub(crate) lag_ms: Option<u32>,
    /// The signal that its program handles, as it says: SIGTERM or SIGINT.
    pub(crate) stop_signal: Option<Signal>,
}

impl WorkerRecord {
    pub(crate) fn new(slot: Slot, generation: u32, now: Time) -> Self {
        WorkerRecord {
            slot,
            generation,
            pid: None,
            kind: None,
            life: Life::Starting,
            channel: Channel::Open,
            process: Process::Wanted,
            intent: Intent::Stays,
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
            missed: 0,
            forgiven_at: Time::ZERO,
            said_ready: false,
            assumed: false,
            replaced: false,
            leave: Leave::default(),
            serves: false,
            held: false,
            online_at: None,
            recycle_at: u64::MAX,
            recycle_after: Time::ZERO,
            is_large: false,
            open: None,
            lag_ms: None,
            stop_signal: None,
        }
    }

    /// Whether its process has not ended, and the primary has not killed it.
    pub(crate) fn may_end(&self) -> bool {
        self.process != Process::Exited && !self.intent.is_killed()
    }

    #[inline(always)]
    pub(crate) fn in_flight_count(&self) -> u32 {
        self.in_flight.len() as u32
    }

    /// Takes out the connection with this number. Answers usually come in order.
    #[inline(always)]
    pub(crate) fn answered(&mut self, seq: Seq) -> Option<InFlight> {
        self.in_flight.remove_by(&seq, |entry| entry.seq)
    }

    pub(crate) fn has_credit(&self) -> bool {
        self.serves && self.in_flight_count() < self.window
    }

    /// Notes whether connections may go to it, after its life, `held` or the pause has changed.
    pub(crate) fn refresh(&mut self, paused: bool) {
        self.serves = self.life == Life::Ready && !self.held && !paused;
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
            // It declined before: it gets one at a time until it accepts.
            Some(Cool { until: None, .. }) => {
                share.listening && !self.in_flight.iter().any(|entry| entry.listener == listener)
            }
        }
    }

    /// Whether it ended too early to be a service that crashed: never ready, or no connection in
    /// the first second of being ready.
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
    /// The worker may have served it without the primary's knowledge.
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
    /// How long the cool-down of the next decline is.
    pub(crate) next: Duration,
}

/// What is known about the connections of a worker that leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Leave {
    /// It was told to leave.
    pub(crate) told: bool,
    /// It was seen with a connection since it began to leave.
    pub(crate) seen: bool,
    /// Since when it was seen with none.
    pub(crate) idle_since: Option<Time>,
    /// It was sent SIGTERM.
    pub(crate) terminated: bool,
    /// It was told to leave by `stop_signal`, closed its servers, and was then told to disconnect.
    pub(crate) disconnected: bool,
}
