//! The primary's event loop on async-io: register, wait, call back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use roundel_core::Time;
use roundel_runtime::exit::Exit;
use roundel_runtime::primary::EventLoop;
use roundel_runtime::primary::driver::{Change, PrimaryDriver, Source};
use roundel_runtime::unix::clock;

use crate::driver;
use crate::set::Set;

/// The event loop, as the type parameter of [`Primary`](crate::Primary).
#[derive(Debug)]
pub enum Reactor {}

impl EventLoop for Reactor {
    fn prepare() -> io::Result<()> {
        prepare()
    }

    fn run(driver: PrimaryDriver) -> io::Result<Exit> {
        run(driver)
    }
}

/// Makes async-io start its thread.
///
/// # Errors
/// If no thread can be started.
pub fn prepare() -> io::Result<()> {
    driver::start()
}

/// Runs a primary to its end, on this thread. Start it before async-io is used: that keeps signals
/// away from async-io's own thread.
///
/// # Errors
/// If epoll(7) is not available or fails; no input causes that.
pub fn run(mut driver: PrimaryDriver) -> io::Result<Exit> {
    let mut set = Set::new()?;
    let mut watched: BTreeMap<Source, Arc<OwnedFd>> = BTreeMap::new();
    loop {
        while let Some(change) = driver.next_change() {
            apply(&set, &mut watched, change)?;
        }
        if let Some(exit) = driver.finished() {
            return Ok(exit);
        }
        if !driver.has_work() {
            set.be_ready_by(driver.deadline().map(instant))?;
            set.wait()?;
        }
        look(&mut set, &mut driver)?;
        // A deadline is judged by a clock that was read before the last check for readiness. So
        // even if the primary was stopped in between (signal(7)), no answer that came in time is
        // overlooked.
        let now = clock::now();
        if driver.deadline().is_some_and(|at| at <= now) {
            look(&mut set, &mut driver)?;
        }
        driver.turn(now);
    }
}

/// Passes on everything that is ready.
fn look(set: &mut Set, driver: &mut PrimaryDriver) -> io::Result<()> {
    set.look(|key| {
        if let Some(source) = Source::from_token(key) {
            driver.on_ready(source);
        }
    })
}

fn apply(
    set: &Set,
    watched: &mut BTreeMap<Source, Arc<OwnedFd>>,
    change: Change,
) -> io::Result<()> {
    match change {
        Change::Watch { source, fd, writable } => {
            set.add(&fd, source.to_token(), writable)?;
            watched.insert(source, fd);
        }
        Change::Rewatch { source, writable } => {
            if let Some(fd) = watched.get(&source) {
                set.renew(fd, source.to_token(), writable)?;
            }
        }
        Change::Unwatch { source } => {
            if let Some(fd) = watched.remove(&source) {
                set.remove(fd)?;
            }
        }
    }
    Ok(())
}

fn instant(at: Time) -> Instant {
    // Both are the same clock with different epochs.
    Instant::now() + at.since(clock::now())
}
