//! State shared by a worker and its listeners: the driver, and the tasks that wait for news of it.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use roundel_core::ListenKey;
use roundel_runtime::worker::{Listener, Shared, WorkerDriver};

use super::waiters::{Waiter, Waiters};
use crate::watch::Watched;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    channel: Option<Watched>,
    /// See [`Shared::panic_fd`].
    panic_fd: Watched,
    /// See [`WorkerDriver::load_fd`].
    load_fd: Option<Watched>,
    waiters: Arc<Waiters>,
    /// Asks whose tasks no longer wait for the answer.
    abandoned: Mutex<Vec<u32>>,
}

impl Inner {
    pub(super) fn new(driver: WorkerDriver) -> io::Result<Arc<Inner>> {
        let waiters = Arc::new(Waiters::default());
        let waker = || Waker::from(Arc::clone(&waiters));
        let channel = driver.channel_fd().cloned();
        let channel = channel.map(|fd| Watched::new(fd, waker())).transpose()?;
        let load_fd = driver.load_fd().cloned();
        let load_fd = load_fd.map(|fd| Watched::new(fd, waker())).transpose()?;
        let shared = Shared::new(driver)?;
        let panic_fd = Watched::new(Arc::clone(shared.panic_fd()), waker())?;
        let abandoned = Mutex::default();
        Ok(Arc::new(Inner { shared, channel, panic_fd, load_fd, waiters, abandoned }))
    }

    pub(super) fn waiter(&self) -> Waiter {
        Waiter::new(&self.waiters)
    }

    /// Watches the listener of a program that accepts by itself.
    pub(super) fn watch(&self, fd: &Arc<OwnedFd>) -> io::Result<Watched> {
        Watched::new(Arc::clone(fd), Waker::from(Arc::clone(&self.waiters)))
    }

    /// Runs a function on the driver, and wakes all waiting tasks if that brought news.
    pub(super) fn with<R>(
        &self,
        who: Option<&Waiter>,
        act: impl FnOnce(&mut WorkerDriver) -> R,
    ) -> R {
        let (result, is_news) = self.shared.with(|driver| {
            let before = driver.news();
            let result = act(driver);
            self.clear_abandoned(driver);
            (result, driver.news() != before)
        });
        if is_news {
            self.waiters.wake_but(who);
        }
        result
    }

    /// Calls `look`. If it finds nothing, reads the channel once, unless that is known to be empty,
    /// and calls `look` again. The task is woken whenever there may be something to find: the
    /// channel is armed before each wait, and that wakes at once if more is there.
    pub(super) fn poll<R>(
        &self,
        who: &Waiter,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut WorkerDriver) -> Option<R>,
    ) -> Poll<io::Result<R>> {
        who.register(cx.waker());
        let (is_in_cluster, wants_write, is_failing) = loop {
            let is_failing = self.shared.is_failing();
            let (found, is_in_cluster, wants_write) = self.with(Some(who), |driver| {
                let mut found = look(driver);
                if found.is_none() && (self.waiters.may_read() || driver.wants_write()) {
                    driver.turn_once();
                    found = look(driver);
                }
                (found, driver.is_in_cluster(), driver.wants_write())
            });
            if let Some(found) = found {
                who.withdraw();
                return Poll::Ready(Ok(found));
            }
            // The effects of a panic come at the end of `with`, and this check has not seen them.
            if is_failing == self.shared.is_failing() {
                break (is_in_cluster, wants_write, is_failing);
            }
        };
        if is_in_cluster && let Some(channel) = &self.channel {
            channel.arm(true, wants_write)?;
        }
        if is_in_cluster && let Some(load_fd) = &self.load_fd {
            load_fd.arm(true, false)?;
        }
        // After a panic this descriptor stays ready, and would wake the task again and again.
        if !is_failing {
            self.panic_fd.arm(true, false)?;
        }
        Poll::Pending
    }

    /// Waits until `look` finds something.
    pub(super) async fn wait_for<R>(
        &self,
        mut look: impl FnMut(&mut WorkerDriver) -> Option<R>,
    ) -> io::Result<R> {
        let who = self.waiter();
        poll_fn(|cx| self.poll(&who, cx, &mut look)).await
    }

    /// Asks to listen. If this is dropped before the answer, the ask has no effect.
    pub(super) async fn ask(&self, key: ListenKey) -> io::Result<Listener> {
        let ask = self.with(None, |driver| driver.ask(key, 0, Vec::new()));
        let mut asking = Asking { inner: self, ask: Some(ask) };
        let answer = self.wait_for(|driver| driver.answer(ask)).await?;
        asking.ask = None;
        answer
    }

    fn clear_abandoned(&self, driver: &mut WorkerDriver) {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.retain(|ask| match driver.answer(*ask) {
            Some(Ok(listener)) => {
                driver.close(listener);
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
    }
}

struct Asking<'a> {
    inner: &'a Inner,
    ask: Option<u32>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(ask) = self.ask {
            self.inner.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(ask);
            // The answer may be there already.
            self.inner.with(None, |_| ());
        }
    }
}
