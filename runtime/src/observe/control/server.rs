//! The primary's side of the control socket. Never waits: an event loop drives it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::unistd::{Uid, geteuid};
use roundel_core::Time;
use serde::Serialize;

use super::conversation::{Conversation, Step};
use super::path::{self, ControlError, Place};
use super::{Failed, Request};
use crate::unix::sys;

/// Clients at the same time.
pub(super) const MAX_CLIENTS: usize = 64;

/// Bytes of answers that may wait for all clients together.
pub(super) const MAX_UNSENT: usize = 32 * 1024 * 1024;

/// A client of the control socket, one connection of it. Not used again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// The control socket and its clients.
///
/// An event loop watches [`fd`](ControlServer::fd) for connections, and each client's
/// [`client_fd`](ControlServer::client_fd): for readiness to write while
/// [`wants_write`](ControlServer::wants_write) says so, for readiness to read otherwise. Any
/// method that is given a client may find that it is gone; `wants_write` then says `None`.
///
/// When the server is dropped its path is removed, if it is still this server's. Clients see the
/// end of file once all holders of their descriptors have let go.
#[derive(Debug)]
pub struct ControlServer {
    // Before the socket: while that is open, nobody else takes its path.
    place: Place,
    listener: Arc<OwnedFd>,
    clients: BTreeMap<ClientId, Conversation>,
    /// Had to make room, and nobody was told of it yet.
    evicted: Vec<ClientId>,
    /// As many as there may be.
    max_clients: usize,
    last: u32,
}

impl ControlServer {
    /// Listens at `path`, or at the default place: `roundel-PID.sock` in `$XDG_RUNTIME_DIR`, if
    /// that is this user's, or in `roundel-UID` in the temporary directory, which is made with mode
    /// 0700. The socket has mode 0600 from its birth. A socket at that path that nobody has any
    /// more is replaced.
    ///
    /// # Errors
    /// [`ControlError`] if somebody listens there, if it is not a socket, or if a call fails.
    pub fn bind(path: Option<&Path>) -> Result<Self, ControlError> {
        let (listener, place) = match path {
            Some(path) => path::claim(path)?,
            None => path::claim_default(&path::directories())?,
        };
        let (listener, clients) = (Arc::new(listener), BTreeMap::new());
        let (evicted, max_clients) = (Vec::new(), MAX_CLIENTS);
        Ok(ControlServer { place, listener, clients, evicted, max_clients, last: 0 })
    }

    /// Has fewer clients at the same time: descriptors are kept free for so many.
    #[cfg(feature = "primary")]
    pub(crate) fn limit_clients(&mut self, count: usize) {
        self.max_clients = count.min(MAX_CLIENTS);
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// What becomes readable when a client connects.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.listener
    }

    /// What becomes readable or writable when [`on_ready`](ControlServer::on_ready) is to be
    /// called.
    pub fn client_fd(&self, client: ClientId) -> Option<&Arc<OwnedFd>> {
        self.clients.get(&client).map(Conversation::fd)
    }

    /// Whether an answer waits for readiness to write; `None` if the client is gone.
    pub fn wants_write(&self, client: ClientId) -> Option<bool> {
        self.clients.get(&client).map(Conversation::wants_write)
    }

    /// When [`expire`](ControlServer::expire) is to be called next.
    pub fn deadline(&self) -> Option<Time> {
        self.clients.values().filter_map(Conversation::deadline).min()
    }

    /// Accepts one connection. `None` says that another user was turned away. One client too many
    /// takes the place of the one that has asked for nothing for longest: see
    /// [`take_evicted`](ControlServer::take_evicted).
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when nobody waits. Others, such as EMFILE
    /// (accept(2)), leave the connection waiting: try again later.
    pub fn accept(&mut self, now: Time) -> io::Result<Option<ClientId>> {
        let stream = loop {
            match sys::accept(self.listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        let is_trusted =
            path::peer(&stream).is_ok_and(|peer| may_command(Uid::from_raw(peer.uid()), geteuid()));
        if !is_trusted {
            return Ok(None);
        }
        if self.clients.len() >= self.max_clients {
            let least = self.clients.iter().min_by_key(|(id, client)| (client.worth(), **id));
            if let Some(id) = least.map(|(id, _)| *id) {
                self.evict(id);
            }
        }
        let client = self.next_id();
        self.clients.insert(client, Conversation::new(stream, now));
        Ok(Some(client))
    }

    /// The clients that had to make room for others since the last call; they are closed.
    pub fn take_evicted(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.evicted)
    }

    fn evict(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(&id).filter(|client| !client.wants_write()) {
            turn_away(client.fd());
        }
        self.close(id);
        self.evicted.push(id);
    }

    /// Goes on with a client that has become ready, or that was answered: sends what waits, and
    /// reads. Call it until it returns `None`; [`reply`](ControlServer::reply) to each request
    /// before the next call.
    pub fn on_ready(&mut self, client: ClientId, now: Time) -> Option<Request> {
        match self.clients.get_mut(&client)?.advance(now) {
            Step::Request(request) => return Some(request),
            Step::Wait => {}
            Step::Over => self.close(client),
        }
        None
    }

    /// Answers a request with one line of JSON. Where too much waits for clients that do not read,
    /// those make room that have not read for longest.
    pub fn reply(&mut self, client: ClientId, answer: &impl Serialize, now: Time) {
        let Some(conversation) = self.clients.get_mut(&client) else { return };
        if let Step::Over = conversation.answer(answer, now) {
            self.close(client);
        }
        while self.clients.values().map(Conversation::unsent).sum::<usize>() > MAX_UNSENT {
            let others = self.clients.iter().filter(|(id, it)| **id != client && it.unsent() > 0);
            let slowest = others.min_by_key(|(id, it)| (it.deadline(), **id)).map(|(id, _)| *id);
            let Some(slowest) = slowest else { return };
            self.evict(slowest);
        }
    }

    /// Closes a connection: the client sees the end of file at once, whoever holds the descriptor.
    pub fn close(&mut self, client: ClientId) {
        if let Some(conversation) = self.clients.remove(&client) {
            // It fails only where the other end is gone already.
            let _ = shutdown(conversation.fd().as_raw_fd(), Shutdown::Both);
        }
    }

    /// Closes the clients that took too long, and names them.
    pub fn expire(&mut self, now: Time) -> Vec<ClientId> {
        let is_late = |client: &Conversation| client.deadline().is_some_and(|at| at <= now);
        let late = self.clients.iter().filter(|(_, client)| is_late(client));
        let late: Vec<ClientId> = late.map(|(id, _)| *id).collect();
        for id in &late {
            if let Some(client) = self.clients.get_mut(id) {
                client.expire(now);
            }
            self.close(*id);
        }
        late
    }

    fn next_id(&mut self) -> ClientId {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.clients.contains_key(&ClientId(self.last)) {
                return ClientId(self.last);
            }
        }
    }
}

/// The mode of the socket says the same, but a path may be opened up by whoever owns it.
fn may_command(peer: Uid, own: Uid) -> bool {
    peer == own || peer.is_root()
}

/// Tells a client why it is closed, if that can be done without waiting.
fn turn_away(stream: &OwnedFd) {
    let Ok(mut line) = serde_json::to_vec(&Failed::because("too many clients")) else { return };
    line.push(b'\n');
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = send(stream.as_raw_fd(), &line, flags);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_command() {
        let (root, own, other) = (Uid::from_raw(0), Uid::from_raw(1_000), Uid::from_raw(1_001));
        assert!(may_command(own, own));
        assert!(may_command(root, own));
        assert!(!may_command(other, own));
        assert!(!may_command(own, root));
    }
}
