//! Looks at the workers' memory now and then, if it is limited.

use std::time::Duration;

use roundel_core::{Input, Time};

use super::PrimaryDriver;
use crate::unix::usage;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

impl PrimaryDriver {
    pub(super) fn sample_due(&self) -> Option<Time> {
        self.core.config().max_memory().map(|_| self.sample_at)
    }

    pub(super) fn sample_memory(&mut self) {
        if self.sample_due().is_none_or(|at| at > self.now) {
            return;
        }
        self.sample_at = self.now + EVERY;
        let living = self.pids.iter().filter(|(id, pid)| self.workers_by_pid.get(pid) == Some(id));
        let sample = |(id, pid): (&_, &_)| Some((*id, usage::rss_kb(*pid).ok()?));
        let samples: Vec<_> = living.filter_map(sample).collect();
        for (worker, kb) in samples {
            self.input(Input::Memory { worker, bytes: kb * 1024 });
        }
    }
}
