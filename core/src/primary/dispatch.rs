//! Connections: from pending to in flight to released, and back to pending.

use super::invariants::{POSITION, TURN, broken};
use super::output::{ConnEnd, Event, Output, Refusal};
use super::state::{Cool, InFlight, ListenerState, Pending};
use super::{Primary, shutdown};
use crate::timers::Due;
use crate::{Attach, ConnId, Errno, ListenerId, Misuse, Overflow, Seq, Time, ToWorker, WorkerId};

/// Why a connection comes back from a worker.
#[derive(Clone, Copy)]
enum Back {
    Died,
    Declined,
    NotSent(Errno),
}

impl Primary {
    /// A new connection. Returns an error for an impossible input before anything has changed.
    #[inline(always)]
    pub(super) fn on_incoming(
        &mut self,
        now: Time,
        listener: ListenerId,
        conn: ConnId,
    ) -> Result<(), Misuse> {
        let not_open = Misuse::ListenerNotOpen(listener);
        let index = self.listeners.position(listener).ok_or(not_open)?;
        let Some(record) = self.listeners.at_mut(index) else { return Err(not_open) };
        if !matches!(record.state, ListenerState::Open | ListenerState::Closing) {
            return Err(not_open);
        }
        if conn.get() <= self.last_conn {
            return Err(Misuse::ConnNotRising(conn));
        }
        record.used = true;
        self.now = self.now.max(now);
        self.last_conn = conn.get();
        let waiting = record.pending.len();
        if !record.is_open()
            && let Some(refusal) = self.refusal_at(listener)
        {
            self.refuse(conn, refusal);
            return Ok(());
        }
        let entry = Pending { conn, attempts: 0 };
        // If others are queued, no worker is eligible, so don't look for one.
        match if waiting > 0 { None } else { self.pick(listener) } {
            Some(worker) => self.hand_off(worker, listener, entry),
            None => {
                let refuses = self.config.overflow == Overflow::Refuse;
                if refuses && waiting >= self.config.max_pending as usize {
                    self.refuse(conn, Refusal::Overflow);
                    return Ok(());
                }
                self.enqueue(index, listener, entry);
                if !refuses && waiting + 1 >= self.config.max_pending as usize {
                    self.pause(listener);
                }
            }
        }
        if self.pending + self.in_flight >= self.room {
            self.pause_all();
        }
        Ok(())
    }

    /// Why a connection that arrives, or comes back, at a listener can't wait there.
    fn refusal_at(&self, listener: ListenerId) -> Option<Refusal> {
        let stopping = self.stop.as_ref().filter(|stop| stop.has_begun());
        if stopping.is_some_and(shutdown::Stop::is_past_deadline) {
            return Some(Refusal::Shutdown);
        }
        match self.listeners.get(listener).map(|record| &record.state) {
            Some(ListenerState::Open) => None,
            // In a shutdown the queue outlives its listener.
            Some(ListenerState::Closing | ListenerState::Closed) if stopping.is_some() => None,
            Some(_) | None => Some(Refusal::Closed),
        }
    }

    pub(super) fn refuse(&mut self, conn: ConnId, refusal: Refusal) {
        match refusal {
            Refusal::Unknown => self.totals.unknown += 1,
            Refusal::Overflow | Refusal::Attempts | Refusal::Closed | Refusal::Shutdown => {
                self.totals.refused += 1;
            }
        }
        self.emit(Output::Release { conn, end: ConnEnd::Refused(refusal) });
        self.resume_all();
    }

    fn enqueue(&mut self, index: u32, listener: ListenerId, entry: Pending) {
        let Some(record) = self.listeners.at_mut(index) else { return broken(POSITION) };
        if record.pending.is_empty() {
            self.backlog.push_back(listener);
        }
        record.enqueue(entry);
        self.pending += 1;
    }

    /// The eligible worker whose turn it is.
    #[inline(always)]
    fn pick(&self, listener: ListenerId) -> Option<u32> {
        self.ready_queue.pick(|index| self.workers.at(index).is_some_and(|w| w.takes(listener)))
    }

    #[inline(always)]
    fn hand_off(&mut self, index: u32, listener: ListenerId, entry: Pending) {
        let Some((id, worker)) = self.workers.entry_mut(index) else { return broken(POSITION) };
        let seq = worker.take_seq();
        let Pending { conn, attempts } = entry;
        worker.in_flight.push_back(InFlight { seq, conn, listener, attempts, in_doubt: false });
        self.in_flight += 1;
        let in_flight = worker.in_flight_count();
        if in_flight < worker.window {
            self.ready_queue.enter(index, in_flight);
        } else {
            self.ready_queue.leave(index);
        }
        if in_flight == 1 {
            worker.owes_since = self.now;
            if !worker.ack_armed {
                self.arm_ack_timer(id);
            }
        }
        let msg = ToWorker::NewConn { first_seq: seq, listener, count: 1 };
        self.emit(Output::Send { worker: id, msg, attach: Some(Attach::Conn(conn)) });
    }

    #[cold]
    pub(super) fn arm_ack_timer(&mut self, id: WorkerId) {
        let Some(timeout) = self.config.ack_timeout else { return };
        if let Some(worker) = self.workers.get_mut(id) {
            worker.ack_armed = true;
        }
        self.timers.set(Due::Ack(id), self.now + timeout);
    }

    /// Puts a worker into the ready queue by what it has in flight, or takes it out.
    pub(super) fn requeue(&mut self, index: u32) {
        match self.workers.at(index) {
            Some(worker) if worker.has_credit() => {
                self.ready_queue.enter(index, worker.in_flight_count())
            }
            _ => self.ready_queue.leave(index),
        }
    }

    /// Hands a worker what it may take: the listeners with pending connections take turns.
    pub(super) fn serve(&mut self, index: u32) {
        while self.ready_queue.contains(index) {
            let Some(worker) = self.workers.at(index) else { return broken(POSITION) };
            let Some(turn) = self.backlog.iter().position(|&listener| worker.takes(listener))
            else {
                return;
            };
            let Some((listener, entry)) = self.take_turn(turn) else { return broken(TURN) };
            self.hand_off(index, listener, entry);
        }
    }

    /// Hands out every connection that a worker may take, listener by listener in turn. A listener
    /// keeps its turn if no worker takes from it.
    pub(super) fn serve_all(&mut self) {
        let mut turn = 0;
        while let Some(&listener) = self.backlog.get(turn) {
            // A handoff frees no worker: a connection that none could take before, none can take
            // after it.
            match self.pick(listener) {
                Some(index) => {
                    let Some((listener, entry)) = self.take_turn(turn) else { return broken(TURN) };
                    self.hand_off(index, listener, entry);
                }
                None => turn += 1,
            }
        }
    }

    /// Takes the first pending connection of the listener with this turn; the listener goes to the
    /// end of the turns if it has more.
    fn take_turn(&mut self, turn: usize) -> Option<(ListenerId, Pending)> {
        let listener = *self.backlog.get(turn)?;
        let record = self.listeners.get_mut(listener)?;
        let entry = record.pending.pop_front()?;
        let (left, accepting) = (record.pending.len(), record.accepting);
        self.pending -= 1;
        // With one listener its turn stays where it is.
        if left == 0 || self.backlog.len() > 1 {
            self.backlog.remove(turn);
            if left > 0 {
                self.backlog.push_back(listener);
            }
        }
        if !accepting {
            self.resume_if_allowed(listener);
        }
        Some((listener, entry))
    }

    /// A worker's answer to a handoff.
    #[inline(always)]
    pub(super) fn on_ack(&mut self, id: WorkerId, ack: Seq, accepted: bool) {
        let Some(index) = self.workers.position(id) else { return };
        let Some(worker) = self.workers.at_mut(index) else { return broken(POSITION) };
        if worker.mid_frame {
            worker.mid_frame = false;
            self.timers.clear(Due::Frame(id));
        }
        let Some(entry) = worker.answered(ack) else { return self.on_stray_ack(id) };
        self.in_flight -= 1;
        worker.strays = 0;
        // Any answer restarts the worker's ack timeout.
        worker.owes_since = self.now;
        if !accepted {
            return self.on_declined(index, id, entry);
        }
        worker.accepted += 1;
        let cooled = worker.share_mut(entry.listener).and_then(|share| share.cool.take());
        let is_last = worker.accepted >= worker.recycle_at;
        if worker.serves {
            self.ready_queue.enter(index, worker.in_flight_count());
        }
        self.totals.accepted += 1;
        self.emit(Output::Release { conn: entry.conn, end: ConnEnd::AcceptedBy(id) });
        if cooled.is_some() {
            self.timers.clear(Due::Cooldown(id, entry.listener));
        }
        if self.accept_paused {
            self.resume_all();
        }
        if !self.backlog.is_empty() {
            self.serve(index);
        }
        if is_last {
            self.on_last_request(id);
        }
    }

    /// This stray ack may be one too many, which ends the worker.
    #[cold]
    fn on_stray_ack(&mut self, id: WorkerId) {
        self.stray(id);
        self.settle();
    }

    fn on_declined(&mut self, index: u32, id: WorkerId, entry: InFlight) {
        if let Some(worker) = self.workers.at_mut(index) {
            worker.declined += 1;
        }
        self.totals.declined += 1;
        self.come_back(index, id, entry, Back::Declined);
    }

    /// A living worker does not have this connection: it goes to another one, and this worker gets
    /// nothing from its listener for a while.
    fn come_back(&mut self, index: u32, id: WorkerId, entry: InFlight, why: Back) {
        self.cool_down(id, entry.listener);
        self.take_back(id, entry, why);
        self.requeue(index);
        self.serve(index);
        self.serve_all();
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
        let until = now + span;
        share.cool = Some(Cool { until: Some(until), next: span.saturating_mul(2).min(max) });
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
        let Some(worker) = self.workers.at_mut(index) else { return broken(POSITION) };
        // The worker answered nothing, so its ack timeout runs on.
        let Some(entry) = worker.answered(seq) else { return };
        self.in_flight -= 1;
        self.come_back(index, id, entry, Back::NotSent(errno));
    }

    pub(super) fn on_in_doubt(&mut self, id: WorkerId, seq: Seq) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if let Some(entry) = worker.in_flight.iter_mut().find(|entry| entry.seq == seq) {
            entry.in_doubt = true;
        }
    }

    /// Takes back everything in flight at a worker whose channel has ended.
    pub(super) fn take_back_all(&mut self, id: WorkerId) {
        let Some(index) = self.workers.position(id) else { return };
        self.ready_queue.leave(index);
        let Some(worker) = self.workers.at_mut(index) else { return broken(POSITION) };
        for &entry in core::mem::take(&mut worker.in_flight).iter() {
            self.in_flight -= 1;
            self.take_back(id, entry, Back::Died);
        }
        self.serve_all();
    }

    /// Returns one connection to its place in its queue, or refuses it.
    fn take_back(&mut self, id: WorkerId, entry: InFlight, why: Back) {
        let InFlight { conn, listener, mut attempts, in_doubt, .. } = entry;
        let mut refusal = self.refusal_at(listener);
        match why {
            Back::Died if in_doubt => refusal = Some(Refusal::Unknown),
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
        match (refusal, self.listeners.position(listener)) {
            (None, Some(index)) => self.enqueue(index, listener, Pending { conn, attempts }),
            (refusal, _) => self.refuse(conn, refusal.unwrap_or(Refusal::Closed)),
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
