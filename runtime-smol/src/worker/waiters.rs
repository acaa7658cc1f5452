//! The tasks that wait for a worker's news.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The tasks that wait. As a waker it wakes all of them, no matter what each waits for: they are
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
    /// Whether something may be there to read. Whoever asks reads until it would block, before
    /// anybody else asks.
    pub(super) fn may_read(&self) -> bool {
        self.may_read.swap(false, Ordering::SeqCst)
    }

    /// Something may be there to read.
    pub(super) fn expect_more(&self) {
        self.may_read.store(true, Ordering::SeqCst);
    }

    /// Wakes all but one: that one knows already.
    pub(super) fn wake_but(&self, knows: Option<&Waiter>) {
        let knows = knows.map(|waiter| waiter.id);
        let woken: Vec<Waker> = {
            let mut waiting = self.lock();
            waiting.extract_if(.., |(id, _)| Some(*id) != knows).map(|(_, waker)| waker).collect()
        };
        // Outside the lock, since a waker may do anything.
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
        self.expect_more();
        self.wake_but(None);
    }
}

/// One who waits, until it is dropped.
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

    /// Waits with this waker from now on. To be called before looking for what is waited for:
    /// what comes between the look and the wait is then not missed.
    pub(super) fn register(&self, waker: &Waker) {
        let mut waiting = self.waiters.lock();
        match waiting.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, before)) => before.clone_from(waker),
            None => waiting.push((self.id, waker.clone())),
        }
    }

    /// Waits no longer.
    pub(super) fn withdraw(&self) {
        self.waiters.lock().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.withdraw();
    }
}
