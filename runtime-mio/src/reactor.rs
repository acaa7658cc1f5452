//! The primary's event loop on mio: register, wait, call back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use roundel_runtime::clock;
use roundel_runtime::exit::Exit;
use roundel_runtime::shell::{Change, Shell, Source};

/// Events taken in one wait.
const EVENTS: usize = 256;

/// Runs a primary to its end.
///
/// # Errors
/// If epoll(7) can't be had or fails, which no input brings about.
pub fn run(mut shell: Shell) -> io::Result<Exit> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut watched: BTreeMap<Source, Arc<OwnedFd>> = BTreeMap::new();
    loop {
        while let Some(change) = shell.next_change() {
            apply(&poll, &mut watched, change)?;
        }
        if let Some(exit) = shell.finished() {
            return Ok(exit);
        }
        let mut timeout = timeout(&shell);
        // Everything that is ready is named before the turn, so that no deadline is judged
        // before the answers that are there were read.
        loop {
            match poll.poll(&mut events, timeout) {
                // Also where the primary was stopped and goes on (signal(7)): nothing was looked at.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    timeout = Some(Duration::ZERO);
                    continue;
                }
                other => other?,
            }
            let mut count = 0;
            for event in &events {
                count += 1;
                if let Some(source) = Source::from_token(event.token().0 as u64) {
                    shell.on_ready(source);
                }
            }
            if count < EVENTS {
                break;
            }
            timeout = Some(Duration::ZERO);
        }
        shell.turn();
    }
}

fn timeout(shell: &Shell) -> Option<Duration> {
    if shell.has_work() {
        return Some(Duration::ZERO);
    }
    // Bounded, as epoll_wait(2) counts milliseconds in an int.
    shell.deadline().map(|at| at.since(clock::now()).min(Duration::from_secs(3600)))
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
