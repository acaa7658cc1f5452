//! The primary's event loop on mio: register, wait, call back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use roundel_runtime::exit::Exit;
use roundel_runtime::primary::EventLoop;
use roundel_runtime::primary::driver::{Change, PrimaryDriver, Source};
use roundel_runtime::unix::clock;

/// How many events one wait takes.
const EVENTS: usize = 256;

/// The event loop, as the type parameter of [`Primary`](crate::Primary).
#[derive(Debug)]
pub enum Reactor {}

impl EventLoop for Reactor {
    fn run(driver: PrimaryDriver) -> io::Result<Exit> {
        run(driver)
    }
}

/// Runs a primary to its end.
///
/// # Errors
/// If epoll(7) is not available or fails; no input causes that.
pub fn run(mut driver: PrimaryDriver) -> io::Result<Exit> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut watched: BTreeMap<Source, Arc<OwnedFd>> = BTreeMap::new();
    loop {
        while let Some(change) = driver.next_change() {
            apply(&poll, &mut watched, change)?;
        }
        if let Some(exit) = driver.finished() {
            return Ok(exit);
        }
        let timeout = timeout(&driver);
        look(&mut poll, &mut events, &mut driver, timeout)?;
        // A deadline is judged by a clock that was read before the last check for readiness. So
        // even if the primary was stopped in between (signal(7)), no answer that came in time is
        // overlooked.
        let now = clock::now();
        if driver.deadline().is_some_and(|at| at <= now) {
            look(&mut poll, &mut events, &mut driver, Some(Duration::ZERO))?;
        }
        driver.turn(now);
    }
}

/// Waits, and passes on everything that is ready.
fn look(
    poll: &mut Poll,
    events: &mut Events,
    driver: &mut PrimaryDriver,
    mut timeout: Option<Duration>,
) -> io::Result<()> {
    loop {
        let interrupted = match poll.poll(events, timeout) {
            // This also happens if the primary was stopped and continued (signal(7)): nothing was
            // checked.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            other => other.map(|()| false)?,
        };
        let mut count = 0;
        for event in &*events {
            count += 1;
            if let Some(source) = Source::from_token(event.token().0 as u64) {
                driver.on_ready(source);
            }
        }
        if count < EVENTS && !interrupted {
            return Ok(());
        }
        timeout = Some(Duration::ZERO);
    }
}

fn timeout(driver: &PrimaryDriver) -> Option<Duration> {
    if driver.has_work() {
        return Some(Duration::ZERO);
    }
    // Bounded, because epoll_wait(2) counts milliseconds in an int.
    driver.deadline().map(|at| at.since(clock::now()).min(Duration::from_secs(3600)))
}

fn apply(
    poll: &Poll,
    watched: &mut BTreeMap<Source, Arc<OwnedFd>>,
    change: Change,
) -> io::Result<()> {
    let registry = poll.registry();
    let token = |source: Source| Token(source.to_token() as usize);
    let interest = |writable| {
        if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
    };
    match change {
        Change::Watch { source, fd, writable } => {
            let raw = fd.as_raw_fd();
            registry.register(&mut SourceFd(&raw), token(source), interest(writable))?;
            watched.insert(source, fd);
        }
        Change::Rewatch { source, writable } => {
            if let Some(fd) = watched.get(&source) {
                let raw = fd.as_raw_fd();
                registry.reregister(&mut SourceFd(&raw), token(source), interest(writable))?;
            }
        }
        Change::Unwatch { source } => {
            if let Some(fd) = watched.remove(&source) {
                registry.deregister(&mut SourceFd(&fd.as_raw_fd()))?;
            }
        }
    }
    Ok(())
}
