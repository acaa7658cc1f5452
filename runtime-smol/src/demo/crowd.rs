//! The clients of a demo worker: one task for all of them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use roundel_runtime::demo::{Client, Identity, MAX_CLIENTS, Next};
use roundel_runtime::worker::Connection;

use crate::alarm::Alarm;
use crate::set::Set;

/// Clients to be seen off of whom none is watched.
const PATIENCE: usize = 16;

pub(super) struct Crowd {
    who: Identity,
    clients: HashMap<u64, Client>,
    deadlines: BTreeSet<(Instant, u64)>,
    set: Set,
    /// Those who were answered for the last time, the oldest first. Most close at once, so it is
    /// cheaper to look at them when something else wakes the worker than to watch them.
    leavers: VecDeque<u64>,
    alarm: Alarm,
    /// Keys are not used again: an event may come for one that has gone.
    last: u64,
    is_leaving: bool,
    has_shrunk: bool,
    /// Clients that are ready.
    ready: Vec<u64>,
}

/// What is to be done with a client. It may panic.
type Act = fn(&mut Client, Identity, bool, Instant) -> Next;

impl Crowd {
    pub(super) fn new() -> io::Result<Crowd> {
        Ok(Crowd {
            who: Identity::own(),
            clients: HashMap::new(),
            deadlines: BTreeSet::new(),
            set: Set::new()?,
            leavers: VecDeque::new(),
            alarm: Alarm::new(),
            last: 0,
            is_leaving: false,
            has_shrunk: false,
            ready: Vec::new(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.clients.len() >= MAX_CLIENTS
    }

    /// Whether somebody has gone since the last call.
    pub(super) fn has_shrunk(&mut self) -> bool {
        std::mem::take(&mut self.has_shrunk)
    }

    /// The worker is on its way out.
    pub(super) fn leave(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        self.see_off();
        let now = Instant::now();
        for (key, client) in &mut self.clients {
            self.deadlines.remove(&(client.deadline(), *key));
            client.hurry(now);
            self.deadlines.insert((client.deadline(), *key));
        }
        self.close_done();
    }

    /// Serves a connection as far as possible at once: mostly the request is there already.
    pub(super) fn admit(&mut self, connection: Connection) {
        let now = Instant::now();
        let mut client = Client::new(connection, now);
        if self.is_leaving {
            client.hurry(now);
        }
        let next = act(&mut client, Client::advance, self.who, self.is_leaving);
        if next == Next::Close {
            return;
        }
        self.last += 1;
        let (key, is_lingering) = (self.last, client.is_lingering());
        self.deadlines.insert((client.deadline(), key));
        self.clients.insert(key, client);
        if !is_lingering || next == Next::Again {
            return self.watch(key);
        }
        self.leavers.push_back(key);
        if self.leavers.len() > PATIENCE || self.is_leaving {
            self.see_off();
        }
    }

    /// Closes those who have closed. Of those who have not, only the latest are left unwatched,
    /// and nobody once the worker leaves.
    pub(super) fn see_off(&mut self) {
        let patience = if self.is_leaving { 0 } else { PATIENCE };
        while let Some(&key) = self.leavers.front() {
            let who = self.who;
            let next = self
                .clients
                .get_mut(&key)
                .map_or(Next::Close, |client| act(client, Client::advance, who, self.is_leaving));
            if next == Next::Stay && self.leavers.len() <= patience {
                return;
            }
            self.leavers.pop_front();
            match next {
                Next::Close => self.remove(key),
                Next::Stay | Next::Again => self.watch(key),
            }
        }
    }

    fn watch(&mut self, key: u64) {
        let Some(client) = self.clients.get(&key) else { return };
        // For want of memory, or of watches, of which a user has only so many (epoll(7)).
        if self.set.add(&**client.connection(), key, client.wants_write()).is_err() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(client) = self.clients.remove(&key) {
            self.deadlines.remove(&(client.deadline(), key));
            self.has_shrunk = true;
        }
    }

    /// Serves those who are ready and those whose time has come. `Ready` if that was somebody; if
    /// not, the task is woken when it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.set.poll_ready(cx)?.is_pending() {
            ready!(self.alarm.poll(self.deadlines.first().map(|(at, _)| *at), cx));
        }
        Poll::Ready(self.look())
    }

    /// Serves those who are ready and those whose time has come.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.set.look(|key| self.ready.push(key))?;
        let mut ready = std::mem::take(&mut self.ready);
        for key in ready.drain(..) {
            self.advance(key, Client::advance)?;
        }
        self.ready = ready;
        self.expire()?;
        if self.is_leaving {
            self.close_done();
        }
        Ok(())
    }

    fn expire(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.advance(key, Client::on_deadline)?;
        }
        Ok(())
    }

    fn close_done(&mut self) {
        self.clients.retain(|key, client| {
            let is_done = client.is_done();
            if is_done {
                self.deadlines.remove(&(client.deadline(), *key));
            }
            !is_done
        });
    }

    fn advance(&mut self, key: u64, what: Act) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let (before, wrote) = (client.deadline(), client.wants_write());
        let next = act(client, what, self.who, self.is_leaving);
        if next == Next::Close {
            // That it is closed removes it from the set, at the latest when the primary closes
            // its copy, which it may have for a moment.
            self.deadlines.remove(&(before, key));
            self.remove(key);
            return Ok(());
        }
        if client.deadline() != before {
            self.deadlines.remove(&(before, key));
            self.deadlines.insert((client.deadline(), key));
        }
        if client.wants_write() != wrote || next == Next::Again {
            self.set.renew(&**client.connection(), key, client.wants_write())?;
        }
        Ok(())
    }
}

/// Does something with a client; a panic ends the client's stay, and puts the worker on its way
/// out.
fn act(client: &mut Client, what: Act, who: Identity, is_leaving: bool) -> Next {
    let now = Instant::now();
    catch_unwind(AssertUnwindSafe(|| what(client, who, is_leaving, now))).unwrap_or(Next::Close)
}
