//! How a worker leaves: it settles, is told to leave, and gets a signal only when that can cut off
//! no client, or when its deadline is near.

use alloc::vec::Vec;
use core::time::Duration;

use super::Primary;
use super::output::{Event, Output};
use super::state::{WorkerKind, WorkerRecord};
use crate::timers::Due;
use crate::transitions::{Channel, Intent, Life, Process, Step};
use crate::{Signal, StopSignal, Time, ToWorker, WorkerId};

/// How long before its deadline a leaving worker gets SIGTERM.
const TERMINATE_BEFORE: Duration = Duration::from_secs(2);

/// From this drain timeout on, that is at most a quarter of it.
const LONG: Duration = Duration::from_secs(8);

/// How often the connections of workers that leave are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

impl WorkerRecord {
    /// Whether it ever had a connection, as far as is known.
    pub(super) fn had_connections(&self) -> bool {
        self.accepted > 0 || self.declined > 0 || !self.in_flight.is_empty() || self.leave.seen
    }
}

impl Primary {
    /// Makes a worker leave by `deadline`: nothing is handed to it any more, and it is told to
    /// leave once it has settled.
    pub(super) fn drain(&mut self, id: WorkerId, deadline: Time) {
        if !self.step(id, Step::Drain) {
            return self.hasten(id, deadline);
        }
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.intent = Intent::Leaves;
        self.timers.clear(Due::Ready(id));
        self.lead_out(id, deadline);
        let until = self.settles_until(id, deadline);
        let within = until.map_or(Duration::ZERO, |until| until.since(self.now));
        self.event(Event::Settling { worker: id, within });
        match until {
            Some(until) => self.timers.set(Due::Settle(id), until),
            None => self.tell_to_leave(id),
        }
    }

    /// When a worker has settled: some time after its last handoff, once all are answered, but not
    /// later than at three quarters of the drain timeout. `None` if it has.
    ///
    /// Node 26 closes a connection that has sent no byte yet when it is told to disconnect.
    fn settles_until(&self, id: WorkerId, deadline: Time) -> Option<Time> {
        let worker = self.workers.get(id)?;
        let quarter = self.config.drain_timeout / 4;
        let settle = self.config.drain_settle.min(quarter);
        // Connections that workers accept themselves have no last handoff.
        let counted =
            !self.config.policy.workers_accept() && worker.kind != Some(WorkerKind::NodeChild);
        if settle.is_zero() || !counted || !worker.had_connections() {
            return None;
        }
        let latest = deadline - quarter;
        let in_flight = !worker.in_flight.is_empty();
        let last = if in_flight { self.now } else { worker.owes_since };
        let until = (last + settle).min(latest);
        (until > self.now).then_some(until)
    }

    pub(super) fn on_settle_due(&mut self, id: WorkerId) {
        if self.workers.get(id).is_none_or(|worker| worker.life != Life::Draining) {
            return;
        }
        let deadline = self.timers.when(Due::Drain(id)).unwrap_or(self.now);
        match self.settles_until(id, deadline) {
            Some(until) => self.timers.set(Due::Settle(id), until),
            None => self.tell_to_leave(id),
        }
    }

    fn tell_to_leave(&mut self, id: WorkerId) {
        let now = self.now;
        let deadline = self.timers.when(Due::Drain(id)).unwrap_or(now);
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.leave.told = true;
        let within = deadline.since(now);
        let kind = worker.kind;
        let stop_signal = self.workers.get(id).and_then(|worker| self.stop_signal_of(worker));
        self.event(Event::Draining { worker: id, within });
        match (kind, stop_signal) {
            (Some(WorkerKind::Native), _) => self.tell_deadline(id, deadline),
            (Some(WorkerKind::NodeCluster | WorkerKind::NodeChild), Some(StopSignal::Message)) => {
                self.emit(Output::Send { worker: id, msg: ToWorker::Shutdown, attach: None });
            }
            (_, Some(StopSignal::Signal(signal))) => self.signal(id, signal),
            // It has no listener, so no client can have come to it; or it knows no channel, and no
            // other word reaches it.
            (None, _) => self.signal(id, Signal::Term),
            // A program without cluster knows no message that means this: it gets SIGTERM once that
            // cuts off no client.
            (Some(WorkerKind::NodeChild), None) => {
                return self.timers.set(Due::Count, now);
            }
            (Some(WorkerKind::NodeCluster), None) => self.tell_deadline(id, deadline),
        }
        if kind.is_some() {
            self.count_later();
        }
    }

    /// Tells a worker its deadline; Node's word for this is `disconnect`.
    fn tell_deadline(&mut self, id: WorkerId, deadline: Time) {
        let within = deadline.since(self.now);
        let deadline_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let msg = ToWorker::Drain { deadline_ms };
        self.emit(Output::Send { worker: id, msg, attach: None });
    }

    /// Gives a leaving worker until `deadline` to end.
    pub(super) fn lead_out(&mut self, id: WorkerId, deadline: Time) {
        self.timers.set(Due::Drain(id), deadline);
        let Some(worker) = self.workers.get(id) else { return };
        // A native worker is told its deadline, and may rely on it.
        if worker.kind != Some(WorkerKind::Native) {
            let timeout = self.config.drain_timeout;
            let before = if timeout < LONG { timeout / 4 } else { TERMINATE_BEFORE };
            self.timers.set(Due::Terminate(id), deadline - before);
        }
        self.count_later();
    }

    /// A worker that leaves by itself must be gone by `deadline` too.
    pub(super) fn hasten(&mut self, id: WorkerId, deadline: Time) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if !worker.may_end() {
            return;
        }
        // A worker that can't serve any more is killed soon anyway.
        if self.timers.is_set(Due::Orphan(id)) && worker.ready_at.is_none() {
            return;
        }
        let own = self.timers.when(Due::Drain(id));
        if worker.channel == Channel::Closed && own.is_none() {
            worker.intent = Intent::Leaves;
        }
        if own.is_none_or(|own| own > deadline) {
            self.lead_out(id, deadline);
        }
    }

    /// Sends a signal, and reports it as an event.
    fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.process != Process::Exited {
            worker.leave.terminated |= signal == Signal::Term;
            self.event(Event::Signalled { worker: id, signal });
            self.emit(Output::Kill { worker: id, signal });
        }
    }

    /// The deadline is near. A second SIGTERM would tell the worker nothing new, and some programs
    /// take it as "at once".
    pub(super) fn on_terminate_due(&mut self, id: WorkerId) {
        if self.workers.get(id).is_some_and(|worker| !worker.leave.terminated) {
            self.signal(id, Signal::Term);
        }
    }

    /// Whether a worker's connections are counted: it leaves, and the primary helps it to end once
    /// it has none.
    fn is_counted(&self, worker: &WorkerRecord) -> bool {
        let leaves = worker.life == Life::Leaving || worker.leave.told;
        let lives = worker.process == Process::Running && !worker.intent.is_killed();
        let wanted = self.config.linger.is_some() || self.cannot_be_told(worker);
        let helped = if self.rules_itself(worker) {
            self.waits_for_its_channel(worker)
        } else {
            !worker.leave.terminated
        };
        leaves && lives && wanted && helped
    }

    /// By what a worker is told to leave, if not by the usual message: what the operator chose,
    /// else the signal that its program handles.
    fn stop_signal_of(&self, worker: &WorkerRecord) -> Option<StopSignal> {
        let own = worker.stop_signal.filter(|_| worker.kind == Some(WorkerKind::NodeCluster));
        self.config.stop_signal.or(own.map(StopSignal::Signal))
    }

    /// Whether a worker was told to leave by `stop_signal`: then it gets no SIGTERM for being idle.
    fn rules_itself(&self, worker: &WorkerRecord) -> bool {
        let is_node = worker.kind.is_some_and(|kind| kind != WorkerKind::Native);
        worker.leave.told && is_node && self.stop_signal_of(worker).is_some()
    }

    /// Whether a program that rules itself has closed its servers: it would end by itself now if
    /// its channel did not keep the Node process alive.
    fn waits_for_its_channel(&self, worker: &WorkerRecord) -> bool {
        let served = worker.ready_at.is_some() && worker.shares.is_empty();
        served && worker.channel != Channel::Closed && !worker.leave.disconnected
    }

    /// Whether a worker must leave and could not be told, since there is no message for it.
    fn cannot_be_told(&self, worker: &WorkerRecord) -> bool {
        let is_child = worker.kind == Some(WorkerKind::NodeChild);
        is_child && worker.leave.told && self.config.stop_signal.is_none()
    }

    pub(super) fn count_later(&mut self) {
        let counts = self.workers.iter().any(|(_, worker)| self.is_counted(worker));
        if counts && !self.timers.is_set(Due::Count) {
            self.timers.set(Due::Count, self.now + COUNT_EVERY);
        }
    }

    pub(super) fn on_count_due(&mut self) {
        let mut workers: Vec<WorkerId> = self.workers.keys_sorted();
        workers.retain(|&id| self.workers.get(id).is_some_and(|worker| self.is_counted(worker)));
        if !workers.is_empty() {
            self.emit(Output::CountConnections { workers });
            self.timers.set(Due::Count, self.now + COUNT_EVERY);
        }
    }

    /// How many connections of clients a leaving worker has open; `None` if that can't be known.
    pub(super) fn on_connections(&mut self, id: WorkerId, open: Option<u32>) {
        let now = self.now;
        let Some(worker) = self.workers.get(id) else { return };
        if !self.is_counted(worker) {
            return;
        }
        let (cannot_be_told, rules_itself) =
            (self.cannot_be_told(worker), self.rules_itself(worker));
        let linger = self.config.linger;
        let Some(worker) = self.workers.get_mut(id) else { return };
        // Connections in flight to it are not among its descriptors yet.
        if open != Some(0) || !worker.in_flight.is_empty() {
            worker.leave.seen |= open.is_some();
            worker.leave.idle_since = None;
            return;
        }
        let since = *worker.leave.idle_since.get_or_insert(now);
        let lingers = linger.is_some_and(|linger| now.since(since) >= linger);
        if rules_itself {
            if lingers {
                worker.leave.disconnected = true;
                let deadline = self.timers.when(Due::Drain(id)).unwrap_or(now);
                self.tell_deadline(id, deadline);
            }
            return;
        }
        // A worker that never had a connection may have other work to finish.
        if cannot_be_told || (lingers && worker.had_connections()) {
            self.signal(id, Signal::Term);
        }
    }
}
