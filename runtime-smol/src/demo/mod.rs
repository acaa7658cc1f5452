//! The built-in worker of `roundel-smol demo`.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_lite::stream::Stream;
use roundel_runtime::demo::{self, Clients, Watcher};
use roundel_runtime::worker::Standing;

use crate::set::Set;
use crate::{Incoming, Listener, Worker};

const WORKER: u64 = Clients::<Set>::NO_CLIENT;

/// Is a demo worker on the first `listeners` listeners of the operator, until it is told to leave.
pub fn run(listeners: u32) -> ExitCode {
    demo::end(Worker::join().and_then(|worker| {
        worker.replace_on_panic();
        let all = async_io::block_on(async {
            let mut all = Vec::new();
            for nth in 0..listeners {
                all.push(worker.listen_nth(nth).await?);
            }
            io::Result::Ok(all)
        })?;
        serve(worker, &all)
    }))
}

/// Serves until the worker is to leave and nobody is left.
fn serve(worker: Worker, listeners: &[Listener]) -> io::Result<ExitCode> {
    let set = Set::new()?;
    worker.watch_in(&set, WORKER)?;
    for listener in listeners {
        listener.watch_in(&set, WORKER)?;
    }
    let incoming = listeners.iter().map(Listener::incoming).collect();
    let clients = Clients::new(set);
    let mut demo = Demo {
        worker: &worker,
        incoming,
        clients,
        ready: Vec::new(),
        held_up: false,
        watches_write: false,
    };
    demo.serve()?;
    Ok(async_io::block_on(worker.finish()))
}

impl Watcher for Set {
    fn add(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        Set::add(self, fd, key, writable)
    }

    fn renew(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        Set::renew(self, fd, key, writable)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Set::remove(self, fd)
    }
}

/// Whether a listener is to be asked again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Demo<'a> {
    worker: &'a Worker,
    /// The listeners of which something may come.
    incoming: Vec<Incoming<'a>>,
    clients: Clients<Set>,
    /// Clients that are ready.
    ready: Vec<u64>,
    /// There was no descriptor for another connection: try again when a client goes.
    held_up: bool,
    watches_write: bool,
}

impl Demo<'_> {
    /// Serves until the worker is to leave and nobody is left.
    fn serve(&mut self) -> io::Result<()> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        loop {
            self.look()?;
            // All are asked now.
            woken.take();
            let is_leaving = self.is_leaving();
            if is_leaving {
                self.clients.leave();
            }
            self.held_up &= !self.clients.has_shrunk();
            if self.accept(&mut cx)? {
                // Nobody waits behind those who are yet to be accepted.
                continue;
            }
            if self.incoming.is_empty() && self.clients.is_empty() {
                return Ok(());
            }
            // What one listener reads is news for the others, and for the worker.
            if !woken.take() && is_leaving == self.is_leaving() {
                self.wait()?;
            }
        }
    }

    /// Reads what came for the worker, and serves the clients that are ready.
    fn look(&mut self) -> io::Result<()> {
        let mut is_called = false;
        self.clients.watcher().look(|key| match key {
            WORKER => is_called = true,
            client => self.ready.push(client),
        })?;
        self.clients.serve(self.ready.drain(..));
        if is_called {
            self.worker.turn();
        }
        Ok(())
    }

    /// Waits for anything at all. This takes one system call, and what async-io does for its
    /// own wait takes several: see [`Set::wait`](crate::set::Set::wait).
    fn wait(&mut self) -> io::Result<()> {
        let wants_write = self.worker.wants_write();
        if wants_write != self.watches_write {
            self.worker.rewatch_in(self.clients.watcher(), WORKER, wants_write)?;
            self.watches_write = wants_write;
        }
        let deadline = self.clients.deadline();
        let set = self.clients.watcher();
        set.be_ready_by(deadline)?;
        set.wait()
    }

    fn is_leaving(&self) -> bool {
        self.worker.standing() != Standing::Serving
    }

    /// Takes one connection of each listener and serves it at once. One, so that whoever comes
    /// while this worker is busy goes to another one. False if nothing was there.
    fn accept(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut found = false;
        for at in (0..self.incoming.len()).rev() {
            match self.accept_at(at, cx)? {
                Poll::Pending => continue,
                Poll::Ready(true) => {}
                Poll::Ready(false) => drop(self.incoming.swap_remove(at)),
            }
            found = true;
        }
        Ok(found)
    }

    /// False if nothing will come of this listener any more.
    fn accept_at(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let stream = &mut self.incoming[at];
        if self.clients.is_full() {
            return stream.poll_decline(cx);
        }
        if self.held_up {
            return Poll::Pending;
        }
        match ready!(Pin::new(stream).poll_next(cx)) {
            Some(Ok(connection)) => {
                self.clients.admit(connection.into_inner());
                Poll::Ready(Ok(true))
            }
            // For want of descriptors, where this process accepts by itself.
            Some(Err(_)) => {
                self.held_up = true;
                Poll::Pending
            }
            None => Poll::Ready(Ok(false)),
        }
    }
}
