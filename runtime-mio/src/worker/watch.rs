//! A worker in the event loop of its program.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use roundel_runtime::worker::{Reminder, WorkerDriver};

/// Where a worker is registered.
#[derive(Debug)]
pub(super) struct Watch {
    registry: Registry,
    token: Token,
    interests: Interest,
    /// Whether the channel is watched for room too.
    writes: bool,
    reminder: Reminder,
}

impl Watch {
    /// Registers a worker's channel and its reminder.
    pub(super) fn new(
        driver: &WorkerDriver,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<Watch> {
        let (registry, writes) = (registry.try_clone()?, driver.wants_write());
        let watch = Watch { registry, token, interests, writes, reminder: Reminder::new()? };
        watch.add(watch.reminder.fd().as_raw_fd())?;
        watch.on_channel(driver, |channel, interests| {
            channel.register(&watch.registry, token, interests)
        })?;
        Ok(watch)
    }

    /// Registers another descriptor under the worker's token.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        SourceFd(&fd).register(&self.registry, self.token, self.interests)
    }

    /// The other way round.
    pub(super) fn remove(&self, fd: RawFd) {
        // Closed, it would be forgotten as well; but an older copy may live somewhere.
        let _ = SourceFd(&fd).deregister(&self.registry);
    }

    /// To be called after everything that was done with the driver.
    pub(super) fn update(&mut self, driver: &WorkerDriver) {
        self.reminder.update(driver);
        let wants_write = driver.wants_write();
        if wants_write != self.writes {
            self.writes = wants_write;
            let renewed = self.on_channel(driver, |channel, interests| {
                channel.reregister(&self.registry, self.token, interests)
            });
            // For want of memory: then it is tried at the next call.
            self.writes ^= renewed.is_err();
        }
    }

    /// Registers anew what [`new`](Watch::new) has registered.
    pub(super) fn renew(
        &mut self,
        driver: &WorkerDriver,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        (self.token, self.interests) = (token, interests);
        self.writes = driver.wants_write();
        let reminder = self.reminder.fd().as_raw_fd();
        SourceFd(&reminder).reregister(registry, token, interests)?;
        self.on_channel(driver, |channel, interests| channel.reregister(registry, token, interests))
    }

    /// Deregisters that.
    pub(super) fn end(self, driver: &WorkerDriver, registry: &Registry) -> io::Result<()> {
        self.remove(self.reminder.fd().as_raw_fd());
        self.on_channel(driver, |channel, _| channel.deregister(registry))
    }

    fn on_channel(
        &self,
        driver: &WorkerDriver,
        act: impl FnOnce(&mut SourceFd<'_>, Interest) -> io::Result<()>,
    ) -> io::Result<()> {
        // It may have ended.
        let Some(channel) = driver.channel_fd() else { return Ok(()) };
        let room = self.writes.then_some(Interest::WRITABLE);
        let interests = room.map_or(self.interests, |room| self.interests | room);
        act(&mut SourceFd(&channel.as_raw_fd()), interests)
    }
}
