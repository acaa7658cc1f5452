//! A member that a panic on any thread can reach.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Member;

/// A [`Member`] behind a lock.
#[derive(Debug)]
pub struct Shared {
    member: Mutex<Member>,
    /// A panic happened, and is to be told.
    failing: AtomicBool,
}

impl Shared {
    /// Puts a member behind a lock.
    pub fn new(member: Member) -> Arc<Shared> {
        Arc::new(Shared { member: Mutex::new(member), failing: AtomicBool::new(false) })
    }

    /// Does something with the member. Nothing in there may wait.
    pub fn with<R>(&self, act: impl FnOnce(&mut Member) -> R) -> R {
        let result = {
            let mut member = self.lock();
            act(&mut member)
        };
        // A panic that found the lock taken has left it to us.
        self.tell_failure();
        result
    }

    /// Has a panic on any thread of this process start this worker's replacement, in front of the
    /// hook that is set now. Never waits: if the lock is taken, whoever holds it tells the primary
    /// afterwards, and a process that ends is told by the end of its channel.
    pub fn suicide_on_panic(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(shared) = shared.upgrade() {
                shared.failing.store(true, Ordering::SeqCst);
                shared.tell_failure();
            }
            previous(info);
        }));
    }

    /// Whether a panic has happened.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    fn tell_failure(&self) {
        if !self.is_failing() {
            return;
        }
        match self.member.try_lock() {
            Ok(mut member) => member.suicide(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().suicide(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
