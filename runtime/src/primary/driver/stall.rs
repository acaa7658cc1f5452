//! The stall detector's input: which listeners hold connections that are not being accepted.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roundel_core::{Input, ListenerId, STALLED_AFTER, Time};

use super::accept::ListenSocket;
use super::{PrimaryDriver, Source};

/// How often the queues are checked while no connections come.
const QUIET: Duration = Duration::from_secs(1);

impl PrimaryDriver {
    /// When the queues are checked next; `None` if the primary accepts from no listener.
    pub(super) fn look_due(&self) -> Option<Time> {
        self.sockets.values().any(ListenSocket::is_accepting).then_some(self.look_at)
    }

    /// Checks the queues if it is time. Call it between turns: connections of a listener in `ready`
    /// are about to be accepted.
    pub(super) fn look_at_queues(&mut self) {
        if self.look_due().is_none_or(|at| at > self.now) {
            return;
        }
        let (mut idle, mut busy) = (Vec::new(), false);
        for (&id, socket) in &mut self.sockets {
            let visited = socket.take_visited();
            busy |= visited;
            if socket.is_accepting() && !visited && !self.ready.contains(&Source::Listener(id)) {
                idle.push(id);
            }
        }
        let waiting = self.with_connections(&idle);
        let suspects: BTreeSet<_> =
            self.core.suspects().into_iter().chain(waiting.clone()).collect();
        let quiet = suspects.is_empty();
        for listener in suspects {
            self.input(Input::Queue { listener, waiting: waiting.contains(&listener) });
        }
        self.carry_out();
        self.look_at = self.now + if quiet && !busy { QUIET } else { STALLED_AFTER };
    }

    /// The listeners among these that hold a connection, which makes them readable (accept(2)).
    fn with_connections(&self, listeners: &[ListenerId]) -> Vec<ListenerId> {
        let sockets = listeners.iter().filter_map(|id| Some((*id, self.sockets.get(id)?)));
        let (ids, mut fds): (Vec<_>, Vec<_>) = sockets
            .map(|(id, socket)| (id, PollFd::new(socket.as_fd(), PollFlags::POLLIN)))
            .unzip();
        if fds.is_empty() || poll(&mut fds, PollTimeout::ZERO).is_err() {
            return Vec::new();
        }
        let readable =
            |fd: &PollFd<'_>| fd.revents().is_some_and(|e| e.contains(PollFlags::POLLIN));
        ids.into_iter().zip(&fds).filter(|(_, fd)| readable(fd)).map(|(id, _)| id).collect()
    }
}
