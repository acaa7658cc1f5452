//! Workers' channels: what is read from them, and what is sent.

use std::os::fd::AsFd;

use roundel_core::{Attach, Input, ToWorker, WorkerId};

use super::accept::ListenSocket;
use super::peer::Peer;
use super::{Change, PrimaryDriver, Source, report};
use crate::outbox::Flush;
use crate::primary::worker_channel::{Heard, ReadState};

impl PrimaryDriver {
    pub(super) fn read_channel(&mut self, id: WorkerId) {
        let at_ms = self.at_ms();
        let Some(Peer { fd, channel, skips, .. }) = self.peers.get_mut(&id) else { return };
        let (core, now, events) = (&mut self.core, self.now, &mut self.events);
        let mut unheard = false;
        let skipped = &mut self.skipped;
        let state = channel.read(&mut fd.as_fd(), &mut self.read_buffer, |heard| {
            if let Heard::User { json, with_handle } = &heard {
                match &mut *events {
                    Some(events) => {
                        let line = report::user_message(at_ms, id, json, *with_handle);
                        events.write(&line.finish());
                    }
                    // That is what it is asked for.
                    None if *core.config().wait_ready() && *json == "\"ready\"" => {}
                    None => unheard = true,
                }
            }
            if let Heard::Skipped { reason, length, with_handle } = heard {
                *skipped += 1;
                if let Some(events) = &mut *events
                    && let Some(untold) = skips.next(at_ms)
                {
                    let line = report::message_skipped(at_ms, id, reason, length, with_handle);
                    events.write(&line.with("untold", untold).finish());
                }
            }
            if let Some(input) = heard.into_input(id) {
                core.input(now, input);
            }
        });
        // What was blocked may go now: the adapter does not say for which of the two it is ready.
        if channel.has_unsent() {
            self.unsent.insert(id);
        }
        if unheard && !std::mem::replace(&mut self.hinted, true) {
            let pid = self.pids.get(&id).copied();
            self.say(&report::unheard(id, pid));
        }
        match state {
            ReadState::Wait => {}
            ReadState::More => {
                self.ready.insert(Source::Channel(id));
            }
            ReadState::Closed => self.close_link(id),
        }
    }

    /// Sends to every worker what waits for it.
    pub(super) fn flush(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            self.flush_link(id);
        }
    }

    fn flush_link(&mut self, id: WorkerId) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let (custody, sockets) = (&self.custody, &self.sockets);
            let flush = peer.channel.flush(&mut peer.fd.as_fd(), |attach| match attach {
                Attach::Conn(conn) => custody.get(*conn).map(std::os::fd::AsFd::as_fd),
                Attach::Listener(listener) => sockets.get(listener).map(ListenSocket::as_fd),
            });
            let blocked = match flush {
                Flush::Done => false,
                Flush::Blocked => true,
                Flush::TooManyRefs => {
                    // No readiness tells when it is over; an ack of any worker may.
                    self.retry_later();
                    false
                }
                Flush::Closed => {
                    // End of file, and acks before it, are still to be read.
                    self.ready.insert(Source::Channel(id));
                    false
                }
                Flush::Failed { errno, msg, .. } => {
                    self.on_send_failed(id, &msg, errno);
                    continue;
                }
            };
            let Some(peer) = self.peers.get_mut(&id) else { return };
            if peer.watched_for_write != blocked {
                peer.watched_for_write = blocked;
                let source = Source::Channel(id);
                self.changes.push_back(Change::Rewatch { source, writable: blocked });
            }
            return;
        }
    }

    fn on_send_failed(&mut self, worker: WorkerId, msg: &ToWorker, errno: i32) {
        let errno = roundel_core::Errno(errno);
        if let ToWorker::NewConn { first_seq, count, .. } = msg {
            for seq in first_seq.following(*count) {
                self.input(Input::HandoffFailed { worker, seq, errno });
            }
        }
    }

    pub(super) fn close_link(&mut self, id: WorkerId) {
        if self.peers.remove(&id).is_some() {
            self.changes.push_back(Change::Unwatch { source: Source::Channel(id) });
        }
    }
}
