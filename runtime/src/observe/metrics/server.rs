//! The HTTP server of the metrics.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
use roundel_core::{Address, ListenKey, SockName, Time};

use super::exchange::{Answer, Exchange, Step};
use super::request::Question;
use crate::unix::socket::{self, Bound, Inherited};

/// How many clients may be connected at the same time.
pub(super) const MAX_CLIENTS: usize = 8;

/// How many clients are accepted in a turn: a flood of them never holds up serving. Not more than
/// there may be, so that each one that was accepted is heard before others take its place.
pub(super) const ACCEPTS_PER_TURN: usize = 4;

/// The descriptors of the metrics: the listener, the clients, those whose place others have taken
/// but that the event loop has not dropped yet, and a file for the memory of the process.
pub(crate) const FDS: usize = 2 + MAX_CLIENTS + ACCEPTS_PER_TURN;

/// The server and its clients.
///
/// An event loop watches [`fd`](MetricsServer::fd) for connections, and each client's
/// [`client_fd`](MetricsServer::client_fd): for readiness to write while
/// [`wants_write`](MetricsServer::wants_write) returns true, for readiness to read otherwise. A
/// client may be gone in any call that takes its number; `wants_write` then returns `None`.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    listener: Arc<OwnedFd>,
    bound: Bound,
    clients: BTreeMap<u32, Exchange>,
    last: u32,
}

impl MetricsServer {
    /// Listens at an address. The path of a unix socket is taken over if nobody listens there.
    ///
    /// # Errors
    /// The errno of the call that failed: see [`socket::bind`].
    pub(crate) fn bind(address: &Address) -> Result<MetricsServer, roundel_core::Errno> {
        let key = ListenKey::stream(address.clone());
        let (listener, bound) = socket::bind(&key, 0, &Inherited::default())?;
        let (listener, clients) = (Arc::new(listener), BTreeMap::new());
        Ok(MetricsServer { listener, bound, clients, last: 0 })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &SockName {
        &self.bound.sockname
    }

    /// The descriptor that becomes readable when a client connects.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.listener
    }

    /// The descriptor that becomes readable or writable when
    /// [`on_ready`](MetricsServer::on_ready) must be called.
    pub(crate) fn client_fd(&self, client: u32) -> Option<&Arc<OwnedFd>> {
        self.clients.get(&client).map(Exchange::fd)
    }

    /// True while an answer waits for readiness to write; `None` if the client is gone.
    pub(crate) fn wants_write(&self, client: u32) -> Option<bool> {
        self.clients.get(&client).map(Exchange::wants_write)
    }

    /// When [`expire`](MetricsServer::expire) must be called next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.clients.values().map(Exchange::deadline).min()
    }

    /// Accepts clients within the budget of a turn. If there are too many, others have to go: first
    /// those without a request. Call [`on_ready`](MetricsServer::on_ready) for each new one before
    /// the next call.
    pub(crate) fn accept(&mut self, now: Time) -> Accepted {
        let mut accepted = Accepted { come: Vec::new(), gone: Vec::new(), left: Left::Perhaps };
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match socket::accept(self.listener.as_fd()) {
                Ok(Some(stream)) => stream,
                Ok(None) => {
                    accepted.left = Left::None;
                    break;
                }
                Err(_) => {
                    accepted.left = Left::Starved;
                    break;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                let others = self.clients.iter().filter(|(id, _)| !accepted.come.contains(id));
                let least = others.min_by_key(|(id, it)| (it.worth(), **id)).map(|(id, _)| *id);
                if let Some(least) = least {
                    self.close(least);
                    accepted.gone.push(least);
                }
            }
            let client = self.next_id();
            self.clients.insert(client, Exchange::new(stream, now));
            accepted.come.push(client);
        }
        accepted
    }

    /// Continues with a client that has become ready or was answered: sends what waits, and reads.
    /// Call it until it returns `None`; [`answer`](MetricsServer::answer) each question before the
    /// next call.
    pub(crate) fn on_ready(&mut self, client: u32, now: Time) -> Option<Question> {
        loop {
            let exchange = self.clients.get_mut(&client)?;
            match exchange.advance(now) {
                Step::Ask(question) => return Some(question),
                Step::Wait => return None,
                Step::Over => self.close(client),
            }
        }
    }

    /// Answers a question.
    pub(crate) fn answer(&mut self, client: u32, answer: Answer, now: Time) {
        let Some(exchange) = self.clients.get_mut(&client) else { return };
        if exchange.answer(answer, now) == Step::Over {
            self.close(client);
        }
    }

    /// Closes the clients that took too long, and returns them.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<u32> {
        let late = self.clients.iter().filter(|(_, client)| client.deadline() <= now);
        let late: Vec<u32> = late.map(|(id, _)| *id).collect();
        for id in &late {
            if let Some(client) = self.clients.get_mut(id) {
                client.expire(now);
            }
            self.close(*id);
        }
        late
    }

    /// The client sees the end of file at once, even if others hold the descriptor.
    fn close(&mut self, client: u32) {
        if let Some(exchange) = self.clients.remove(&client) {
            // It fails only if the other end is gone already.
            let _ = shutdown(exchange.fd().as_raw_fd(), Shutdown::Both);
        }
    }

    fn next_id(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.clients.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.bound.unlink();
    }
}

/// What became of a turn of accepts.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) come: Vec<u32>,
    /// Clients that had to make room; they are closed.
    pub(crate) gone: Vec<u32>,
    pub(crate) left: Left,
}

/// Whether clients still wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    None,
    /// The budget was used up.
    Perhaps,
    /// There is no free descriptor: try again later.
    Starved,
}
