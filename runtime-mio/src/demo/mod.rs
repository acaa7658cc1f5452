//! The built-in worker of `roundel demo` on mio.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use roundel_runtime::demo::{self, Client, Identity, MAX_CLIENTS, Next};
use roundel_runtime::worker::{Connection, Listener, Standing};

use crate::Worker;

const WORKER: Token = Token(0);

/// Is a demo worker on the first `listeners` listeners of the operator, until it is told to leave.
pub fn run(listeners: u32) -> ExitCode {
    demo::end(Demo::start(listeners).and_then(Demo::serve))
}

struct Demo {
    worker: Worker,
    listeners: Vec<Listener>,
    poll: Poll,
    who: Identity,
    clients: HashMap<usize, Client>,
    deadlines: BTreeSet<(Instant, usize)>,
    next_token: usize,
    /// More connections may be there to take.
    may_accept: bool,
    /// There was no room for another connection: look again when a client goes.
    held_up: bool,
    /// The clients were told to hurry.
    hurried: bool,
    watches_write: bool,
}

impl Demo {
    fn start(listeners: u32) -> io::Result<Demo> {
        let mut worker = Worker::join()?;
        worker.suicide_on_panic();
        let listeners =
            (0..listeners).map(|nth| worker.listen_nth(nth)).collect::<io::Result<Vec<_>>>()?;
        Demo::new(worker, listeners)
    }

    fn new(mut worker: Worker, listeners: Vec<Listener>) -> io::Result<Demo> {
        let poll = Poll::new()?;
        poll.registry().register(&mut worker, WORKER, Interest::READABLE)?;
        let who = Identity::own();
        Ok(Demo {
            worker,
            listeners,
            poll,
            who,
            clients: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_token: 1,
            may_accept: true,
            held_up: false,
            hurried: false,
            watches_write: false,
        })
    }

    fn serve(mut self) -> io::Result<ExitCode> {
        let mut events = Events::with_capacity(256);
        loop {
            if self.is_leaving() {
                self.hurry();
                self.close_done()?;
                if self.clients.is_empty() && self.worker.is_dry() {
                    return Ok(self.worker.finish());
                }
            }
            self.watch_write()?;
            let first = self.deadlines.first().map(|(at, _)| *at);
            let timeout = match first {
                _ if self.may_accept => Some(Duration::ZERO),
                Some(at) => Some(at.saturating_duration_since(Instant::now())),
                None => None,
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                match event.token() {
                    WORKER => {
                        self.worker.turn()?;
                        self.may_accept = true;
                    }
                    Token(token) => self.advance(token, |client, who, leaving, now| {
                        client.advance(who, leaving, now)
                    })?,
                }
            }
            self.expire()?;
            if self.may_accept {
                self.accept_one()?;
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.worker.standing() != Standing::Serving
    }

    /// Takes one connection of each listener and serves it at once. One, so that whoever comes
    /// while this worker is busy goes to another one.
    fn accept_one(&mut self) -> io::Result<()> {
        let mut found = false;
        for at in 0..self.listeners.len() {
            if self.clients.len() >= MAX_CLIENTS {
                found |= self.worker.decline(&self.listeners[at]);
                self.held_up = true;
                continue;
            }
            match self.worker.try_accept(&self.listeners[at]) {
                Ok(connection) => {
                    found = true;
                    self.admit(connection)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // For want of descriptors, where this process accepts by itself.
                Err(_) => self.held_up = true,
            }
        }
        self.may_accept = found;
        Ok(())
    }

    fn admit(&mut self, connection: Connection) -> io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        let raw = connection.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&raw), Token(token), Interest::READABLE)?;
        let now = Instant::now();
        let mut client = Client::new(connection, now);
        if self.is_leaving() {
            client.hurry(now);
        }
        self.deadlines.insert((client.deadline(), token));
        self.clients.insert(token, client);
        // Mostly the request is there already.
        self.advance(token, |client, who, leaving, now| client.advance(who, leaving, now))
    }

    /// Does something with a client, which may panic: then the client is gone, and the worker on
    /// its way out.
    fn advance(
        &mut self,
        token: usize,
        act: impl FnOnce(&mut Client, Identity, bool, Instant) -> Next,
    ) -> io::Result<()> {
        let leaving = self.is_leaving();
        let Some(client) = self.clients.get_mut(&token) else { return Ok(()) };
        let (before, wrote) = (client.deadline(), client.wants_write());
        let who = self.who;
        let acted = catch_unwind(AssertUnwindSafe(|| act(client, who, leaving, Instant::now())));
        let next = acted.unwrap_or(Next::Close);
        if next == Next::Close {
            return self.close(token, before);
        }
        if client.deadline() != before {
            self.deadlines.remove(&(before, token));
            self.deadlines.insert((client.deadline(), token));
        }
        // Registered anew, a client of which more is there to be read is ready anew (epoll(7)).
        if client.wants_write() != wrote || next == Next::Again {
            let interest = if client.wants_write() {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let raw = client.connection().as_raw_fd();
            self.poll.registry().reregister(&mut SourceFd(&raw), Token(token), interest)?;
        }
        Ok(())
    }

    fn close(&mut self, token: usize, deadline: Instant) -> io::Result<()> {
        self.deadlines.remove(&(deadline, token));
        if let Some(client) = self.clients.remove(&token) {
            self.deadlines.remove(&(client.deadline(), token));
            // The primary may have a copy for a moment, which would keep it registered.
            let raw = client.connection().as_raw_fd();
            self.poll.registry().deregister(&mut SourceFd(&raw))?;
            self.may_accept |= std::mem::take(&mut self.held_up);
        }
        Ok(())
    }

    fn expire(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(&(at, token)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.advance(token, |client, who, leaving, now| client.on_deadline(who, leaving, now))?;
        }
        Ok(())
    }

    fn hurry(&mut self) {
        if std::mem::replace(&mut self.hurried, true) {
            return;
        }
        let now = Instant::now();
        for (token, client) in &mut self.clients {
            self.deadlines.remove(&(client.deadline(), *token));
            client.hurry(now);
            self.deadlines.insert((client.deadline(), *token));
        }
    }

    fn close_done(&mut self) -> io::Result<()> {
        let done = self.clients.iter().filter(|(_, client)| client.is_done());
        let done: Vec<(usize, Instant)> =
            done.map(|(token, client)| (*token, client.deadline())).collect();
        for (token, deadline) in done {
            self.close(token, deadline)?;
        }
        Ok(())
    }

    fn watch_write(&mut self) -> io::Result<()> {
        let wants_write = self.worker.wants_write();
        if wants_write != self.watches_write {
            self.watches_write = wants_write;
            let interest = if wants_write {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            self.poll.registry().reregister(&mut self.worker, WORKER, interest)?;
        }
        Ok(())
    }
}
