//! Ended processes, and what they leave behind.

use roundel_core::Input;

use super::PrimaryDriver;

impl PrimaryDriver {
    pub(super) fn reap(&mut self) {
        for (pid, status) in self.groups.reap(self.now) {
            // A stranger may be here because the primary is process 1.
            if let Some(worker) = self.workers_by_pid.remove(&pid) {
                self.input(Input::Exited { worker, status });
            }
        }
    }

    /// Ends what leaders left behind. An unreaped leader may have stood before other children.
    pub(super) fn end_groups(&mut self) {
        if self.groups.turn(self.now, self.core.stop_deadline()) {
            self.reap();
        }
    }
}
