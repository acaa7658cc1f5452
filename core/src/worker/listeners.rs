//! Listeners: asked for, granted, closed.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::conns::Untaken;
use super::{Phase, Worker, WorkerOutput};
use crate::{ConnRange, Errno, FromWorker, Granted, ListenKey, ListenerId, Seq};

/// An ask without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) ask: u32,
    seq: Seq,
    key: Box<ListenKey>,
}

/// A listener that this worker shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    key: Box<ListenKey>,
    /// In the order of arrival.
    pub(super) untaken: VecDeque<Untaken>,
}

impl Worker {
    pub(super) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.iter().find(|record| record.id == id)
    }

    pub(super) fn listener_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|record| record.id == id)
    }

    pub(super) fn on_listen(
        &mut self,
        ask: u32,
        mut key: Box<ListenKey>,
        backlog: u32,
        data: Vec<u8>,
    ) {
        if self.phase != Phase::Serving {
            return self.emit(WorkerOutput::Refused { ask, errno: Errno::ECANCELED });
        }
        key.index = self.free_index(&key);
        let seq = self.take_seq();
        self.asks.push(Ask { ask, seq, key: key.clone() });
        self.send(FromWorker::Query { seq, key, backlog, data });
    }

    /// The first index that no server of this worker has there: that makes the nth server on an
    /// address the same listener in every worker, also after one was closed and opened again.
    fn free_index(&self, key: &ListenKey) -> u32 {
        let asked = self.asks.iter().map(|ask| &ask.key);
        let open = self.listeners.iter().map(|record| &record.key);
        let mut used: Vec<u32> = asked
            .chain(open)
            .filter(|other| other.address == key.address && other.transport == key.transport)
            .map(|other| other.index)
            .collect();
        used.sort_unstable();
        used.iter().zip(0..).take_while(|&(&index, n)| index == n).count() as u32
    }

    pub(super) fn on_reply(
        &mut self,
        ack: Seq,
        result: Result<Box<Granted>, Errno>,
        handles: &mut ConnRange,
    ) {
        let Some(at) = self.asks.iter().position(|ask| ask.seq == ack) else {
            self.strays += 1;
            return;
        };
        let Ask { ask, key, .. } = self.asks.remove(at);
        let granted = match result {
            Ok(granted) => *granted,
            Err(errno) => return self.emit(WorkerOutput::Refused { ask, errno }),
        };
        let Granted { listener, sockname, shared, data } = granted;
        let left = self.phase != Phase::Serving;
        let handle = if shared && !left { handles.next() } else { None };
        if left || (shared && handle.is_none()) || self.listener(listener).is_some() {
            // The last case can't happen: the primary gives a listener to a worker once.
            if self.listener(listener).is_none() {
                self.send(FromWorker::Close { listener });
            }
            if let Some(conn) = handle {
                self.emit(WorkerOutput::Discard { conn });
            }
            let errno = if left { Errno::ECANCELED } else { Errno::EMFILE };
            return self.emit(WorkerOutput::Refused { ask, errno });
        }
        self.listeners.push(Listener { id: listener, key, untaken: VecDeque::new() });
        self.emit(WorkerOutput::Granted { ask, listener, sockname, handle, data });
        self.send(FromWorker::Listening { listener });
    }

    pub(super) fn on_close(&mut self, listener: ListenerId) {
        if let Some(at) = self.listeners.iter().position(|record| record.id == listener) {
            let record = self.listeners.remove(at);
            self.decline_waiting(record.untaken);
            self.send(FromWorker::Close { listener });
        }
    }

    pub(super) fn refuse_asks(&mut self) {
        for Ask { ask, .. } in core::mem::take(&mut self.asks) {
            self.emit(WorkerOutput::Refused { ask, errno: Errno::ECANCELED });
        }
    }
}
