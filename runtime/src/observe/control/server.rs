//! The primary's side of the control socket. Nothing here waits: an event loop drives it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::unistd::{Uid, geteuid};
use roundel_core::Time;
use serde::Serialize;

use super::conversation::{Conversation, Step};
use super::path::{self, ControlError, Place};
use super::{Failed, Request};
use crate::unix::sys;

/// How many clients may be connected at the same time.
pub(super) const MAX_CLIENTS: usize = 64;

/// Bytes of answers that may wait for all clients together.
pub(super) const MAX_UNSENT: usize = 32 * 1024 * 1024;

/// One client connection of the control socket. A number is not used again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// The control socket and its clients.
///
/// An event loop watches [`fd`](ControlServer::fd) for connections, and each client's
/// [`client_fd`](ControlServer::client_fd): for readiness to write while
/// [`wants_write`](ControlServer::wants_write) returns true, for readiness to read otherwise. A
/// client may be gone in any call that takes its id; `wants_write` then returns `None`.
///
/// When the server is dropped, its path is removed if it is still this server's. Clients see the
/// end of file once every holder of their descriptors has closed them.
#[derive(Debug)]
pub struct ControlServer {
    // Field order: the place is dropped before the socket. While the socket is open, no other
    // primary takes the path.
    place: Place,
    listener: Arc<OwnedFd>,
    clients: BTreeMap<ClientId, Conversation>,
    /// Clients evicted to make room, and not yet reported.
    evicted: Vec<ClientId>,
    /// The limit on clients.
    max_clients: usize,
    last: u32,
}

impl ControlServer {
    /// Listens at `path`, or at the default place: `roundel-PID.sock` in `$XDG_RUNTIME_DIR`, if
    /// that is this user's, or in `roundel-UID` in the temporary directory, which is made with mode
    /// 0700. The socket has mode 0600 from its creation. If no process listens any more at a socket
    ///       at that path, it is replaced.
    ///
    /// # Errors
    /// [`ControlError`] if another process listens there, if it is not a socket, or if a call
    /// fails.
    pub fn bind(path: Option<&Path>) -> Result<Self, ControlError> {
        let (listener, place) = match path {
            Some(path) => path::claim(path)?,
            None => path::claim_default(&path::directories())?,
        };
        let (listener, clients) = (Arc::new(listener), BTreeMap::new());
        let (evicted, max_clients) = (Vec::new(), MAX_CLIENTS);
        Ok(ControlServer { place, listener, clients, evicted, max_clients, last: 0 })
    }

    /// Lowers the limit on clients to the number of descriptors kept free for them.
    #[cfg(feature = "primary")]
    pub(crate) fn limit_clients(&mut self, count: usize) {
        self.max_clients = count.min(MAX_CLIENTS);
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The descriptor that becomes readable when a client connects.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.listener
    }

    /// The descriptor that becomes readable or writable when [`on_ready`](ControlServer::on_ready)
    /// must be called.
    pub fn client_fd(&self, client: ClientId) -> Option<&Arc<OwnedFd>> {
        self.clients.get(&client).map(Conversation::fd)
    }

    /// True while an answer waits for readiness to write; `None` if the client is gone.
    pub fn wants_write(&self, client: ClientId) -> Option<bool> {
        self.clients.get(&client).map(Conversation::wants_write)
    }

    /// True if a client sends nothing more and waits for its answer: then it must not be watched.
    pub fn is_half_closed(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(Conversation::is_half_closed)
    }

    /// When [`expire`](ControlServer::expire) must be called next.
    pub fn deadline(&self) -> Option<Time> {
        self.clients.values().filter_map(Conversation::deadline).min()
    }

    /// Accepts one connection. `None` means that another user was turned away. If the limit on
    /// clients is reached, the client without a request for longest is evicted: see
    /// [`take_evicted`](ControlServer::take_evicted).
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if no connection waits. Others, such as EMFILE
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
            turn_away(&stream, "only root and the user of the primary may ask");
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

    /// The clients evicted to make room since the last call; they are closed.
    pub fn take_evicted(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.evicted)
    }

    fn evict(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(&id).filter(|client| !client.wants_write()) {
            turn_away(client.fd(), "too many clients");
        }
        self.close(id);
        self.evicted.push(id);
    }

    /// Continues with a client that has become ready or was answered: sends what waits, and reads.
    /// Call it until it returns `None`; [`reply`](ControlServer::reply) to each request before the
    /// next call.
    pub fn on_ready(&mut self, client: ClientId, now: Time) -> Option<Request> {
        match self.clients.get_mut(&client)?.advance(now) {
            Step::Request(request) => return Some(request),
            Step::Wait => {}
            Step::Over => self.close(client),
        }
        None
    }

    /// Tells a client how far its request is, with one line of JSON, unless it still has to read
    /// what was told before. The answer follows.
    pub fn progress(&mut self, client: ClientId, progress: &impl Serialize, now: Time) {
        let Some(conversation) = self.clients.get_mut(&client) else { return };
        if let Step::Over = conversation.progress(progress, now) {
            self.close(client);
        }
    }

    /// Answers a request with one line of JSON. If too many bytes wait for clients that do not
    /// read, those that have not read for longest are evicted.
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

    /// Has a client follow what workers print: those of this slot, or all of them.
    pub fn follow(&mut self, client: ClientId, slot: Option<u32>, now: Time) {
        let Some(conversation) = self.clients.get_mut(&client) else { return };
        if let Step::Over = conversation.follow(slot, now) {
            self.close(client);
        }
    }

    /// True if a client follows what workers print.
    pub fn is_followed(&self) -> bool {
        self.clients.values().any(Conversation::is_following)
    }

    /// Sends lines of JSON, which a worker of this slot has printed, to the clients that follow it.
    /// Returns the clients for which the event loop must look at
    /// [`wants_write`](ControlServer::wants_write) again.
    pub fn publish(&mut self, slot: u32, lines: &[u8], now: Time) -> Vec<ClientId> {
        let mut changed = Vec::new();
        let mut over = Vec::new();
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| client.is_following()) {
            let was_blocked = client.wants_write();
            client.publish(slot, lines);
            if was_blocked {
                continue;
            }
            match client.flush(now) {
                Step::Over => over.push(*id),
                _ if client.wants_write() => changed.push(*id),
                _ => {}
            }
        }
        over.iter().for_each(|id| self.close(*id));
        changed.extend(over);
        changed
    }

    /// Tells the clients that follow workers' output that the primary ends. Waits up to `patience`
    /// for those that have not read everything.
    pub fn end_following(&mut self, patience: Duration, now: Time) {
        let deadline = Instant::now() + patience;
        for client in self.clients.values_mut().filter(|client| client.is_following()) {
            client.publish_end();
            while let Step::Wait = client.flush(now)
                && client.wants_write()
            {
                let left = deadline.saturating_duration_since(Instant::now());
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                let mut fds = [PollFd::new(client.fd().as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, left).is_ok_and(|ready| ready == 0) {
                    break;
                }
            }
        }
    }

    /// Closes a connection: the client sees the end of file at once, even if others hold the
    /// descriptor.
    pub fn close(&mut self, client: ClientId) {
        if let Some(conversation) = self.clients.remove(&client) {
            // It fails only if the other end is gone already.
            let _ = shutdown(conversation.fd().as_raw_fd(), Shutdown::Both);
        }
    }

    /// Closes the clients that took too long, and returns them.
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

/// The mode of the socket allows the same users, but the owner of a path can open it to others.
fn may_command(peer: Uid, own: Uid) -> bool {
    peer == own || peer.is_root()
}

/// Tells a client why its connection is closed, if that can be sent without waiting.
fn turn_away(stream: &OwnedFd, why: &str) {
    let Ok(mut line) = serde_json::to_vec(&Failed::because(why)) else { return };
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
