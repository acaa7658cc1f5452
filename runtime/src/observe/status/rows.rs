//! The parts of a status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrimaryRow {
    /// Its process id.
    pub pid: u32,
    /// Whole seconds since its start.
    pub uptime_s: u64,
    /// Connections pending, over all listeners.
    pub pending: u64,
    /// Connections in flight, over all workers.
    pub in_flight: u64,
    /// Connections that workers have accepted, since the start.
    pub accepted_total: u64,
    /// Connections that went back to their queue because their worker died.
    pub redispatched_total: u64,
    /// How often a worker declined a connection.
    pub declined_total: u64,
    /// Connections closed without having been served.
    pub refused_total: u64,
    /// Connections of which it is unknown whether a worker had them when it died.
    pub unknown_total: u64,
    /// How often a connection waited although a worker was idle: a fault of the primary.
    pub stalled_total: u64,
    /// Messages of programs that were skipped because they were too large or malformed.
    pub messages_skipped_total: u64,
    /// Descriptors that the primary has open.
    pub open_fds: u64,
    /// Resident memory of the primary, in KiB.
    pub rss_kb: u64,
    /// Where its metrics are, if it has any.
    #[serde(default)]
    pub metrics: Option<String>,
    /// How many workers are kept.
    #[serde(default)]
    pub wanted: u32,
    /// The generation of the last reload that was done; 1 before the first one.
    #[serde(default)]
    pub generation: u32,
    /// Whether the operator has paused it.
    #[serde(default)]
    pub paused: bool,
    /// Whether it is stopping.
    #[serde(default)]
    pub stopping: bool,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerRow {
    /// Where it is bound.
    pub address: String,
    /// The scheduling policy.
    pub policy: String,
    /// Connections pending.
    pub pending: u64,
    /// Whether the primary accepts from it at the moment.
    pub accepting: bool,
    /// Connections that nobody has accepted yet, in the kernel's queue; `None` if that can't be
    /// read (sockets other than TCP).
    #[serde(default)]
    pub accept_queue: Option<u32>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// Its id, as in the event log.
    pub id: u64,
    /// Its slot, counted from 0.
    pub slot: u32,
    /// Its process id, once the process runs.
    pub pid: Option<i32>,
    /// Its generation.
    pub generation: u32,
    /// Its stage of life.
    pub state: String,
    /// The codec it speaks, once it has sent something.
    pub codec: Option<String>,
    /// Connections in flight.
    pub in_flight: u64,
    /// Connections that it has open, as it last told; `None` if it tells nothing.
    #[serde(default)]
    pub open: Option<u64>,
    /// Connections that it accepted.
    pub accepted: u64,
    /// How often it declined a connection.
    pub declined: u64,
    /// Workers started in its slot after the first one.
    pub restarts: u64,
    /// How its predecessor in the slot ended.
    pub last_exit: Option<String>,
    /// Whole seconds since it was started.
    pub uptime_s: u64,
    /// CPU time of its process, in milliseconds; `None` if it can't be read.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// Resident memory of its process, in KiB; `None` if it can't be read.
    #[serde(default)]
    pub rss_kb: Option<u64>,
    /// How late its event loop was lately, in milliseconds; `None` if it says nothing of that: see
    /// `--node-assist`.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// The signal by which its program wants to be told to leave, `TERM` or `INT`, if it says so.
    #[serde(default)]
    pub stop_signal: Option<String>,
}

/// A generation that has live workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerationRow {
    /// Its number.
    pub generation: u32,
    /// How many of its workers are in each stage of life that occurs.
    pub workers: BTreeMap<String, u64>,
    /// Connections in flight, over its workers.
    pub in_flight: u64,
    /// Connections open, over those of its workers that tell it; `None` if none does.
    pub open: Option<u64>,
}

impl GenerationRow {
    /// The generations of these workers, the oldest one first.
    pub fn of(workers: &[WorkerRow]) -> Vec<GenerationRow> {
        let mut rows = BTreeMap::new();
        for worker in workers {
            let generation = worker.generation;
            let empty = || GenerationRow { generation, ..GenerationRow::default() };
            let row = rows.entry(generation).or_insert_with(empty);
            *row.workers.entry(worker.state.clone()).or_default() += 1;
            row.in_flight += worker.in_flight;
            if let Some(open) = worker.open {
                *row.open.get_or_insert(0) += open;
            }
        }
        rows.into_values().collect()
    }
}

/// A slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotRow {
    /// Its number, counted from 0.
    pub slot: u32,
    /// What it has or waits for: `filled`; `empty` (a listener that is being bound, or the new
    /// worker of a reload), `waiting` (a delay after a failure), `awaits_process_end` (there are
    /// twice as many processes as wanted), `given_up`, `ended`.
    pub state: String,
    /// The id of its worker.
    pub worker: Option<u64>,
    /// The generation of its workers.
    pub generation: u32,
    /// Workers started in it after the first one.
    pub restarts: u64,
    /// How its last worker ended.
    pub last_exit: Option<String>,
    /// In how many milliseconds the next worker is started, if that is known.
    pub next_in_ms: Option<u64>,
}

/// One of the last reloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReloadRow {
    /// The generation that it was to make; `None` if the configuration was refused.
    pub generation: Option<u32>,
    /// `done`, `failed`, or `running` (it may still wait for its turn).
    pub result: String,
    /// Why it failed.
    pub cause: Option<String>,
    /// Whole seconds since it began.
    pub ago_s: u64,
    /// How long it took, in milliseconds, once it has ended.
    pub took_ms: Option<u64>,
}
