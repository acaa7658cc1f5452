//! The primary's event loop on async-io: register, wait, call back.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Instant;

use roundel_core::Time;
use roundel_runtime::clock;
use roundel_runtime::exit::Exit;
use roundel_runtime::primary::EventLoop;
use roundel_runtime::shell::{Change, Shell, Source};
use smol::future::yield_now;

use crate::alarm::Alarm;
use crate::watch::{Ready, Watched, namer};

/// The event loop, as [`Primary`](crate::Primary) is told of it.
#[derive(Debug)]
pub enum Reactor {}

impl EventLoop for Reactor {
    fn run(shell: Shell) -> io::Result<Exit> {
        run(shell)
    }
}

/// Runs a primary to its end, on this thread. To start it before async-io is used keeps signals
/// away from the thread that async-io has for itself.
///
/// # Errors
/// If epoll(7) can't be had or fails, which no input brings about.
pub fn run(shell: Shell) -> io::Result<Exit> {
    async_io::block_on(drive(shell))
}

async fn drive(mut shell: Shell) -> io::Result<Exit> {
    let ready = Ready::new();
    let mut watched: BTreeMap<Source, (Watched, Writable)> = BTreeMap::new();
    let mut unarmed: BTreeSet<Source> = BTreeSet::new();
    let mut alarm = Alarm::new();
    let mut named = Vec::new();
    loop {
        while let Some(change) = shell.next_change() {
            let source = match change {
                Change::Watch { source, fd, writable } => {
                    let watch = Watched::new(fd, namer(source, &ready))?;
                    watched.insert(source, (watch, Writable(writable)));
                    source
                }
                Change::Rewatch { source, writable } => {
                    if let Some((_, before)) = watched.get_mut(&source) {
                        *before = Writable(writable);
                    }
                    source
                }
                Change::Unwatch { source } => {
                    watched.remove(&source);
                    source
                }
            };
            unarmed.insert(source);
        }
        if let Some(exit) = shell.finished() {
            return Ok(exit);
        }
        for source in std::mem::take(&mut unarmed) {
            let Some((watched, Writable(writable))) = watched.get(&source) else { continue };
            let readable = shell.wants_read(source);
            watched.arm(readable, *writable)?;
            if !readable {
                unarmed.insert(source);
            }
        }
        if shell.has_work() {
            // Looks at what is ready, without waiting for it.
            yield_now().await;
        } else {
            let deadline = shell.deadline().map(instant);
            poll_fn(|cx| match (ready.poll(cx), alarm.poll(deadline, cx)) {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
        }
        let now = clock::now();
        // A deadline that has passed is judged only after everything was read under that clock:
        // wherever the primary is stopped, no answer that was there in time is overlooked.
        if shell.deadline().is_some_and(|at| at <= now) {
            watched.keys().for_each(|source| shell.on_ready(*source));
        }
        ready.take(&mut named);
        for source in named.drain(..) {
            shell.on_ready(source);
            unarmed.insert(source);
        }
        shell.turn(now);
    }
}

/// Whether readiness to write is awaited too.
#[derive(Clone, Copy, Debug)]
struct Writable(bool);

fn instant(at: Time) -> Instant {
    // The same clock, but for its epoch.
    Instant::now() + at.since(clock::now())
}
