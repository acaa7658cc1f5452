//! Listeners of the primary, and what it does when its turn comes.

use std::net::SocketAddr;

use roundel_core::{Address, ConnId, Input, ListenKey, ListenerId, SockName, WorkerId};

use super::socket::Socket;
use super::{Fate, Sim};
use crate::faults::fault::Property;
use crate::faults::mutants::Mutant;
use crate::sim::plan::is_taken;
use crate::sim::token::Token;

/// Something that the embedder will tell the core when its turn comes.
#[derive(Clone, Debug)]
pub(super) enum Todo {
    Spawn(WorkerId),
    Bind(ListenerId),
    Unbind(ListenerId),
    Close(ListenerId),
    Count(WorkerId),
}

/// A listener as the embedder has it.
#[derive(Debug, Default)]
pub(super) struct ListenSocket {
    pub(super) open: bool,
    pub(super) accepting: bool,
    pub(super) shared: bool,
    /// Clients in the kernel's queue.
    pub(super) backlog: u32,
    /// Where it is, or will be.
    pub(super) at: Option<SocketAddr>,
}

/// Where a listener will be: where it was asked for, or on a port that no other one has.
pub(super) fn socket_address(listener: ListenerId, key: &ListenKey) -> Option<SocketAddr> {
    match key.address {
        Address::Ip(addr) if addr.port() != 0 => Some(addr),
        _ => {
            let port = 20_000_u16.wrapping_add(listener.get() as u16);
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        }
    }
}

impl Sim {
    /// Accepts clients as far as the core wants them.
    pub(super) fn accept(&mut self, listener: ListenerId, at_most: u32) {
        if self.forgets() == Some(listener) {
            return;
        }
        for _ in 0..at_most {
            let Some(socket) = self.sockets.get_mut(&listener) else { return };
            if !socket.accepting || socket.backlog == 0 {
                return;
            }
            socket.backlog -= 1;
            self.admit(listener);
        }
    }

    /// The listener of which this embedder does not hear.
    pub(super) fn forgets(&self) -> Option<ListenerId> {
        let forgets = self.mutant == Some(Mutant::ForgetListener);
        self.sockets.keys().next().copied().filter(|_| forgets)
    }

    fn admit(&mut self, listener: ListenerId) {
        let raw = self.fates.len() as u64 + 1;
        let Some(name) = ConnId::from_raw(raw) else { return };
        let socket = Socket::new(name);
        self.fates.push(Fate { served: Vec::new(), released: None, socket: socket.watch() });
        let conn = self.custody.admit((Token::new(raw), socket));
        if conn != name {
            self.fault(Property::Invariants, format!("{name} is called {conn}"));
        }
        self.input(Input::Incoming { listener, conn });
    }

    fn is_in_use(&self, wanted: Option<SocketAddr>) -> bool {
        let Some(wanted) = wanted else { return false };
        let key = ListenKey::stream(Address::Ip(wanted));
        let mut open =
            self.sockets.values().filter(|socket| socket.open).filter_map(|socket| socket.at);
        open.any(|at| is_taken(&key, at))
    }

    /// What is about to be bound must not find a listener of ours there that nobody holds.
    pub(super) fn look_for_leftovers(&mut self, key: &ListenKey) {
        let open = self.sockets.iter().filter(|(_, socket)| socket.open);
        let taken = open.filter(|(_, socket)| socket.at.is_some_and(|at| is_taken(key, at)));
        let left: Vec<ListenerId> =
            taken.map(|(id, _)| *id).filter(|id| self.life.is_left_behind(*id)).collect();
        if !left.is_empty() {
            self.fault(Property::Listeners, format!("{left:?} is in the way of {key:?}"));
        }
    }

    /// Does the oldest thing that was asked for and answers the core.
    pub(super) fn do_one(&mut self) -> bool {
        let Some(todo) = self.todo.pop_front() else { return false };
        match todo {
            Todo::Spawn(id) => self.spawn(id),
            Todo::Bind(listener) => {
                let at = self.sockets.get(&listener).and_then(|socket| socket.at);
                let taken = self.failing_binds > 0 || self.is_in_use(at);
                self.failing_binds = self.failing_binds.saturating_sub(1);
                let result = match at {
                    Some(at) if !taken => Ok(SockName::Ip(at)),
                    _ => Err(roundel_core::Errno::EADDRINUSE),
                };
                if result.is_ok() {
                    let shared = self.core.core.is_shared(listener);
                    let socket = self.sockets.entry(listener).or_default();
                    (socket.open, socket.shared) = (true, shared);
                }
                self.input(Input::Bound { listener, result });
            }
            // It was closed at once meanwhile, or has been emptied by now.
            Todo::Unbind(listener) | Todo::Close(listener)
                if !self.sockets.contains_key(&listener) => {}
            Todo::Close(listener) => {
                self.sockets.remove(&listener);
                self.input(Input::Unbound { listener });
            }
            Todo::Count(worker) => {
                // Now and then nobody can know.
                let open = match self.rng.below(6) {
                    0 => None,
                    1 => Some(1),
                    _ => Some(0),
                };
                self.input(Input::Connections { worker, open });
            }
            Todo::Unbind(listener) => {
                // Everything that has come is given in, unless it is the workers' to accept.
                while let Some(socket) = self.sockets.get_mut(&listener)
                    && socket.backlog > 0
                    && !socket.shared
                {
                    socket.backlog -= 1;
                    self.admit(listener);
                }
                self.sockets.remove(&listener);
                self.input(Input::Unbound { listener });
            }
        }
        true
    }
}
