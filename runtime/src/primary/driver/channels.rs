//! Workers' channels: what is read from them, and what is sent.

use std::os::fd::AsFd;

use roundel_core::{Attach, ChannelEvent, WorkerId};

use super::accept::ListenSocket;
use super::peer::Peer;
use super::{Change, Held, PrimaryDriver, Source, report};
use crate::primary::channel_io::{self, ReadState};
use crate::unix::transmit::Flush;

impl PrimaryDriver {
    pub(super) fn read_channel(&mut self, id: WorkerId) {
        let at_ms = self.at_ms();
        let Some(Peer { fd, channel, skips, .. }) = self.peers.get_mut(&id) else { return };
        let (core, now, events) = (&mut self.core, self.now, &mut self.events);
        let mut unheard = false;
        let skipped = &mut self.skipped;
        let state = channel_io::read(channel, &mut fd.as_fd(), &mut self.read_buffer, |event| {
            if let ChannelEvent::User { json, handle } = &event {
                match &mut *events {
                    Some(events) => {
                        let line = report::user_message(at_ms, id, json, handle.is_some());
                        events.write(&line.finish());
                    }
                    // This is the message that the primary waits for.
                    None if core.config().wait_ready() && *json == "\"ready\"" => {}
                    None => unheard = true,
                }
            }
            if let ChannelEvent::Skipped { reason, length, with_handle } = event {
                *skipped += 1;
                if let Some(events) = &mut *events
                    && let Some(untold) = skips.next(at_ms)
                {
                    let line = report::message_skipped(at_ms, id, reason, length, with_handle);
                    events.write(&line.with("untold", untold).finish());
                }
            }
            if let Some(input) = event.into_input(id) {
                core.input(now, input);
            }
        });
        // Try to send what was blocked: the adapter does not say whether it is ready to read or to
        // write.
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
            ReadState::Closed => self.close_channel(id),
        }
    }

    /// Sends every worker what waits for it.
    pub(super) fn flush(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            self.flush_channel(id);
        }
    }

    fn flush_channel(&mut self, id: WorkerId) {
        let Some(Peer { fd, channel, .. }) = self.peers.get_mut(&id) else { return };
        let (custody, sockets) = (&self.custody, &self.sockets);
        let resolve = |attach: &Attach| match attach {
            Attach::Conn(conn) => custody.get(*conn).map(Held::as_fd),
            Attach::Listener(listener) => sockets.get(listener).map(ListenSocket::as_fd),
        };
        let (core, now) = (&mut self.core, self.now);
        let flush = channel_io::flush(channel, &mut fd.as_fd(), resolve, |event| {
            if let Some(input) = event.into_input(id) {
                core.input(now, input);
            }
        });
        match flush {
            Flush::Done | Flush::Blocked => {}
            // No readiness shows when this is over; any worker's ack may end it.
            Flush::TooManyRefs => self.retry_later(),
            // End of file, and acks before it, are still to be read.
            Flush::Closed => drop(self.ready.insert(Source::Channel(id))),
        }
        let blocked = flush == Flush::Blocked;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.watched_for_write != blocked {
            peer.watched_for_write = blocked;
            let source = Source::Channel(id);
            self.changes.push_back(Change::Rewatch { source, writable: blocked });
        }
    }

    pub(super) fn close_channel(&mut self, id: WorkerId) {
        if self.peers.remove(&id).is_some() {
            self.changes.push_back(Change::Unwatch { source: Source::Channel(id) });
        }
    }
}
