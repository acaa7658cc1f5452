//! The state of the primary, for those who ask.

use std::time::Duration;

use roundel_core::{LastExit, ListenerId, SlotStage};

use super::{Metrics, PrimaryDriver, report};
use crate::observe::status::{
    GenerationRow, ListenerRow, PrimaryRow, ReloadRow, SlotRow, Status, WorkerRow,
};
use crate::unix::{limits, sys, usage};

/// How many reloads are shown.
const RELOADS: usize = 10;

impl PrimaryDriver {
    pub(super) fn status(&mut self) -> Status {
        // Counting takes a descriptor, which may have to come from the reserve.
        let open_fds = limits::open_fds()
            .or_else(|_| self.spawn_reserve.lend(limits::open_fds))
            .map_or(0, |count| count as u64);
        let totals = self.core.totals();
        let primary = PrimaryRow {
            pid: std::process::id(),
            uptime_s: self.now.since(self.started).as_secs(),
            pending: self.core.pending().into(),
            in_flight: self.core.in_flight().into(),
            accepted_total: totals.accepted,
            redispatched_total: totals.redispatched,
            declined_total: totals.declined,
            refused_total: totals.refused,
            unknown_total: totals.unknown,
            stalled_total: totals.stalled,
            messages_skipped_total: self.skipped,
            open_fds,
            rss_kb: limits::rss_kb().unwrap_or(0),
            metrics: self.metrics.as_ref().map(Metrics::place),
            wanted: self.core.wanted(),
            generation: self.core.generation(),
            paused: self.core.is_paused(),
            stopping: self.core.stop_deadline().is_some(),
        };
        let listeners = self.core.listeners().map(|listener| ListenerRow {
            address: match listener.sockname {
                Some(name) => name.to_string(),
                None => listener.key.address.to_string(),
            },
            policy: listener.policy.name().into(),
            pending: listener.pending.into(),
            accepting: listener.accepting,
            accept_queue: self.accept_queue(listener.id),
        });
        let workers = self.core.workers().map(|worker| WorkerRow {
            id: worker.id.get(),
            slot: worker.slot.0,
            pid: worker.pid,
            generation: worker.generation,
            state: worker.life.name().into(),
            codec: worker.codec.map(|codec| codec.name().into()),
            in_flight: worker.in_flight.into(),
            open: worker.open.map(u64::from),
            accepted: worker.accepted,
            declined: worker.declined,
            restarts: worker.restarts,
            last_exit: worker.last_exit.map(in_words),
            uptime_s: self.now.since(worker.spawned_at).as_secs(),
            cpu_ms: worker.pid.and_then(|pid| usage::cpu_ms(pid).ok()),
            rss_kb: worker.pid.and_then(|pid| usage::rss_kb(pid).ok()),
            lag_ms: worker.lag_ms.map(u64::from),
            stop_signal: worker.stop_signal.map(|signal| signal.name().to_owned()),
        });
        let workers: Vec<WorkerRow> = workers.collect();
        let slots = self.core.slots().map(|slot| SlotRow {
            slot: slot.slot.0,
            state: slot.stage.name().into(),
            worker: match slot.stage {
                SlotStage::Filled(id) => Some(id.get()),
                _ => None,
            },
            generation: slot.generation,
            restarts: slot.restarts,
            last_exit: slot.last_exit.map(in_words),
            next_in_ms: slot.next_at.map(|at| at.since(self.now).as_millis() as u64),
        });
        Status {
            primary,
            listeners: listeners.collect(),
            generations: GenerationRow::of(&workers),
            workers,
            slots: slots.collect(),
            reloads: self.reload_rows(),
        }
    }

    fn accept_queue(&self, listener: ListenerId) -> Option<u32> {
        let (length, _) = sys::accept_queue(self.sockets.get(&listener)?.as_fd()).ok()?;
        Some(length)
    }

    /// The last reloads: those that the machine began, and those that were refused before.
    fn reload_rows(&self) -> Vec<ReloadRow> {
        let millis = |time: Duration| time.as_millis() as u64;
        let began = self.core.reloads().map(|record| {
            let result = match (&record.failure, record.ended) {
                (Some(_), _) => "failed",
                (None, Some(_)) => "done",
                (None, None) => "running",
            };
            let row = ReloadRow {
                generation: Some(record.generation),
                result: result.into(),
                cause: record.failure.as_ref().map(report::reload_failure),
                ago_s: self.now.since(record.began).as_secs(),
                took_ms: record.ended.map(|at| millis(at.since(record.began))),
            };
            (record.began, row)
        });
        let refused = self.reloading.refused.iter().map(|refused| {
            let row = ReloadRow {
                generation: None,
                result: "failed".into(),
                cause: Some(refused.cause.clone()),
                ago_s: self.now.since(refused.at).as_secs(),
                took_ms: Some(0),
            };
            (refused.at, row)
        });
        let mut rows: Vec<_> = began.chain(refused).collect();
        rows.sort_by_key(|(at, _)| *at);
        // The oldest of those that have ended make room.
        let mut surplus = rows.len().saturating_sub(RELOADS);
        rows.retain(|(_, row)| {
            let goes = surplus > 0 && row.took_ms.is_some();
            surplus -= usize::from(goes);
            !goes
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

fn in_words(last: LastExit) -> String {
    match last.status {
        Some(status) => format!("{} ({status})", last.class.name()),
        None => last.class.name().into(),
    }
}
