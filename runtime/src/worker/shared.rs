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
    /// A panic has happened, and the primary must be told.
    failing: AtomicBool,
    panic_fd: Arc<OwnedFd>,
}

impl Shared {
    /// Puts a driver behind a lock.
    ///
    /// # Errors
    /// As eventfd(2): usually because descriptors ran out.
    pub fn new(driver: WorkerDriver) -> io::Result<Arc<Shared>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let panic_fd = Arc::new(EventFd::from_value_and_flags(0, flags)?.into());
        let failing = AtomicBool::new(false);
        Ok(Arc::new(Shared { driver: Mutex::new(driver), failing, panic_fd }))
    }

    /// Becomes ready to read at every panic: a waiting event loop then checks again what to watch,
    /// and whether to leave. Watch it for edges; it is never read.
    pub fn panic_fd(&self) -> &Arc<OwnedFd> {
        &self.panic_fd
    }

    /// Runs a function on the driver. The function must not wait.
    pub fn with<R>(&self, act: impl FnOnce(&mut WorkerDriver) -> R) -> R {
        // Dropped in reverse: the lock is released first, then the flag is checked, also when `act`
        // panics. So a panic that finds the lock taken can leave it to its holder.
        let _tells = TellsFailure(self);
        let mut driver = self.lock();
        act(&mut driver)
    }

    /// Makes a panic on any thread of this process start this worker's replacement, before the
    /// current panic hook runs. Never waits: if the lock is taken, its holder tells the primary
    /// afterwards; if the process ends, the primary learns of it by the end of the channel.
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

    /// True if a panic has happened.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// What a panic calls.
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
