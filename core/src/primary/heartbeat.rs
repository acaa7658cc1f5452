//! Heartbeats: a native worker that does not answer is killed.

use super::Primary;
use super::state::WorkerKind;
use crate::ExitClass;
use crate::WorkerId;
use crate::timers::Due;

/// How many pings in a row a worker may leave unanswered.
const MISSED: u32 = 2;

impl Primary {
    /// A worker has become online: asks it for a sign of life from now on.
    pub(super) fn expect_heartbeat(&mut self, id: WorkerId) {
        let native = self.workers.get(id).is_some_and(|it| it.kind == Some(WorkerKind::Native));
        if let Some(every) = self.config.heartbeat.filter(|_| native) {
            self.timers.set(Due::Heartbeat(id), self.now + every);
        }
    }

    pub(super) fn on_heartbeat_due(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if !worker.life.is_staying() {
            return;
        }
        if self.config.heartbeat.is_none() {
            return;
        }
        if worker.missed >= MISSED {
            return self.kill(id, ExitClass::Unresponsive, None);
        }
        worker.missed += 1;
        self.ping(id);
        self.expect_heartbeat(id);
    }

    /// The primary could not read what workers may have sent long ago, so their time starts again.
    pub(super) fn renew_heartbeats(&mut self) {
        let Some(every) = self.config.heartbeat else { return };
        let set = self.timers.iter().map(|(_, due)| due);
        let set: alloc::vec::Vec<Due> = set.filter(|it| matches!(it, Due::Heartbeat(_))).collect();
        for due in set {
            self.timers.set(due, self.now + every);
        }
    }
}
