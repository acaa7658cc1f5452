//! State shared by a worker and its listeners: the driver, and the event loops that wait for it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mio::{Events, Interest, Poll, Registry, Token};
use roundel_runtime::worker::{Listener, Shared, WorkerDriver};

use super::watches::Watches;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    watches: Mutex<Watches>,
    /// For calls that wait: one event loop each, because an edge of one `Poll` wakes only one
    /// thread.
    idle: Mutex<Vec<Waiting>>,
}

/// The event loop of one waiting call.
#[derive(Debug)]
struct Waiting {
    poll: Poll,
    events: Events,
}

impl Inner {
    pub(super) fn new(driver: WorkerDriver) -> io::Result<Arc<Inner>> {
        let shared = Shared::new(driver)?;
        let watches = Watches::new(&shared)?;
        let inner = Inner { shared, watches: Mutex::new(watches), idle: Mutex::default() };
        // Open the first one while there are descriptors for it.
        let first = inner.new_waiting()?;
        lock(&inner.idle).push(first);
        Ok(Arc::new(inner))
    }

    /// Runs a function on the driver, and then shows all event loops what is left.
    pub(super) fn act<R>(&self, act: impl FnOnce(&mut WorkerDriver) -> R) -> R {
        self.shared.with(|driver| {
            let result = act(driver);
            lock(&self.watches).update(driver);
            result
        })
    }

    /// Calls `look` until it finds something, which may include reading the channel, and waits in
    /// between; `None` if nothing has come by the deadline.
    pub(super) fn wait_for<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut WorkerDriver) -> Option<R>,
    ) -> io::Result<Option<R>> {
        let idle = lock(&self.idle).pop();
        let mut waiting = idle.map_or_else(|| self.new_waiting(), Ok)?;
        let result = loop {
            if let Some(found) = self.act(&mut look) {
                break Ok(Some(found));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break Ok(None);
            }
            match waiting.poll.poll(&mut waiting.events, left) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break Err(error),
                _ => {}
            }
        };
        lock(&self.idle).push(waiting);
        result
    }

    fn new_waiting(&self) -> io::Result<Waiting> {
        let poll = Poll::new()?;
        self.add(poll.registry(), Token(0), Interest::READABLE)?;
        Ok(Waiting { poll, events: Events::with_capacity(16) })
    }

    /// Registers the worker in an event loop, under a number.
    pub(super) fn add(
        &self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<u64> {
        self.shared.with(|driver| {
            let mut watches = lock(&self.watches);
            let number = watches.add(driver, registry, token, interests)?;
            watches.update(driver);
            Ok(number)
        })
    }

    /// Registers the worker again with other settings.
    pub(super) fn renew(
        &self,
        number: u64,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.shared
            .with(|driver| lock(&self.watches).renew(driver, number, registry, token, interests))
    }

    /// Deregisters the worker.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        self.shared.with(|driver| lock(&self.watches).remove(driver, number))
    }

    /// Watches a listener from which this process accepts by itself.
    pub(super) fn open(&self, listener: &Listener) -> io::Result<()> {
        listener.own_fd().map_or(Ok(()), |fd| lock(&self.watches).open(fd))
    }

    /// Takes no more connections of a listener.
    pub(super) fn close(&self, listener: &Listener) {
        if let Some(fd) = listener.own_fd() {
            lock(&self.watches).close(fd);
        }
        self.act(|driver| driver.close(listener.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
