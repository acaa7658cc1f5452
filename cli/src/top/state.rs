//! What the primary has answered, and what follows from two answers: rates.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use roundel_core::Policy;
use roundel_runtime::observe::status::{PrimaryRow, SlotRow, Status, WorkerRow};

/// How many seconds of a worker's past are shown.
pub(super) const SECONDS: usize = 60;

/// An answer of the primary.
///
/// # Errors
/// One line, if this is not the answer to `status`.
pub(super) fn read(line: &str) -> Result<Status, String> {
    serde_json::from_str(line).map_err(|error| format!("the answer is not a status: {error}"))
}

/// What a worker did lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    /// Connections a second between the last two samples, if the primary sees them.
    pub(super) conns: Option<f64>,
    /// CPU time in per cent of one processor, if it can be read.
    pub(super) cpu: Option<f64>,
    /// Connections a second in each of the last [`SECONDS`], the latest last.
    pub(super) history: VecDeque<f64>,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    Worker {
        worker: &'a WorkerRow,
        recent: &'a Recent,
    },
    /// A slot without a worker.
    Slot(&'a SlotRow),
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Slot,
    Conns,
    InFlight,
    Open,
    Cpu,
    Memory,
    Restarts,
}

impl Sort {
    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Slot => Sort::Conns,
            Sort::Conns => Sort::InFlight,
            Sort::InFlight => Sort::Open,
            Sort::Open => Sort::Cpu,
            Sort::Cpu => Sort::Memory,
            Sort::Memory => Sort::Restarts,
            Sort::Restarts => Sort::Slot,
        }
    }

    /// The heading of its column.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Sort::Slot => "SLOT",
            Sort::Conns => "CONN/S",
            Sort::InFlight => "IN FLIGHT",
            Sort::Open => "OPEN",
            Sort::Cpu => "CPU%",
            Sort::Memory => "MEMORY",
            Sort::Restarts => "RESTARTS",
        }
    }

    /// What makes a row come first; slots without a worker come last. Rows that are equal are
    /// sorted by slot.
    fn weight(self, row: &Row<'_>) -> f64 {
        let Row::Worker { worker, recent } = row else { return -1.0 };
        let number = |count: Option<u64>| count.unwrap_or(0) as f64;
        match self {
            Sort::Slot => 0.0,
            Sort::Conns => recent.conns.unwrap_or(0.0),
            Sort::InFlight => worker.in_flight as f64,
            Sort::Open => number(worker.open),
            Sort::Cpu => recent.cpu.unwrap_or(0.0),
            Sort::Memory => number(worker.rss_kb),
            Sort::Restarts => worker.restarts as f64,
        }
    }
}

/// A reload that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reload {
    pub(super) generation: u32,
    /// How many of its workers are ready.
    pub(super) ready: usize,
    pub(super) seconds: u64,
}

/// The last sample, and what follows from it and those before.
#[derive(Debug)]
pub(super) struct State {
    sample: Status,
    at: Instant,
    conns: Option<f64>,
    recents: BTreeMap<u64, Recent>,
}

impl State {
    pub(super) fn new(at: Instant, sample: Status) -> State {
        let workers = sample.workers.iter();
        let recents = workers.map(|worker| (worker.id, Recent::default())).collect();
        State { sample, at, conns: None, recents }
    }

    /// Takes the next sample. If it is another primary's, everything begins anew.
    pub(super) fn take(&mut self, at: Instant, sample: Status) {
        if !is_same(&self.sample.primary, &sample.primary) {
            *self = State::new(at, sample);
            return;
        }
        let span = at.saturating_duration_since(self.at).max(Duration::from_millis(1));
        let Status { primary, workers, .. } = &sample;
        let before = &self.sample;
        let is_counted = counts(&sample);
        let conns = |from: u64, to: u64| is_counted.then(|| rate(from, to, span));
        self.conns = conns(before.primary.accepted_total, primary.accepted_total);
        let earlier: BTreeMap<u64, &WorkerRow> =
            before.workers.iter().map(|worker| (worker.id, worker)).collect();
        let mut old = std::mem::take(&mut self.recents);
        for worker in workers {
            // One that was not there before began at zero: ids are never used again.
            let earlier = earlier.get(&worker.id);
            let mut recent = old.remove(&worker.id).unwrap_or_default();
            recent.conns = conns(earlier.map_or(0, |it| it.accepted), worker.accepted);
            let cpu_before = earlier.map_or(Some(0), |it| it.cpu_ms);
            // Milliseconds a second are tenths of a per cent.
            let cpu = cpu_before.zip(worker.cpu_ms).map(|(from, to)| rate(from, to, span) / 10.0);
            recent.cpu = cpu;
            recent.remember(span);
            self.recents.insert(worker.id, recent);
        }
        (self.sample, self.at) = (sample, at);
    }

    pub(super) fn status(&self) -> &Status {
        &self.sample
    }

    /// Connections a second over all workers; `None` before the second sample, and where workers
    /// accept by themselves.
    pub(super) fn conns(&self) -> Option<f64> {
        self.conns
    }

    /// How long ago the primary has answered.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    pub(super) fn ready(&self) -> usize {
        self.sample.workers.iter().filter(|worker| worker.state == "ready").count()
    }

    /// The reload that goes on, if one does.
    pub(super) fn reload(&self) -> Option<Reload> {
        let Status { reloads, workers, .. } = &self.sample;
        let row = reloads.iter().find(|reload| reload.result == "running")?;
        let generation = row.generation?;
        let is_new = |it: &&WorkerRow| it.generation == generation && it.state == "ready";
        let ready = workers.iter().filter(is_new).count();
        Some(Reload { generation, ready, seconds: row.ago_s })
    }

    /// The greatest rate in any worker's past.
    pub(super) fn peak(&self) -> f64 {
        let rates = self.recents.values().flat_map(|recent| &recent.history);
        rates.copied().fold(0.0, f64::max)
    }

    /// The workers, and the slots that have none.
    pub(super) fn rows(&self, sort: Sort) -> Vec<Row<'_>> {
        let Status { workers, slots, .. } = &self.sample;
        let workers = workers.iter().filter_map(|worker| {
            let recent = self.recents.get(&worker.id)?;
            Some(((worker.slot, worker.id), Row::Worker { worker, recent }))
        });
        let without = slots.iter().filter(|slot| slot.state != "filled");
        let without = without.map(|slot| ((slot.slot, u64::MAX), Row::Slot(slot)));
        let mut rows: Vec<_> = workers.chain(without).collect();
        rows.sort_by_key(|(place, _)| *place);
        if sort != Sort::Slot {
            rows.sort_by(|(_, a), (_, b)| sort.weight(b).total_cmp(&sort.weight(a)));
        }
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

impl Recent {
    /// Adds the rate of a time that has passed, once for each second of it.
    fn remember(&mut self, span: Duration) {
        let Some(conns) = self.conns else { return };
        let seconds = (span.as_secs_f64().round() as usize).clamp(1, SECONDS);
        self.history.extend(std::iter::repeat_n(conns, seconds));
        self.history.drain(..self.history.len().saturating_sub(SECONDS));
    }
}

/// Whether two samples are of one primary. In a container, each one may have the process id 1.
fn is_same(before: &PrimaryRow, after: &PrimaryRow) -> bool {
    before.pid == after.pid
        && before.uptime_s <= after.uptime_s
        && before.accepted_total <= after.accepted_total
}

/// Whether the primary sees the connections: it does not where workers accept by themselves.
fn counts(status: &Status) -> bool {
    let unseen = |name: &str| {
        Policy::ALL.into_iter().any(|policy| policy.name() == name && policy.workers_accept())
    };
    status.listeners.is_empty() || status.listeners.iter().any(|it| !unseen(&it.policy))
}

fn rate(from: u64, to: u64, span: Duration) -> f64 {
    to.saturating_sub(from) as f64 / span.as_secs_f64()
}
