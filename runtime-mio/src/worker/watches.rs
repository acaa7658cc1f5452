//! A worker in event loops: the program's own, and those of the calls that wait.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use roundel_runtime::worker::{Reminder, Shared, WorkerDriver};

/// The event loops in which a worker is registered. All its descriptors are registered under one
/// token: the channel; the descriptors that report waiting connections, panics on other threads, and
/// that the number of open connections must be told; and, if this process accepts by itself, its
/// listeners.
#[derive(Debug)]
pub(super) struct Watches {
    reminder: Reminder,
    /// See [`Shared::panic_fd`](roundel_runtime::worker::Shared::panic_fd).
    panic_fd: Arc<OwnedFd>,
    /// See [`WorkerDriver::load_fd`].
    load_fd: Option<Arc<OwnedFd>>,
    /// Listeners that this process accepts from by itself.
    own: Vec<Arc<OwnedFd>>,
    /// Whether the channel is also watched for room to write.
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
        // Closing the descriptor would deregister it too, but a copy of it may still be open
        // somewhere.
        let _ = SourceFd(&fd.as_raw_fd()).deregister(&self.registry);
    }

    /// The readiness for which the channel is watched.
    fn on_channel(&self, writes: bool) -> Interest {
        if writes { self.interests | Interest::WRITABLE } else { self.interests }
    }
}

impl Watches {
    /// A worker that is in no event loop yet.
    pub(super) fn new(shared: &Shared) -> io::Result<Watches> {
        Ok(Watches {
            reminder: Reminder::new()?,
            panic_fd: Arc::clone(shared.panic_fd()),
            load_fd: shared.with(|driver| driver.load_fd().cloned()),
            own: vec![],
            writes: false,
            loops: vec![],
            last: 0,
        })
    }

    /// Updates the registrations. Call it after every call to the driver.
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
        // If memory ran out, the next call tries again.
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
        // The channel may have ended.
        if let Some(channel) = driver.channel_fd() {
            let interests = watch.on_channel(self.writes);
            SourceFd(&channel.as_raw_fd()).register(registry, token, interests)?;
        }
        self.loops.push(watch);
        Ok(self.last)
    }

    /// Registers the worker again with other settings.
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

    /// Deregisters the worker.
    pub(super) fn remove(&mut self, driver: &WorkerDriver, number: u64) -> io::Result<()> {
        let at = self.loops.iter().position(|watch| watch.number == number);
        let watch = self.loops.swap_remove(at.ok_or(io::ErrorKind::NotFound)?);
        self.plain().chain(driver.channel_fd()).for_each(|fd| watch.remove(fd));
        Ok(())
    }

    /// Watches a listener from which this process accepts by itself.
    pub(super) fn open(&mut self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        self.own.push(Arc::clone(fd));
        self.loops.iter().try_for_each(|watch| watch.add(fd))
    }

    /// Stops watching such a listener.
    pub(super) fn close(&mut self, fd: &Arc<OwnedFd>) {
        self.own.retain(|own| !Arc::ptr_eq(own, fd));
        self.loops.iter().for_each(|watch| watch.remove(fd));
    }

    /// All descriptors but the channel.
    fn plain(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        self.own.iter().chain([self.reminder.fd(), &self.panic_fd]).chain(&self.load_fd)
    }
}
