//! The tasks that wait for news of a worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The waiting tasks. As a waker, this wakes all of them, no matter what each waits for: they are
/// few.
#[derive(Debug)]
pub(super) struct Waiters {
    waiting: Mutex<Vec<(u64, Waker)>>,
    last: AtomicU64,
    may_read: AtomicBool,
}

impl Default for Waiters {
    fn default() -> Waiters {
        let waiting = Mutex::default();
        Waiters { waiting, last: AtomicU64::new(0), may_read: AtomicBool::new(true) }
    }
}

impl Waiters {
    /// True if there may be something to read, as far as the last wake shows. Arm the channel
    /// before the next wait: more may be there than one read brings.
    pub(super) fn may_read(&self) -> bool {
        self.may_read.swap(false, Ordering::SeqCst)
    }

    /// Wakes all tasks but the one that knows already.
    pub(super) fn wake_but(&self, knows: Option<&Waiter>) {
        let knows = knows.map(|waiter| waiter.id);
        let woken: Vec<Waker> = {
            let mut waiting = self.lock();
            waiting.extract_if(.., |(id, _)| Some(*id) != knows).map(|(_, waker)| waker).collect()
        };
        // Outside the lock, because a waker may do anything.
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.may_read.store(true, Ordering::SeqCst);
        self.wake_but(None);
    }
}

/// A waiting task, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    id: u64,
    waiters: Arc<Waiters>,
}

impl Waiter {
    pub(super) fn new(waiters: &Arc<Waiters>) -> Waiter {
        let id = waiters.last.fetch_add(1, Ordering::Relaxed);
        Waiter { id, waiters: Arc::clone(waiters) }
    }

    /// Waits with this waker from now on. Call it before checking for what is awaited: then nothing
    /// that comes between the check and the wait is missed.
    pub(super) fn register(&self, waker: &Waker) {
        let mut waiting = self.waiters.lock();
        match waiting.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, before)) => before.clone_from(waker),
            None => waiting.push((self.id, waker.clone())),
        }
    }

    /// Stops waiting.
    pub(super) fn withdraw(&self) {
        self.waiters.lock().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.withdraw();
    }
}
