//! Threads that do for the primary what takes long. They share one descriptor that says that one of
//! them has an answer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::PrimaryDriver;

/// The descriptor, readable after [`notify`].
pub(super) fn signal() -> io::Result<Arc<OwnedFd>> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(Arc::new(EventFd::from_value_and_flags(0, flags)?.into()))
}

/// Says that a thread has an answer.
pub(super) fn notify(helpers: &OwnedFd) {
    // It can fail only if it is readable already (eventfd(2)).
    let _ = nix::unistd::write(helpers, &1_u64.to_ne_bytes());
}

impl PrimaryDriver {
    pub(super) fn on_helpers(&mut self) {
        let _ = nix::unistd::read(self.reloading.helpers(), &mut [0; 8]);
        self.on_counted();
        self.on_reread();
    }
}
