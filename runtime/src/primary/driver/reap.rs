//! Ended processes, and the processes that they leave behind.

use roundel_core::Input;

use super::PrimaryDriver;

impl PrimaryDriver {
    pub(super) fn reap(&mut self) {
        for (pid, status) in self.groups.reap(self.now) {
            // Not every child is a worker: as process 1 the primary also gets orphans.
            if let Some(worker) = self.workers_by_pid.remove(&pid) {
                self.input(Input::Exited { worker, status });
            }
        }
    }

    /// Ends processes left behind by ended workers. Reaping again is needed if an unreaped group
    /// leader hid other children.
    pub(super) fn end_groups(&mut self) {
        if self.groups.turn(self.now, self.core.stop_deadline()) {
            self.reap();
        }
    }
}
