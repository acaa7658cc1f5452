//! Listeners of the primary: bind, accept, pause, empty, close.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use roundel_core::{ACCEPTS_PER_TURN, Input, ListenKey, ListenerId};

use super::{Change, Held, PrimaryDriver, Source};
use crate::unix::reserve::Reserve;
use crate::unix::socket::{self, Bound};
use crate::unix::unix_path::BoundPath;

/// How many waiting connections are accepted from a listener before it is closed, however many more
/// arrive.
const MAX_EMPTIED: u32 = 65_536;

/// A listener and the primary's state for it.
#[derive(Debug)]
pub(super) struct ListenSocket {
    bound: Bound,
    fd: Arc<OwnedFd>,
    state: ListenState,
    /// Out of descriptors: nothing is accepted from it until the next retry.
    starved: bool,
    /// That was reported, and no connection could be accepted since.
    starved_told: bool,
    watched: bool,
    /// An accept was tried since the queues were last checked.
    visited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenState {
    Paused,
    Accepting,
    /// Being emptied; so many connections were accepted so far.
    Emptying(u32),
    /// Will be closed without further accepts, once the adapter has dropped its copy.
    Closing,
}

impl ListenSocket {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The socket itself, to be let go soon: it can't be closed meanwhile.
    pub(super) fn shared(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Sets which users may connect to a unix socket.
    pub(super) fn set_mode(&self, mode: u32) {
        self.bound.set_mode(mode);
    }

    /// The path of a unix socket.
    pub(super) fn path(&self) -> Option<&BoundPath> {
        self.bound.path()
    }

    /// Whether connections that arrive should be accepted, and can be.
    pub(super) fn is_accepting(&self) -> bool {
        self.state == ListenState::Accepting && !self.starved
    }

    /// Whether an accept was tried since the last call.
    pub(super) fn take_visited(&mut self) -> bool {
        std::mem::take(&mut self.visited)
    }

    /// Accepts one connection, if one waits. Without a free descriptor the kernel reports an error
    /// even if none waits. While a listener is emptied before its close, a spare descriptor is
    /// lent.
    fn accept(&self, spare: &mut Reserve) -> Result<Option<OwnedFd>, i32> {
        let accepted = socket::accept(self.as_fd());
        match (accepted, self.state) {
            (Err(_), _) if !socket::is_readable(self.as_fd()) => Ok(None),
            (Err(_), ListenState::Emptying(_)) => spare.lend(|| socket::accept(self.as_fd())),
            (accepted, _) => accepted,
        }
    }
}

impl PrimaryDriver {
    pub(super) fn bind(&mut self, listener: ListenerId, key: &ListenKey, backlog: u32) {
        // A bind for a worker must not remove another process's socket file.
        let is_operators = self.core.config().listeners().contains(key);
        let stored = if is_operators { self.take_stored(key) } else { None };
        let is_new = stored.is_none();
        let bound = match stored {
            Some(stored) => Ok(stored),
            None if is_operators => {
                let file = self.socket_files.of(&key.address);
                socket::bind_with(key, backlog, &self.inherited, file)
            }
            None => socket::bind_new(key, backlog, &self.inherited),
        };
        let result = match bound {
            Ok((fd, bound)) => {
                let sockname = bound.sockname.clone();
                self.counter.names.add(&fd);
                let fd = Arc::new(fd);
                if is_operators && is_new {
                    self.store(key, &fd);
                }
                let state = ListenState::Paused;
                let socket = ListenSocket {
                    bound,
                    fd,
                    state,
                    starved: false,
                    starved_told: false,
                    watched: false,
                    visited: false,
                };
                self.sockets.insert(listener, socket);
                Ok(sockname)
            }
            Err(errno) => Err(errno),
        };
        self.input(Input::Bound { listener, result });
    }

    pub(super) fn resume(&mut self, listener: ListenerId) {
        self.set_state(listener, ListenState::Paused, ListenState::Accepting);
    }

    pub(super) fn pause(&mut self, listener: ListenerId) {
        self.set_state(listener, ListenState::Accepting, ListenState::Paused);
    }

    /// Begins to empty a listener, which ends with its close.
    pub(super) fn empty(&mut self, listener: ListenerId) {
        self.pause(listener);
        self.set_state(listener, ListenState::Paused, ListenState::Emptying(0));
    }

    fn set_state(&mut self, listener: ListenerId, from: ListenState, to: ListenState) {
        let Some(socket) = self.sockets.get_mut(&listener) else { return };
        if socket.state == from {
            socket.state = to;
            self.watch_listener(listener);
            self.ready.insert(Source::Listener(listener));
        }
    }

    /// Watches a listener only while the primary accepts from it and descriptors are available:
    /// otherwise each new connection would wake the primary for nothing.
    fn watch_listener(&mut self, listener: ListenerId) {
        let Some(socket) = self.sockets.get_mut(&listener) else { return };
        let watched = socket.is_accepting();
        if std::mem::replace(&mut socket.watched, watched) == watched {
            return;
        }
        let source = Source::Listener(listener);
        self.changes.push_back(if watched {
            Change::Watch { source, fd: socket.fd.clone(), writable: false }
        } else {
            Change::Unwatch { source }
        });
    }

    /// Accepts within the budget of a turn.
    pub(super) fn accept(&mut self, listener: ListenerId) {
        for _ in 0..ACCEPTS_PER_TURN {
            // Between two connections the machine may have asked for a pause.
            let emptied = self.core.is_emptied(listener);
            let Some(socket) = self.sockets.get_mut(&listener) else { return };
            socket.visited = true;
            match &mut socket.state {
                ListenState::Paused => return,
                ListenState::Closing => return self.close_socket(listener),
                ListenState::Emptying(_) if !emptied => return self.close_socket(listener),
                _ if socket.starved => return,
                ListenState::Accepting => {}
                ListenState::Emptying(_) if self.core.is_full() => {
                    self.awaiting_room.insert(listener);
                    return;
                }
                ListenState::Emptying(count) => {
                    *count += 1;
                    if *count > MAX_EMPTIED {
                        return self.close_socket(listener);
                    }
                }
            }
            // Only the workers accept from a shared listener.
            let is_shared = self.core.is_shared(listener);
            let accepted = if is_shared { Ok(None) } else { socket.accept(&mut self.spare) };
            match accepted {
                Ok(Some(fd)) => {
                    socket.starved_told = false;
                    let conn = self.custody.admit(Held::new(fd, self.now));
                    if let Some(metrics) = &mut self.metrics {
                        metrics.meter().received();
                    }
                    self.input(Input::Incoming { listener, conn });
                    // A pause must take effect before the next accept, which may take the last free
                    // descriptor. Sending waits for the end of the turn.
                    self.execute_outputs();
                }
                Ok(None) => {
                    let Some(socket) = self.sockets.get(&listener) else { return };
                    if matches!(socket.state, ListenState::Emptying(_)) {
                        self.close_socket(listener);
                    }
                    return;
                }
                Err(errno) => return self.starve(listener, errno),
            }
        }
        self.ready.insert(Source::Listener(listener));
    }

    /// Out of descriptors or memory: waits for the retry instead of spinning.
    fn starve(&mut self, listener: ListenerId, errno: i32) {
        let Some(socket) = self.sockets.get_mut(&listener) else { return };
        socket.starved = true;
        let is_news = !std::mem::replace(&mut socket.starved_told, true);
        self.watch_listener(listener);
        self.retry_later();
        if !is_news {
            return;
        }
        let cause = super::report::explain(errno);
        self.log(|at| {
            super::report::Line::new(at, "accept_failed")
                .with("listener", listener.get())
                .with("cause", cause)
        });
    }

    pub(super) fn retry_listeners(&mut self) {
        let starved: Vec<ListenerId> =
            self.sockets.iter().filter(|(_, socket)| socket.starved).map(|(id, _)| *id).collect();
        for listener in starved {
            let Some(socket) = self.sockets.get_mut(&listener) else { continue };
            socket.starved = false;
            self.watch_listener(listener);
            self.ready.insert(Source::Listener(listener));
        }
    }

    /// Resumes emptying listeners that waited for the machine to have room.
    pub(super) fn go_on_emptying(&mut self) {
        if !self.core.is_full() {
            let awaiting_room = std::mem::take(&mut self.awaiting_room);
            self.ready.extend(awaiting_room.into_iter().map(Source::Listener));
        }
    }

    /// Closes a listener once the adapter has dropped its copy too: until then its address is not
    /// free, and the next bind may need it.
    pub(super) fn close_socket(&mut self, listener: ListenerId) {
        let Some(socket) = self.sockets.get_mut(&listener) else { return };
        socket.state = ListenState::Closing;
        if Arc::strong_count(&socket.fd) > 1 {
            self.watch_listener(listener);
            self.ready.insert(Source::Listener(listener));
            return;
        }
        self.unstore_closed(listener);
        if let Some(socket) = self.sockets.remove(&listener) {
            socket.bound.unlink();
            drop(socket.fd);
            self.input(Input::Unbound { listener });
        }
    }
}
