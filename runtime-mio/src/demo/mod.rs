//! The built-in worker of `roundel demo` on mio.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use roundel_runtime::demo::{self, Clients, Watcher};
use roundel_runtime::worker::{Listener, Standing};

use crate::Worker;

const WORKER: u64 = Clients::<MioWatcher>::NO_CLIENT;

/// Is a demo worker on the first `listeners` listeners of the operator, until it is told to leave.
pub fn run(listeners: u32) -> ExitCode {
    demo::end(Demo::start(listeners).and_then(Demo::serve))
}

struct MioWatcher(Poll);

impl Watcher for MioWatcher {
    fn add(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        let raw = fd.as_raw_fd();
        self.0.registry().register(&mut SourceFd(&raw), token(key), interest(writable))
    }

    fn renew(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        let raw = fd.as_raw_fd();
        self.0.registry().reregister(&mut SourceFd(&raw), token(key), interest(writable))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }
}

fn token(key: u64) -> Token {
    Token(key as usize)
}

fn interest(writable: bool) -> Interest {
    if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

struct Demo {
    worker: Worker,
    listeners: Vec<Listener>,
    clients: Clients<MioWatcher>,
    /// More connections may be there to take.
    may_accept: bool,
    /// There was no room for another connection: look again when a client goes.
    held_up: bool,
}

impl Demo {
    fn start(listeners: u32) -> io::Result<Demo> {
        let mut worker = Worker::join()?;
        worker.replace_on_panic();
        let listeners =
            (0..listeners).map(|nth| worker.listen_nth(nth)).collect::<io::Result<Vec<_>>>()?;
        Demo::new(worker, listeners)
    }

    fn new(mut worker: Worker, listeners: Vec<Listener>) -> io::Result<Demo> {
        let poll = Poll::new()?;
        poll.registry().register(&mut worker, token(WORKER), interest(false))?;
        Ok(Demo {
            worker,
            listeners,
            clients: Clients::new(MioWatcher(poll)),
            may_accept: true,
            held_up: false,
        })
    }

    /// Serves until the worker is to leave and nobody is left.
    fn serve(mut self) -> io::Result<ExitCode> {
        let mut events = Events::with_capacity(256);
        loop {
            if self.worker.standing() != Standing::Serving {
                self.clients.leave();
                if self.clients.is_empty() && self.worker.is_dry() {
                    return Ok(self.worker.finish());
                }
            }
            if self.clients.has_shrunk() {
                self.may_accept |= std::mem::take(&mut self.held_up);
            }
            self.wait(&mut events)?;
            self.may_accept |= events.iter().any(|event| event.token() == token(WORKER));
            let keys = events.iter().map(|event| event.token().0 as u64);
            self.clients.serve(keys.filter(|key| *key != WORKER));
            if self.may_accept {
                self.accept();
            }
        }
    }

    /// Waits for anything at all, but not while more connections may be there.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.clients.deadline();
        let poll = &mut self.clients.watcher().0;
        let timeout = if self.may_accept {
            Some(Duration::ZERO)
        } else {
            deadline.map(|at| at.saturating_duration_since(Instant::now()))
        };
        match poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Takes one connection and serves it at once. One, so that whoever comes while this worker is
    /// busy goes to another one.
    fn accept(&mut self) {
        self.may_accept = false;
        if self.clients.is_full() {
            self.held_up = true;
            for listener in &self.listeners {
                self.may_accept |= self.worker.decline(listener);
            }
            return;
        }
        match self.worker.try_accept_any(&self.listeners) {
            Ok((_, connection)) => {
                self.may_accept = true;
                self.clients.admit(connection);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // For want of descriptors, where this process accepts by itself.
            Err(_) => self.held_up = true,
        }
    }
}
