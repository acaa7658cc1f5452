//! A worker in event loops: that of its program, and those of the calls that wait.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use roundel_runtime::worker::{Reminder, WorkerDriver};

/// Where a worker is registered. All that it consists of is registered under one token: the
/// channel, what tells of connections that wait and of panics on other threads, and, where this
/// process accepts by itself, its listeners.
#[derive(Debug)]
pub(super) struct Watches {
    reminder: Reminder,
    /// See [`Shared::panic_fd`](roundel_runtime::worker::Shared::panic_fd).
    panic_fd: Arc<OwnedFd>,
    /// Listeners that this process accepts from by itself.
    own: Vec<Arc<OwnedFd>>,
    /// Whether the channel is watched for room too.
    writes: bool,
    loops: Vec<Watch>,
    last: u64,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    registry: Registry,
    token: Token,
    interests: Interest,
}

impl Watch {
    fn add(&self, fd: &OwnedFd) -> io::Result<()> {
        SourceFd(&fd.as_raw_fd()).register(&self.registry, self.token, self.interests)
    }

    fn remove(&self, fd: &OwnedFd) {
        // Closed, it would be forgotten as well; but an older copy may live somewhere.
        let _ = SourceFd(&fd.as_raw_fd()).deregister(&self.registry);
    }

    /// What the channel is watched for.
    fn on_channel(&self, writes: bool) -> Interest {
        if writes { self.interests | Interest::WRITABLE } else { self.interests }
    }
}

impl Watches {
    /// In no event loop yet.
    pub(super) fn new(panic_fd: Arc<OwnedFd>) -> io::Result<Watches> {
        let reminder = Reminder::new()?;
        Ok(Watches { reminder, panic_fd, own: vec![], writes: false, loops: vec![], last: 0 })
    }

    /// To be called after everything that was done with the driver.
    pub(super) fn update(&mut self, driver: &WorkerDriver) {
        self.reminder.update(driver);
        let writes = driver.wants_write();
        if writes == self.writes {
            return;
        }
        let channel = driver.channel_fd().map(|fd| fd.as_raw_fd());
        let renewed = self.loops.iter().try_for_each(|watch| {
            let Some(raw) = channel else { return Ok(()) };
            let interests = watch.on_channel(writes);
            SourceFd(&raw).reregister(&watch.registry, watch.token, interests)
        });
        // For want of memory: then it is tried at the next call.
        self.writes ^= renewed.is_ok();
    }

    /// Registers the worker in an event loop; the number is for
    /// [`renew`](Watches::renew) and [`remove`](Watches::remove).
    pub(super) fn add(
        &mut self,
        driver: &WorkerDriver,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<u64> {
        self.last += 1;
        let watch = Watch { number: self.last, registry: registry.try_clone()?, token, interests };
        for fd in self.plain() {
            watch.add(fd)?;
        }
        // It may have ended.
        if let Some(channel) = driver.channel_fd() {
            let interests = watch.on_channel(self.writes);
            SourceFd(&channel.as_raw_fd()).register(registry, token, interests)?;
        }
        self.loops.push(watch);
        Ok(self.last)
    }

    /// Registers it anew.
    pub(super) fn renew(
        &mut self,
        driver: &WorkerDriver,
        number: u64,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let watch = self.loops.iter_mut().find(|watch| watch.number == number);
        let watch = watch.ok_or(io::ErrorKind::NotFound)?;
        (watch.token, watch.interests) = (token, interests);
        let on_channel = watch.on_channel(self.writes);
        for fd in self.plain() {
            SourceFd(&fd.as_raw_fd()).reregister(registry, token, interests)?;
        }
        let Some(channel) = driver.channel_fd() else { return Ok(()) };
        SourceFd(&channel.as_raw_fd()).reregister(registry, token, on_channel)
    }

    /// Deregisters it.
    pub(super) fn remove(&mut self, driver: &WorkerDriver, number: u64) -> io::Result<()> {
        let at = self.loops.iter().position(|watch| watch.number == number);
        let watch = self.loops.swap_remove(at.ok_or(io::ErrorKind::NotFound)?);
        self.plain().chain(driver.channel_fd()).for_each(|fd| watch.remove(fd));
        Ok(())
    }

    /// Watches a listener of this process's own.
    pub(super) fn open(&mut self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        self.own.push(Arc::clone(fd));
        self.loops.iter().try_for_each(|watch| watch.add(fd))
    }

    /// Watches it no longer.
    pub(super) fn close(&mut self, fd: &Arc<OwnedFd>) {
        self.own.retain(|own| !Arc::ptr_eq(own, fd));
        self.loops.iter().for_each(|watch| watch.remove(fd));
    }

    /// All but the channel.
    fn plain(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        self.own.iter().chain([self.reminder.fd(), &self.panic_fd])
    }
}
