//! What a program that waits may have to look at again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::WorkerDriver;

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It serves.
    Serving,
    /// The primary wants it to leave: serve what has arrived, finish, exit.
    Draining {
        /// It is killed then; `None` if it may take as long as it wants.
        deadline: Option<Instant>,
    },
    /// It asked to leave, or fails: finish what there is, exit.
    Leaving,
    /// The primary is gone: finish what there is, exit.
    Alone,
}

/// How far a [`WorkerDriver`] has got. If two values differ, something came in between that anybody
/// who waits may be waiting for: a connection, an answer, room in the channel, the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    pub(super) came: u64,
    pub(super) standing: Standing,
    pub(super) is_drained: bool,
    pub(super) awaits_ack: bool,
}

/// A descriptor that becomes ready to read for as long as something waits that an event loop may
/// not know of. Such a loop waits for edges, and those of the channel are used up as soon as it is
/// read: by a call that asked for something else, mostly.
///
/// The rule: after each call, what can be taken and came since the last edge makes an edge, and so
/// does what is left after a call that took something. So a loop sleeps beside a connection only if
/// it was woken after that had come, and did not ask for it. When nothing is left, the edge is
/// taken back.
#[derive(Debug)]
pub struct Reminder {
    fd: Arc<OwnedFd>,
    is_raised: bool,
    /// It tells of more than connections, so it can't be taken back when these are taken.
    stays: bool,
    /// What was known at the last call.
    news: News,
    given: u64,
}

impl Reminder {
    /// One that does not know of anything yet.
    ///
    /// # Errors
    /// As eventfd(2): mostly for want of descriptors.
    pub fn new() -> io::Result<Reminder> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let fd = Arc::new(EventFd::from_value_and_flags(0, flags)?.into());
        let news =
            News { came: 0, standing: Standing::Serving, is_drained: false, awaits_ack: false };
        Ok(Reminder { fd, is_raised: false, stays: false, news, given: 0 })
    }

    /// To be watched for edges, as the channel is.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// To be called after everything that was done with the driver.
    pub fn update(&mut self, driver: &WorkerDriver) {
        let (news, given) = (driver.news(), driver.given());
        let known = std::mem::replace(&mut self.news, news);
        let is_change = (news, given) != (known, std::mem::replace(&mut self.given, given));
        let ends = News { came: known.came, ..news } != known;
        if ends || (is_change && driver.unread() > 0) {
            self.stays |= ends;
            self.is_raised = true;
            // Full only after 2^64 times (eventfd(2)).
            let _ = nix::unistd::write(self.fd.as_fd(), &1_u64.to_ne_bytes());
        } else if self.is_raised && !self.stays && driver.unread() == 0 {
            self.is_raised = false;
            // It holds something, so this does not fail.
            let _ = nix::unistd::read(self.fd.as_fd(), &mut [0; 8]);
        }
    }
}
