//! Connections: from pending to in flight to released, and back to pending.

use super::output::{Attach, ConnEnd, Event, Output, Refusal};
use super::records::{Cool, InFlight, ListenerState, Pending};
use super::{Primary, shutdown};
use crate::timers::Due;
use crate::{ConnId, Errno, ListenerId, Seq, ToWorker, WorkerId};

/// Why a connection comes back from a worker.
#[derive(Clone, Copy)]
enum Back {
    Died,
    Declined,
    NotSent(Errno),
}

impl Primary {
    pub(super) fn on_incoming(&mut self, listener: ListenerId, conn: ConnId) {
        self.last_conn = conn.get();
        if let Some(refusal) = self.refusal_at(listener) {
            return self.refuse(conn, refusal);
        }
        let waits = self.listeners.get(listener).is_none_or(|record| !record.pending.is_empty());
        let entry = Pending { conn, attempts: 0 };
        // Who waits already waits because nobody is eligible, so nobody is for this one.
        match if waits { None } else { self.pick(listener) } {
            Some(worker) => self.hand_off(worker, listener, entry),
            None => {
                let full = self
                    .listeners
                    .get(listener)
                    .is_some_and(|record| record.pending.len() >= self.config.max_pending as usize);
                if full && self.config.overflow == crate::Overflow::Refuse {
                    return self.refuse(conn, Refusal::Overflow);
                }
                self.enqueue(listener, entry);
                self.pause_if_full(listener);
            }
        }
        self.press();
    }

    /// Why a connection that arrives, or comes back, at a listener can't wait there.
    fn refusal_at(&self, listener: ListenerId) -> Option<Refusal> {
        let stopping = self.stop.as_ref();
        if stopping.is_some_and(shutdown::Stop::is_past_deadline) {
            return Some(Refusal::Shutdown);
        }
        match self.listeners.get(listener).map(|record| &record.state) {
            Some(ListenerState::Open) => None,
            // In a shutdown the queue outlives its listener.
            Some(ListenerState::Closing | ListenerState::Closed) if stopping.is_some() => None,
            Some(ListenerState::Closing | ListenerState::Closed | ListenerState::Binding(_))
            | None => Some(Refusal::Closed),
        }
    }

    pub(super) fn refuse(&mut self, conn: ConnId, refusal: Refusal) {
        self.totals.refused += 1;
        self.emit(Output::Release { conn, end: ConnEnd::Refused(refusal) });
        self.relax();
    }

    fn enqueue(&mut self, listener: ListenerId, entry: Pending) {
        let Some(record) = self.listeners.get_mut(listener) else { return };
        if record.pending.is_empty() {
            self.backlog.push_back(listener);
        }
        record.enqueue(entry);
        self.pending += 1;
    }

    /// The eligible worker whose turn it is.
    fn pick(&self, listener: ListenerId) -> Option<u32> {
        self.ring.pick(|index| self.workers.at(index).is_some_and(|w| w.takes(listener)))
    }

    fn hand_off(&mut self, index: u32, listener: ListenerId, entry: Pending) {
        let (Some(id), Some(worker)) = (self.workers.key_at(index), self.workers.at_mut(index))
        else {
            return;
        };
        let seq = worker.take_seq();
        let Pending { conn, attempts } = entry;
        worker.in_flight.push_back(InFlight { seq, conn, listener, attempts });
        self.flying += 1;
        if worker.flying() == 1
            && let Some(timeout) = self.config.ack_timeout
        {
            worker.ack_due = self.now.after(timeout);
            self.ack_order.push_back(0, index);
        }
        self.file(index);
        let msg = ToWorker::NewConn { first_seq: seq, listener, count: 1 };
        self.emit(Output::Send { worker: id, msg, attach: Some(Attach::Conn(conn)) });
    }

    /// Files a worker in the ring by what it has in flight, or takes it out.
    pub(super) fn file(&mut self, index: u32) {
        match self.workers.at(index) {
            Some(worker) if worker.has_credit() => self.ring.enter(index, worker.flying()),
            _ => self.ring.leave(index),
        }
    }

    /// Hands a worker what it may take: the listeners with pending connections take turns.
    pub(super) fn serve(&mut self, index: u32) {
        while self.ring.contains(index) {
            let Some(worker) = self.workers.at(index) else { return };
            let Some(turn) = self.backlog.iter().position(|&listener| worker.takes(listener))
            else {
                return;
            };
            let Some((listener, entry)) = self.take_turn(turn) else { return };
            self.hand_off(index, listener, entry);
            self.resume_if_drained(listener);
        }
    }

    /// Hands out whatever anybody may take, listener by listener in turn.
    pub(super) fn serve_all(&mut self) {
        let mut passed = 0;
        while passed < self.backlog.len() {
            let Some(&listener) = self.backlog.front() else { return };
            match self.pick(listener) {
                Some(index) => {
                    passed = 0;
                    if let Some((listener, entry)) = self.take_turn(0) {
                        self.hand_off(index, listener, entry);
                        self.resume_if_drained(listener);
                    }
                }
                None => {
                    passed += 1;
                    self.backlog.rotate_left(1);
                }
            }
        }
    }

    /// Takes the first pending connection of the listener with this turn, which goes to the end
    /// of the turns if it has more.
    fn take_turn(&mut self, turn: usize) -> Option<(ListenerId, Pending)> {
        let listener = self.backlog.remove(turn)?;
        let record = self.listeners.get_mut(listener)?;
        let entry = record.pending.pop_front()?;
        if !record.pending.is_empty() {
            self.backlog.push_back(listener);
        }
        self.pending -= 1;
        Some((listener, entry))
    }

    /// A worker's answer to a handoff.
    pub(super) fn on_ack(&mut self, id: WorkerId, ack: Seq, accepted: bool) {
        let Some(index) = self.workers.position(id) else { return };
        let Some(entry) = self.take_in_flight(index, ack) else { return self.stray(id) };
        let Some(worker) = self.workers.at_mut(index) else { return };
        worker.strays = 0;
        if accepted {
            worker.accepted += 1;
            let cooled = worker.share_mut(entry.listener).and_then(|share| share.cool.take());
            self.totals.accepted += 1;
            self.emit(Output::Release { conn: entry.conn, end: ConnEnd::AcceptedBy(id) });
            if cooled.is_some_and(|cool| cool.until.is_some()) {
                self.timers.clear(Due::Cooldown(id, entry.listener));
            }
            self.relax();
        } else {
            worker.declined += 1;
            self.totals.declined += 1;
            self.cool_down(id, entry.listener);
            self.take_back(id, entry, Back::Declined);
        }
        self.restart_ack_timer(index);
        self.file(index);
        self.serve(index);
        if !accepted {
            self.serve_all();
        }
    }

    /// Any answer gives the worker its whole time again.
    fn restart_ack_timer(&mut self, index: u32) {
        let Some(worker) = self.workers.at_mut(index) else { return };
        match self.config.ack_timeout {
            Some(timeout) if !worker.in_flight.is_empty() => {
                worker.ack_due = self.now.after(timeout);
                self.ack_order.push_back(0, index);
            }
            _ => self.ack_order.remove(index),
        }
    }

    fn take_in_flight(&mut self, index: u32, seq: Seq) -> Option<InFlight> {
        let worker = self.workers.at_mut(index)?;
        // Answers mostly come in order.
        let entry = match worker.in_flight.front() {
            Some(first) if first.seq == seq => worker.in_flight.pop_front()?,
            _ => {
                let at = worker.in_flight.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
                worker.in_flight.remove(at)?
            }
        };
        self.flying -= 1;
        Some(entry)
    }

    fn cool_down(&mut self, id: WorkerId, listener: ListenerId) {
        let max = self.config.cooldown_max;
        let first = self.config.cooldown;
        let now = self.now;
        let Some(share) = self.workers.get_mut(id).and_then(|worker| worker.share_mut(listener))
        else {
            return;
        };
        let span = share.cool.map_or(first, |cool| cool.next);
        let until = now.after(span);
        share.cool = Some(Cool { until: Some(until), next: (span * 2).min(max) });
        self.timers.set(Due::Cooldown(id, listener), until);
    }

    pub(super) fn on_cooled(&mut self, id: WorkerId, listener: ListenerId) {
        let Some(index) = self.workers.position(id) else { return };
        let share = self.workers.at_mut(index).and_then(|worker| worker.share_mut(listener));
        if let Some(cool) = share.and_then(|share| share.cool.as_mut()) {
            cool.until = None;
        }
        self.serve(index);
    }

    pub(super) fn on_handoff_failed(&mut self, id: WorkerId, seq: Seq, errno: Errno) {
        let Some(index) = self.workers.position(id) else { return };
        let Some(entry) = self.take_in_flight(index, seq) else { return };
        self.cool_down(id, entry.listener);
        self.take_back(id, entry, Back::NotSent(errno));
        // It answered nothing: its time goes on, unless nothing is left to answer.
        if self.workers.at(index).is_some_and(|worker| worker.in_flight.is_empty()) {
            self.ack_order.remove(index);
        }
        self.file(index);
        self.serve(index);
        self.serve_all();
    }

    /// Everything in flight at a worker whose channel has ended goes back.
    pub(super) fn take_back_all(&mut self, id: WorkerId) {
        let Some(index) = self.workers.position(id) else { return };
        self.ring.leave(index);
        self.ack_order.remove(index);
        let Some(worker) = self.workers.at_mut(index) else { return };
        for entry in core::mem::take(&mut worker.in_flight) {
            self.flying -= 1;
            self.take_back(id, entry, Back::Died);
        }
        self.serve_all();
    }

    /// One connection returns to its place in its queue.
    fn take_back(&mut self, id: WorkerId, entry: InFlight, why: Back) {
        let InFlight { conn, listener, mut attempts, .. } = entry;
        let mut refusal = self.refusal_at(listener);
        match why {
            Back::Died => {
                attempts = attempts.saturating_add(1);
                if attempts >= self.config.max_attempts {
                    refusal = Some(Refusal::Attempts);
                }
                if refusal.is_none() {
                    self.totals.redispatched += 1;
                    self.event(Event::Redispatched { conn, worker: id, attempts });
                }
            }
            Back::Declined => self.event(Event::Declined { conn, worker: id }),
            Back::NotSent(errno) => {
                self.event(Event::HandoffFailed { conn, worker: id, errno });
            }
        }
        match refusal {
            Some(refusal) => self.refuse(conn, refusal),
            None => self.enqueue(listener, Pending { conn, attempts }),
        }
    }

    /// Refuses everything that is pending at a listener.
    pub(super) fn refuse_pending(&mut self, listener: ListenerId, refusal: Refusal) {
        self.backlog.retain(|&other| other != listener);
        let Some(record) = self.listeners.get_mut(listener) else { return };
        for entry in core::mem::take(&mut record.pending) {
            self.pending -= 1;
            self.refuse(entry.conn, refusal);
        }
    }
}
