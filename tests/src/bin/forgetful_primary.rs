//! `forgetful_primary EVENTS CONTROL PROGRAM`: a primary with two listeners, whose event loop
//! forgets whatever it hears of the first one. For tests of what watches over such faults.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roundel_core::ListenerId;
use roundel_runtime::exit::Exit;
use roundel_runtime::primary::driver::{Change, PrimaryDriver, Source};
use roundel_runtime::primary::{EventLoop, Primary};
use roundel_runtime::unix::clock;

enum Forgetful {}

impl EventLoop for Forgetful {
    fn run(mut driver: PrimaryDriver) -> io::Result<Exit> {
        let forgotten = ListenerId::from_raw(1).map(Source::Listener);
        let mut watched: BTreeMap<Source, (Arc<OwnedFd>, bool)> = BTreeMap::new();
        loop {
            while let Some(change) = driver.next_change() {
                match change {
                    Change::Watch { source, fd, writable } => {
                        watched.insert(source, (fd, writable));
                    }
                    Change::Rewatch { source, writable } => {
                        watched.entry(source).and_modify(|entry| entry.1 = writable);
                    }
                    Change::Unwatch { source } => drop(watched.remove(&source)),
                }
            }
            if let Some(exit) = driver.finished() {
                return Ok(exit);
            }
            let mut kept: Vec<(Source, PollFd<'_>)> = Vec::new();
            for (&source, (fd, writable)) in &watched {
                if Some(source) != forgotten {
                    let out = if *writable { PollFlags::POLLOUT } else { PollFlags::empty() };
                    kept.push((source, PollFd::new(fd.as_fd(), PollFlags::POLLIN | out)));
                }
            }
            let left = driver.deadline().map(|at| at.since(clock::now()).as_millis() as u64 + 1);
            let left = if driver.has_work() { 0 } else { left.unwrap_or(1_000).min(1_000) };
            let (sources, mut fds): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
            poll(&mut fds, PollTimeout::from(left as u16))?;
            for (source, fd) in sources.into_iter().zip(fds) {
                if fd.any() == Some(true) {
                    driver.on_ready(source);
                }
            }
            driver.turn(clock::now());
        }
    }
}

fn main() -> io::Result<std::process::ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let mut next = || args.next().ok_or(io::ErrorKind::InvalidInput);
    let (events, control, program) = (next()?, next()?, next()?);
    let primary = Primary::<Forgetful>::of(program, Vec::new()).workers(1);
    // Nobody takes what waits at the second listener: half of it, and the stop goes on without.
    let primary = primary.drain_timeout(Duration::from_secs(2));
    let primary = primary.bind("127.0.0.1:0")?.bind("127.0.0.1:0")?;
    Ok(primary.events(events).control(control).quiet().run()?.into())
}
