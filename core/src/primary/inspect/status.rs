//! What a primary shows to the outside.

use serde::{Deserialize, Serialize};

use crate::Primary;
use crate::primary::state::{LastExit, WorkerKind};
use crate::transitions::Life;
use crate::{Codec, ListenKey, ListenerId, Policy, Signal, Slot, SockName, Time, WorkerId};

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that a worker accepted.
    pub accepted: u64,
    /// Connections that went back to their queue because their worker died.
    pub redispatched: u64,
    /// Connections that a worker declined; each time counts.
    pub declined: u64,
    /// Connections closed without having been served.
    pub refused: u64,
    /// Connections of which it is unknown whether a worker had them when it died.
    pub unknown: u64,
    /// Messages that answered or named nothing.
    pub stray: u64,
    /// Times that a connection waited although a worker was idle.
    pub stalled: u64,
}

/// A worker, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its id.
    pub id: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
    /// Its process, once that runs.
    pub pid: Option<i32>,
    /// Where it is in its life.
    pub life: Life,
    /// What it speaks, once it has spoken.
    pub codec: Option<Codec>,
    /// Connections in flight.
    pub in_flight: u32,
    /// Connections that it has open, as it last told; `None` if it tells nothing.
    pub open: Option<u32>,
    /// Connections that it accepted.
    pub accepted: u64,
    /// Connections that it declined.
    pub declined: u64,
    /// How many workers of its slot were started after the first one.
    pub restarts: u64,
    /// How its predecessor in the slot ended.
    pub last_exit: Option<LastExit>,
    /// When it was spawned.
    pub spawned_at: Time,
    /// How late its event loop was lately, in milliseconds; `None` if it says nothing of that.
    pub lag_ms: Option<u32>,
    /// The signal that its program handles, if it says so: [`FromWorker::StopSignal`].
    ///
    /// [`FromWorker::StopSignal`]: crate::FromWorker::StopSignal
    pub stop_signal: Option<Signal>,
}

/// A listener, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStatus<'a> {
    /// Its id.
    pub id: ListenerId,
    /// What was asked for.
    pub key: &'a ListenKey,
    /// Where it is bound, once it is.
    pub sockname: Option<&'a SockName>,
    /// The policy by which its connections are accepted.
    pub policy: Policy,
    /// Connections pending.
    pub pending: u32,
    /// Whether the primary accepts from it now.
    pub accepting: bool,
}

impl Primary {
    /// Counters since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Connections pending, over all listeners.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Connections in flight, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The workers, in the order of their ids.
    pub fn workers(&self) -> impl Iterator<Item = WorkerStatus> {
        self.workers.keys_sorted().into_iter().filter_map(|id| self.worker(id))
    }

    /// One worker; `None` once it is dead.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerStatus> {
        let worker = self.workers.get(id)?;
        let slot = self.slots.get(worker.slot.0 as usize)?;
        Some(WorkerStatus {
            id,
            slot: worker.slot,
            generation: worker.generation,
            pid: worker.pid,
            life: worker.life,
            codec: worker.kind.map(WorkerKind::codec),
            in_flight: worker.in_flight_count(),
            open: worker.open,
            accepted: worker.accepted,
            declined: worker.declined,
            restarts: slot.restarts,
            last_exit: slot.last_exit,
            spawned_at: worker.spawned_at,
            lag_ms: worker.lag_ms,
            stop_signal: worker.stop_signal,
        })
    }

    /// Whether workers accept from this listener themselves. False for a listener that is gone.
    pub fn is_shared(&self, listener: ListenerId) -> bool {
        self.listeners.get(listener).is_some_and(|record| record.shared)
    }

    /// Whether this is a listener of the operator, of any generation.
    pub fn is_operators(&self, listener: ListenerId) -> bool {
        self.listeners.get(listener).is_some_and(|record| record.operator)
    }

    /// The listeners, in the order of their ids.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerStatus<'_>> {
        let ids = self.listeners.keys_sorted().into_iter();
        ids.filter_map(|id| {
            let record = self.listeners.get(id)?;
            Some(ListenerStatus {
                id,
                key: &record.key,
                sockname: record.sockname.as_ref(),
                policy: if record.shared { Policy::Shared } else { self.config.policy },
                pending: record.pending.len() as u32,
                accepting: record.accepting,
            })
        })
    }

    /// When the shutdown that has begun ends at the latest.
    pub fn stop_deadline(&self) -> Option<Time> {
        self.stop.as_ref().map(crate::primary::shutdown::Stop::deadline)
    }
}
