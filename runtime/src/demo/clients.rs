//! The clients of a demo worker.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::client::{Client, Identity, Next};
use crate::worker::Connection;

/// Clients at a time; more are declined.
const MAX_CLIENTS: usize = 10_000;
/// Clients that have only to close and are not watched: few, as each has a descriptor.
const MAX_LEAVERS: usize = 16;

/// What an adapter watches descriptors with, each under a key: for edges, as epoll(7) has them. It
/// names those that have become ready to read, or to write where that is asked for.
pub trait Watcher {
    /// Adds a descriptor. It is ready for the first time if it is so now.
    ///
    /// # Errors
    /// For want of memory, or of watches, of which a user has only so many (epoll(7)).
    fn add(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()>;

    /// Watches a descriptor anew: what it is ready for now, it becomes ready for.
    ///
    /// # Errors
    /// If the descriptor was not added, or for want of memory.
    fn renew(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()>;

    /// Removes a descriptor. Those that are closed are not removed before.
    ///
    /// # Errors
    /// If the descriptor was not added.
    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;
}

/// All clients of a demo worker, their deadlines, and what watches them.
#[derive(Debug)]
pub struct Clients<W> {
    who: Identity,
    clients: HashMap<u64, Client>,
    deadlines: BTreeSet<(Instant, u64)>,
    watcher: W,
    /// Those who were answered for the last time and are not watched, the oldest first. Most close
    /// soon, and nobody waits for that: each is looked at when enough others have followed, or
    /// closed at its deadline.
    leavers: VecDeque<u64>,
    /// Keys are not used again: an event may come for one that has gone.
    last: u64,
    is_leaving: bool,
    has_shrunk: bool,
}

/// What is to be done with a client. It may panic.
type Act = fn(&mut Client, Identity, bool, Instant) -> Next;

impl<W: Watcher> Clients<W> {
    /// The key of what the adapter has watched for itself: no client gets it.
    pub const NO_CLIENT: u64 = 0;

    /// Nobody yet.
    pub fn new(watcher: W) -> Clients<W> {
        Clients {
            who: Identity::own(),
            clients: HashMap::new(),
            deadlines: BTreeSet::new(),
            watcher,
            leavers: VecDeque::new(),
            last: Self::NO_CLIENT,
            is_leaving: false,
            has_shrunk: false,
        }
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether another connection is to be declined.
    pub fn is_full(&self) -> bool {
        self.clients.len() >= MAX_CLIENTS
    }

    /// Whether somebody has gone since the last call.
    pub fn has_shrunk(&mut self) -> bool {
        std::mem::take(&mut self.has_shrunk)
    }

    /// When [`serve`](Clients::serve) is to be called, whoever is ready.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What watches the clients.
    pub fn watcher(&mut self) -> &mut W {
        &mut self.watcher
    }

    /// The worker is on its way out: who was answered is closed, who has sent nothing yet has
    /// little time left.
    pub fn leave(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        self.see_off();
        let now = Instant::now();
        self.clients.retain(|key, client| {
            self.deadlines.remove(&(client.deadline(), *key));
            if client.is_done() {
                self.has_shrunk = true;
                return false;
            }
            client.hurry(now);
            self.deadlines.insert((client.deadline(), *key));
            true
        });
    }

    /// Serves a connection as far as possible at once: mostly the request is there already.
    pub fn admit(&mut self, connection: Connection) {
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

    /// Serves those who are ready, and those whose time has come.
    pub fn serve(&mut self, ready: impl IntoIterator<Item = u64>) {
        for key in ready {
            self.advance(key, Client::advance);
        }
        let now = Instant::now();
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.advance(key, Client::on_deadline);
        }
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
        let wants_write = client.wants_write();
        if self.watcher.add(client.connection().as_fd(), key, wants_write).is_err() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: u64) {
        // That it is closed ends the watch, at the latest when the primary closes its copy, which
        // it may have for a moment.
        if let Some(client) = self.clients.remove(&key) {
            self.deadlines.remove(&(client.deadline(), key));
            self.has_shrunk = true;
        }
    }

    fn advance(&mut self, key: u64, what: Act) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let (before, wrote) = (client.deadline(), client.wants_write());
        let lingered = client.is_lingering();
        let next = act(client, what, self.who, self.is_leaving);
        if next == Next::Close {
            self.deadlines.remove(&(before, key));
            return self.remove(key);
        }
        if client.deadline() != before {
            self.deadlines.remove(&(before, key));
            self.deadlines.insert((client.deadline(), key));
        }
        let fd = client.connection().as_fd();
        if client.is_lingering() && !lingered && next == Next::Stay && !self.is_leaving {
            // Where it fails, it is looked at more often than it has to be.
            let _ = self.watcher.remove(fd);
            self.leavers.push_back(key);
            self.see_off();
        } else if client.wants_write() != wrote || next == Next::Again {
            let wants_write = client.wants_write();
            if self.watcher.renew(fd, key, wants_write).is_err() {
                self.remove(key);
            }
        }
    }
}

/// Does something with a client; a panic ends the client's stay, and puts the worker on its way
/// out.
fn act(client: &mut Client, what: Act, who: Identity, is_leaving: bool) -> Next {
    let now = Instant::now();
    catch_unwind(AssertUnwindSafe(|| what(client, who, is_leaving, now))).unwrap_or(Next::Close)
}
