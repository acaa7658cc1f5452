//! A driver that a panic on any thread can reach.

use std::io;
use std::os::fd::OwnedFd;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::WorkerDriver;

/// A [`WorkerDriver`] behind a lock.
#[derive(Debug)]
pub struct Shared {
    driver: Mutex<WorkerDriver>,
    /// A panic happened, and is to be told.
    failing: AtomicBool,
    panic_fd: Arc<OwnedFd>,
}

impl Shared {
    /// Puts a driver behind a lock.
    ///
    /// # Errors
    /// As eventfd(2): mostly for want of descriptors.
    pub fn new(driver: WorkerDriver) -> io::Result<Arc<Shared>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let panic_fd = Arc::new(EventFd::from_value_and_flags(0, flags)?.into());
        let failing = AtomicBool::new(false);
        Ok(Arc::new(Shared { driver: Mutex::new(driver), failing, panic_fd }))
    }

    /// Becomes ready to read at every panic: an event loop that waits then looks again what it is
    /// to watch, and whether to leave. Watch it for edges; it is never read.
    pub fn panic_fd(&self) -> &Arc<OwnedFd> {
        &self.panic_fd
    }

    /// Does something with the driver. Nothing in there may wait.
    pub fn with<R>(&self, act: impl FnOnce(&mut WorkerDriver) -> R) -> R {
        // Dropped in reverse: the lock is let go first, then the flag is looked at, also when
        // `act` panics. So a panic that finds the lock taken can leave it to its holder.
        let _tells = TellsFailure(self);
        let mut driver = self.lock();
        act(&mut driver)
    }

    /// Has a panic on any thread of this process start this worker's replacement, in front of the
    /// hook that is set now. Never waits: if the lock is taken, whoever holds it tells the primary
    /// afterwards, and a process that ends is told by the end of its channel.
    pub fn replace_on_panic(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(shared) = shared.upgrade() {
                shared.fail();
            }
            previous(info);
        }));
    }

    /// Whether a panic has happened.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// What a panic does.
    pub(super) fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
        self.tell_failure();
        // Full only after 2^64 panics (eventfd(2)).
        let _ = nix::unistd::write(&self.panic_fd, &1_u64.to_ne_bytes());
    }

    fn tell_failure(&self) {
        if !self.is_failing() {
            return;
        }
        match self.driver.try_lock() {
            Ok(mut driver) => driver.request_replacement(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().request_replacement(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, WorkerDriver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TellsFailure<'a>(&'a Shared);

impl Drop for TellsFailure<'_> {
    fn drop(&mut self) {
        self.0.tell_failure();
    }
}
