//! Messages of workers, apart from those about listeners and the answers to handoffs.

use core::time::Duration;

use super::Primary;
use super::input::Violation;
use super::output::{Event, Output};
use super::state::WorkerKind;
use crate::timers::Due;
use crate::transitions::{Channel, Intent, Life, Process, Step};
use crate::{FromWorker, Seq, Signal, ToWorker, WorkerId};

/// How many failed queries at once are not yet a flood. Each is an event, so without a bound they
/// would fill the log.
const MAX_FAILED_QUERIES: u32 = 1_000;

/// The time after which one of them is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_millis(100);

/// Pings of a worker that are remembered while they have no answer.
const MAX_PINGS: usize = 16;

impl Primary {
    pub(super) fn on_message(&mut self, id: WorkerId, msg: FromWorker) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if core::mem::take(&mut worker.mid_frame) {
            self.timers.clear(Due::Frame(id));
        }
        let life = worker.life;
        if worker.intent.is_killed() {
            return;
        }
        // A program without cluster does not report that it runs, and may speak before it has taken
        // its listeners.
        let unheralded = worker.kind == Some(WorkerKind::NodeChild)
            && matches!(msg, FromWorker::Suicide { .. } | FromWorker::Ready);
        match msg {
            FromWorker::Online => self.on_online(id),
            _ if life == Life::Starting && !unheralded => {
                self.on_violation(id, Violation::UnexpectedMessage)
            }
            FromWorker::Query { seq, key, backlog, data } => {
                self.on_query(id, seq, *key, backlog, data);
            }
            FromWorker::Listening { listener } => self.on_listening(id, listener),
            FromWorker::Close { listener } => self.on_close(id, listener),
            FromWorker::Suicide { seq } => self.on_suicide(id, seq),
            FromWorker::ExitedAfterDisconnect { seq } => self.on_leave(id, seq),
            FromWorker::Ready => self.on_said_ready(id),
            FromWorker::Pong { ack } => self.on_pong(id, ack),
            FromWorker::Load { open } => self.on_load(id, open),
            FromWorker::Lag { millis } => self.on_lag(id, millis),
            FromWorker::StopSignal { signal } => self.on_stop_signal(id, signal),
            // Acks do not come this way.
            FromWorker::Ack { .. } => {}
        }
    }

    fn on_online(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let assumed = core::mem::take(&mut worker.assumed);
        match worker.life {
            Life::Ready if assumed => {
                if let Some(kind) = worker.kind {
                    self.event(Event::Online { worker: id, codec: kind.codec() });
                }
            }
            Life::Starting => {
                let Some(kind) = worker.kind else {
                    return self.on_violation(id, Violation::UnknownCodec);
                };
                self.step(id, Step::Online);
                self.ever_online = true;
                match self.config.ready_timeout {
                    Some(timeout) => self.timers.set(Due::Silent(id), self.now + timeout),
                    None => self.timers.clear(Due::Silent(id)),
                }
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.online_at = Some(self.now);
                }
                self.event(Event::Online { worker: id, codec: kind.codec() });
                self.expect_heartbeat(id);
            }
            Life::Online | Life::Ready => self.on_violation(id, Violation::UnexpectedMessage),
            // It was told to leave before it could speak.
            Life::Draining | Life::Leaving | Life::Dead => {}
        }
    }

    fn on_load(&mut self, id: WorkerId, open: u32) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.open = Some(open);
        }
    }

    fn on_lag(&mut self, id: WorkerId, millis: u32) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.lag_ms = Some(millis);
        }
    }

    /// What it handles once it was told to leave comes too late.
    fn on_stop_signal(&mut self, id: WorkerId, signal: Option<Signal>) {
        if let Some(worker) = self.workers.get_mut(id)
            && !worker.leave.told
        {
            worker.stop_signal =
                signal.filter(|signal| matches!(signal, Signal::Term | Signal::Interrupt));
        }
    }

    fn on_suicide(&mut self, id: WorkerId, seq: Seq) {
        let staying = self.workers.get(id).is_some_and(|worker| worker.life.is_staying());
        if self.step(id, Step::Leave) {
            self.event(Event::Failing { worker: id });
            if staying {
                self.lead_out(id, self.now + self.config.drain_timeout);
            }
            self.replace_early(id, Some(seq));
        } else {
            self.confirm(id, Some(seq));
        }
    }

    fn on_leave(&mut self, id: WorkerId, seq: Seq) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let staying = worker.life.is_staying();
        // A worker that said `suicide` first is failing, even if it says something else later.
        if worker.life != Life::Leaving && worker.intent == Intent::Stays {
            worker.intent = Intent::Leaves;
        }
        if self.step(id, Step::Leave) {
            self.event(Event::Leaving { worker: id });
            if staying {
                self.lead_out(id, self.now + self.config.drain_timeout);
                self.replace_leaving(id);
            }
        }
        self.confirm(id, Some(seq));
    }

    /// Tells a worker that its message was received, if there is one to confirm.
    pub(super) fn confirm(&mut self, id: WorkerId, seq: Option<Seq>) {
        if let Some(ack) = seq {
            let msg = ToWorker::Ack { ack };
            self.emit(Output::Send { worker: id, msg, attach: None });
        }
    }

    /// Asks a worker for a sign of life. Node has no such message.
    pub(super) fn ping(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let ends = worker.channel == Channel::Closed || worker.process == Process::Exited;
        if worker.kind != Some(WorkerKind::Native) || ends {
            return;
        }
        let seq = worker.take_seq();
        if worker.pings.len() >= MAX_PINGS {
            worker.pings.remove(0);
        }
        worker.pings.push(seq);
        self.emit(Output::Send { worker: id, msg: ToWorker::Ping { seq }, attach: None });
    }

    fn on_pong(&mut self, id: WorkerId, seq: Seq) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let before = worker.pings.len();
        worker.pings.retain(|ping| *ping != seq);
        if worker.pings.len() == before {
            return self.stray(id);
        }
        worker.missed = 0;
        self.event(Event::Pong { worker: id, seq });
    }

    /// Counts a query that failed. Programs try one port after another, or the same one each second
    /// for as long as another program has it: failures that are forgiven over time do no harm.
    pub(super) fn query_failed(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let forgiven_at = worker.forgiven_at.max(self.now) + FORGIVEN_AFTER;
        worker.forgiven_at = forgiven_at;
        self.totals.stray += 1;
        if forgiven_at.since(self.now) > FORGIVEN_AFTER * MAX_FAILED_QUERIES {
            self.on_violation(id, Violation::StrayMessages);
        }
    }

    /// Counts a message that answers or names nothing, and ends a worker that does not stop.
    pub(super) fn stray(&mut self, id: WorkerId) {
        let max = self.config.max_stray_acks;
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.strays = worker.strays.saturating_add(1);
        self.totals.stray += 1;
        if worker.strays > max {
            self.on_violation(id, Violation::StrayMessages);
        }
    }
}
