//! Listeners of the primary, and what it does when its turn comes.

use std::net::SocketAddr;

use roundel_core::{ConnId, Input, ListenerId, SockName, WorkerId};

use super::socket::Socket;
use super::{Fate, Sim};
use crate::fault::Property;
use crate::mutants::Mutant;
use crate::token::Token;

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
pub(super) struct Door {
    pub(super) open: bool,
    pub(super) accepting: bool,
    pub(super) shared: bool,
    /// Clients in the kernel's queue.
    pub(super) backlog: u32,
}

impl Sim {
    /// Accepts clients as far as the core wants them.
    pub(super) fn accept(&mut self, listener: ListenerId, at_most: u32) {
        if self.forgets() == Some(listener) {
            return;
        }
        for _ in 0..at_most {
            let Some(door) = self.doors.get_mut(&listener) else { return };
            if !door.accepting || door.backlog == 0 {
                return;
            }
            door.backlog -= 1;
            self.admit(listener);
        }
    }

    /// The listener of which this embedder does not hear.
    pub(super) fn forgets(&self) -> Option<ListenerId> {
        let forgets = self.mutant == Some(Mutant::ForgetListener);
        self.doors.keys().next().copied().filter(|_| forgets)
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

    /// Does the oldest thing that was asked for and answers the core.
    pub(super) fn do_one(&mut self) -> bool {
        let Some(todo) = self.todo.pop_front() else { return false };
        match todo {
            Todo::Spawn(id) => self.spawn(id),
            Todo::Bind(listener) => {
                let result = if self.failing_binds > 0 {
                    self.failing_binds -= 1;
                    Err(roundel_core::Errno::EADDRINUSE)
                } else {
                    let port = 1_000 + listener.get() as u16;
                    Ok(SockName::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
                };
                if result.is_ok() {
                    let shared = self.core.core.is_shared(listener);
                    let door = self.doors.entry(listener).or_default();
                    (door.open, door.shared) = (true, shared);
                }
                self.input(Input::Bound { listener, result });
            }
            // It was closed at once meanwhile, or has been emptied by now.
            Todo::Unbind(listener) | Todo::Close(listener)
                if !self.doors.contains_key(&listener) => {}
            Todo::Close(listener) => {
                self.doors.remove(&listener);
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
                while let Some(door) = self.doors.get_mut(&listener)
                    && door.backlog > 0
                    && !door.shared
                {
                    door.backlog -= 1;
                    self.admit(listener);
                }
                self.doors.remove(&listener);
                self.input(Input::Unbound { listener });
            }
        }
        true
    }
}
