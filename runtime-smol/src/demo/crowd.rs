//! The clients of a demo worker.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use roundel_runtime::demo::{Client, Identity, MAX_CLIENTS, Next};
use roundel_runtime::worker::Connection;

use crate::set::Set;

/// Clients that have only to close and are not watched: few, as each has a descriptor.
const MAX_LEAVERS: usize = 16;
/// The key of all that the worker reads from. Clients have smaller ones.
pub(super) const WORKER: u64 = u64::MAX - 1;

pub(super) struct Crowd {
    who: Identity,
    clients: HashMap<u64, Client>,
    deadlines: BTreeSet<(Instant, u64)>,
    set: Set,
    /// Those who were answered for the last time and are not watched, the oldest first. Most close
    /// soon, and nobody waits for that: each is looked at when enough others have followed, or
    /// closed at its deadline.
    leavers: VecDeque<u64>,
    /// Keys are not used again: an event may come for one that has gone.
    last: u64,
    is_leaving: bool,
    has_shrunk: bool,
    /// Clients that are ready.
    ready: Vec<u64>,
    /// There is something for the worker.
    is_called: bool,
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
            last: 0,
            is_leaving: false,
            has_shrunk: false,
            ready: Vec::new(),
            is_called: false,
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

    /// Whether there was something for the worker since the last call.
    pub(super) fn is_called(&mut self) -> bool {
        std::mem::take(&mut self.is_called)
    }

    /// What waits for all of them, and for the worker too.
    pub(super) fn set(&self) -> &Set {
        &self.set
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
        self.see_off();
    }

    /// Closes those who have closed, and watches those who have not, but for the latest few.
    fn see_off(&mut self) {
        let unwatched = if self.is_leaving { 0 } else { MAX_LEAVERS };
        while self.leavers.len() > unwatched
            && let Some(key) = self.leavers.pop_front()
        {
            // At its deadline it has gone already.
            let Some(client) = self.clients.get_mut(&key) else { continue };
            match act(client, Client::advance, self.who, self.is_leaving) {
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

    /// Waits until somebody is ready or his time has come, or the worker is called.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.set.be_ready_by(self.deadlines.first().map(|(at, _)| *at))?;
        self.set.wait()
    }

    /// Serves those who are ready and those whose time has come.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.set.look(|key| match key {
            WORKER => self.is_called = true,
            client => self.ready.push(client),
        })?;
        let mut ready = std::mem::take(&mut self.ready);
        for key in ready.drain(..) {
            self.advance(key, Client::advance);
        }
        self.ready = ready;
        self.expire();
        if self.is_leaving {
            self.close_done();
        }
        Ok(())
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.advance(key, Client::on_deadline);
        }
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

    fn advance(&mut self, key: u64, what: Act) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let (before, wrote) = (client.deadline(), client.wants_write());
        let lingered = client.is_lingering();
        let next = act(client, what, self.who, self.is_leaving);
        if next == Next::Close {
            // That it is closed removes it from the set, at the latest when the primary closes
            // its copy, which it may have for a moment.
            self.deadlines.remove(&(before, key));
            return self.remove(key);
        }
        if client.deadline() != before {
            self.deadlines.remove(&(before, key));
            self.deadlines.insert((client.deadline(), key));
        }
        if client.is_lingering() && !lingered && next == Next::Stay && !self.is_leaving {
            // Where it fails, it is looked at more often than it has to be.
            let _ = self.set.remove(&**client.connection());
            self.leavers.push_back(key);
            self.see_off();
        } else if (client.wants_write() != wrote || next == Next::Again)
            && self.set.renew(&**client.connection(), key, client.wants_write()).is_err()
        {
            self.remove(key);
        }
    }
}

/// Does something with a client; a panic ends the client's stay, and puts the worker on its way
/// out.
fn act(client: &mut Client, what: Act, who: Identity, is_leaving: bool) -> Next {
    let now = Instant::now();
    catch_unwind(AssertUnwindSafe(|| what(client, who, is_leaving, now))).unwrap_or(Next::Close)
}
