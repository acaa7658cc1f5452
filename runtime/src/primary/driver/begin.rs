//! What is done once, between the binding of the operator's listeners and the first worker.

use super::PrimaryDriver;
use crate::exit::Exit;

impl PrimaryDriver {
    /// True if workers may start. The first call gives up what only binding needed: listeners of a
    /// former primary that have no place in this one, and the identity of the start.
    pub(super) fn begin(&mut self) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            self.drop_stored();
            if let Some(identity) = self.identity.take()
                && let Err(error) = identity.take_on()
            {
                // Part of the old privileges may be left: no program may run with them.
                self.say(&format!("--user, --group: the privileges can't be dropped: {error}"));
                self.console.flush();
                self.exit = Some(Exit::Failure);
            }
        }
        self.exit.is_none()
    }
}
