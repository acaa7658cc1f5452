//! Connections: arrived, taken or declined; delivered only after the answer is in the kernel.

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Phase, Worker, WorkerOutput};
use crate::{ConnId, ConnRange, FromWorker, ListenerId, Seq};

/// How many connections may wait for the program. More are declined, since the program does not
/// take them.
pub(super) const MAX_UNTAKEN: u32 = 65_536;

/// Handles that one message can carry (SCM_MAX_FD, unix(7)); if a message claims more, only so many
/// count.
pub(super) const MAX_BATCH: u32 = 253;

/// A connection that has arrived and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Untaken {
    pub(super) seq: Seq,
    pub(super) conn: ConnId,
}

/// What waits for a `Send` to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Unsent {
    /// Nothing.
    Plain,
    /// The delivery of the connection that it accepts.
    Acceptance { conn: ConnId, listener: ListenerId },
}

impl Worker {
    pub(super) fn on_new_conn(
        &mut self,
        first_seq: Seq,
        listener: ListenerId,
        count: u32,
        handles: &mut ConnRange,
    ) {
        if count > MAX_BATCH {
            self.strays += 1;
        }
        for n in 0..count.min(MAX_BATCH) {
            let seq = first_seq.plus(n);
            let conn = handles.next();
            let wanted = self.phase == Phase::Serving && self.untaken < MAX_UNTAKEN;
            match (conn, self.listener_mut(listener)) {
                (Some(conn), Some(record)) if wanted => {
                    record.untaken.push_back(Untaken { seq, conn });
                    self.untaken += 1;
                }
                (conn, _) => self.decline(seq, conn),
            }
        }
    }

    fn decline(&mut self, seq: Seq, conn: Option<ConnId>) {
        self.send(FromWorker::Ack { ack: seq, accepted: false });
        if let Some(conn) = conn {
            self.emit(WorkerOutput::Discard { conn });
        }
    }

    pub(super) fn on_take(&mut self, listener: Option<ListenerId>) {
        if let Some((listener, Untaken { seq, conn })) = self.next_untaken(listener) {
            let purpose = Unsent::Acceptance { conn, listener };
            self.send_for(FromWorker::Ack { ack: seq, accepted: true }, purpose);
        }
    }

    pub(super) fn on_decline(&mut self, listener: Option<ListenerId>) {
        if let Some((_, Untaken { seq, conn })) = self.next_untaken(listener) {
            self.decline(seq, Some(conn));
        }
    }

    /// Takes out the connection that arrived first, at one listener or at any.
    fn next_untaken(&mut self, listener: Option<ListenerId>) -> Option<(ListenerId, Untaken)> {
        let record = match listener {
            Some(listener) => self.listener_mut(listener)?,
            // A worker has few listeners, usually one.
            None => self
                .listeners
                .iter_mut()
                .filter(|record| !record.untaken.is_empty())
                .min_by_key(|record| record.untaken.front().map(|entry| entry.conn))?,
        };
        let entry = record.untaken.pop_front()?;
        let listener = record.id;
        self.untaken -= 1;
        Some((listener, entry))
    }

    pub(super) fn on_sent(&mut self) {
        if self.phase == Phase::Gone {
            return;
        }
        self.polled = self.polled.saturating_sub(1);
        if let Some(Unsent::Acceptance { conn, listener }) = self.unsent.pop_front() {
            self.emit(WorkerOutput::Deliver { conn, listener });
        }
    }

    pub(super) fn decline_waiting(&mut self, waiting: VecDeque<Untaken>) {
        for Untaken { seq, conn } in waiting {
            self.untaken -= 1;
            self.decline(seq, Some(conn));
        }
    }

    pub(super) fn decline_all(&mut self) {
        for at in 0..self.listeners.len() {
            if let Some(record) = self.listeners.get_mut(at) {
                let waiting = core::mem::take(&mut record.untaken);
                self.decline_waiting(waiting);
            }
        }
    }

    /// If the acceptance of a connection may not have reached the primary, the program does not get
    /// it: the primary hands it to another worker.
    pub(super) fn drop_unsent(&mut self) {
        for unsent in core::mem::take(&mut self.unsent) {
            if let Unsent::Acceptance { conn, .. } = unsent {
                self.emit(WorkerOutput::Discard { conn });
            }
        }
        self.polled = 0;
    }

    pub(super) fn drop_untaken(&mut self) {
        for record in &mut self.listeners {
            for Untaken { conn, .. } in core::mem::take(&mut record.untaken) {
                self.outputs.push_back(WorkerOutput::Discard { conn });
            }
        }
        self.untaken = 0;
    }
}
