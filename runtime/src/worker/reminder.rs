//! What wakes an event loop that may have missed news.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::driver::WorkerDriver;
use super::news::{News, Standing};

/// A descriptor that stays ready to read while something waits that an event loop may not know of.
/// Such a loop waits for edges. The channel's edges are used up as soon as the channel is read,
/// usually by a call that asked for something else.
///
/// The rule: after each call there is an edge for whatever can be taken and came since the last
/// edge, and for whatever is left after a call that took something. So a loop sleeps beside a
/// connection only if it was woken after that connection came and did not ask for it. When nothing
/// is left, the edge is withdrawn.
#[derive(Debug)]
pub struct Reminder {
    fd: Arc<OwnedFd>,
    is_raised: bool,
    /// The edge is not only for connections, so it stays when these are taken.
    stays: bool,
    /// The state at the last call.
    news: News,
    given: u64,
}

impl Reminder {
    /// A reminder that has seen nothing yet.
    ///
    /// # Errors
    /// As eventfd(2): usually because descriptors ran out.
    pub fn new() -> io::Result<Reminder> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let fd = Arc::new(EventFd::from_value_and_flags(0, flags)?.into());
        let news =
            News { came: 0, standing: Standing::Serving, is_drained: false, awaits_ack: false };
        Ok(Reminder { fd, is_raised: false, stays: false, news, given: 0 })
    }

    /// The descriptor. Watch it for edges, like the channel.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Updates the descriptor. Call it after every call to the driver.
    pub fn update(&mut self, driver: &WorkerDriver) {
        let (news, given) = (driver.news(), driver.given());
        let known = std::mem::replace(&mut self.news, news);
        let is_change = (news, given) != (known, std::mem::replace(&mut self.given, given));
        let ends = News { came: known.came, ..news } != known;
        if ends || (is_change && driver.unread() > 0) {
            self.stays |= ends;
            self.is_raised = true;
            // It is full only after 2^64 writes (eventfd(2)).
            let _ = nix::unistd::write(self.fd.as_fd(), &1_u64.to_ne_bytes());
        } else if self.is_raised && !self.stays && driver.unread() == 0 {
            self.is_raised = false;
            // The counter is not zero, so this does not fail.
            let _ = nix::unistd::read(self.fd.as_fd(), &mut [0; 8]);
        }
    }
}
