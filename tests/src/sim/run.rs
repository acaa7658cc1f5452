//! Runs a plan, and brings what is left to its end.

use std::time::Duration;

use roundel_core::{
    BYTES_PER_TURN, Codec, Command, ConnEnd, ExitStatus, Input, ListenerId, Overflow, Refusal,
    Time, WorkerId,
};

use super::Sim;
use super::listen_sockets::ListenSocket;
use super::program::Program;
use crate::faults::fault::{Fault, Property};
use crate::faults::mutants::Mutant;
use crate::sim::coverage::Effect;
use crate::sim::plan::Plan;

const START: Time = Time::from_millis(5);

/// No run takes as many turns of one kind as this: it goes round in circles.
const TURNS: usize = 2_000;

/// How often a healthy program asks for a listener before it ends.
const PATIENCE: u32 = 20;

impl Sim {
    /// A cluster that went through a plan, not yet brought to its end.
    pub fn after(plan: &Plan, start: Time, mutant: Option<Mutant>) -> Sim {
        let mut sim = Sim::new(plan, start, mutant);
        plan.ops.iter().for_each(|op| sim.apply(op));
        sim
    }

    /// Goes through a whole life: the plan, recovery, shutdown. Returns what went wrong.
    pub fn life(plan: &Plan, mutant: Option<Mutant>) -> Vec<Fault> {
        let mut sim = Sim::new(plan, START, mutant);
        sim.recorded = false;
        sim.live(plan);
        sim.finish()
    }

    /// The same, with a trace for reading.
    pub fn traced_life(plan: &Plan, mutant: Option<Mutant>) -> (Vec<Fault>, String) {
        let mut sim = Sim::new(plan, START, mutant);
        sim.recorded = false;
        sim.trace = Some(super::trace::Trace::new(plan.config.workers()));
        sim.live(plan);
        sim.close_books();
        let trace = sim.trace.take().map(|trace| trace.to_string()).unwrap_or_default();
        (sim.finish(), trace)
    }

    /// A whole life up to, not including, its books.
    pub fn live(&mut self, plan: &Plan) {
        for op in &plan.ops {
            self.apply(op);
        }
        self.recover();
        self.stop();
    }

    /// Everybody does what a healthy one does.
    pub(super) fn round(&mut self) {
        while self.do_one() {}
        self.flush_all();
        for id in self.ids() {
            self.work(id);
        }
        self.flush_all();
        self.pull_all();
        self.reap_all();
        let listeners: Vec<ListenerId> = self.sockets.keys().copied().collect();
        for listener in listeners {
            self.accept(listener, 64);
        }
        self.flush_all();
        self.look_at_queues();
    }

    /// Everything was accepted that there was, unless somebody forgot it.
    fn look_at_queues(&mut self) {
        let ids: Vec<ListenerId> = self.sockets.keys().copied().collect();
        for listener in ids {
            let forgotten = self.forgets() == Some(listener);
            let held = |socket: &ListenSocket| socket.accepting && socket.backlog > 0;
            let waiting = forgotten && self.sockets.get(&listener).is_some_and(held);
            self.input(Input::Queue { listener, waiting });
        }
    }

    /// One worker reads, takes what is there, and exits if it is done.
    fn work(&mut self, id: WorkerId) {
        let now = self.now;
        let says_ready = self.core.core.config().wait_ready();
        self.read(id, BYTES_PER_TURN);
        self.act(id, |program, process| {
            match program {
                Program::Node(node) => node.ready(&mut process.channel),
                Program::Native(native) if says_ready => native.ready(now, &mut process.channel),
                Program::Native(_) => {}
            }
            if process.slow {
                program.answer(now, 0, true, &mut process.channel);
            } else {
                program.take_all(now, &mut process.channel);
            }
        });
        self.accept_shared(id);
        self.fulfil(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let done = process.acts() && process.program.as_ref().is_some_and(Program::is_done);
        if !done {
            return;
        }
        if process.stubborn == 0 {
            return self.die(id, ExitStatus::Code(0));
        }
        // It closes its channel and lives on.
        process.channel.worker_closes();
        self.reached(Effect::Lingers);
    }

    /// Workers accept for themselves where they share a listener.
    fn accept_shared(&mut self, id: WorkerId) {
        if self.processes.get(&id).is_some_and(|process| process.acts()) {
            for socket in self.sockets.values_mut().filter(|socket| socket.shared) {
                socket.backlog = 0;
            }
        }
    }

    /// Everything that waits at the primary is dealt with.
    pub(super) fn turn(&mut self) {
        for _ in 0..TURNS {
            let before = self.inputs;
            self.flush_all();
            self.pull_all();
            self.reap_all();
            while self.do_one() {}
            if self.inputs == before {
                return;
            }
        }
        self.fault(Property::Timeouts, "the turn never ends");
    }

    /// Time passes and every deadline is served when it is due, all channels read before.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..TURNS {
            self.turn();
            let due = self.core.poll_timeout().map(|deadline| deadline.at).filter(|at| *at <= end);
            self.now = due.unwrap_or(end).max(self.now);
            self.wake();
            self.beat();
            self.turn();
            if due.is_none() {
                return;
            }
        }
        self.fault(Property::Timeouts, "the deadlines never end");
    }

    /// Libraries answer the primary while their programs do something else.
    fn beat(&mut self) {
        if self.core.core.config().heartbeat().is_some() {
            self.flush_all();
            self.ids().into_iter().for_each(|id| self.read(id, BYTES_PER_TURN));
        }
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.mute = false;
        self.dooms.clear();
        if std::mem::take(&mut self.paused) {
            self.input(Input::Command(Command::Resume));
        }
        self.failing_spawns.clear();
        self.failing_binds = 0;
        for id in self.ids() {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            process.hangs &= process.doomed;
            process.stalls = process.hangs;
            process.slow = false;
            process.omen = None;
            process.starved = false;
            process.trouble = None;
            process.stubborn = 0;
            // A worker that has lost its channel is given up at last; but a Node program may live
            // without.
            process.exit_lost &=
                process.channel.up.is_ended() && process.link.codec() != Some(Codec::Node);
            if process.hostile && !process.hangs {
                self.die(id, ExitStatus::Code(1));
            } else if process.program.is_none() && process.started {
                self.introduce(id);
            } else if let Some(key) = self.lacks(id) {
                let first = self.asks_of(id).into_iter().next();
                let Some(process) = self.processes.get_mut(&id) else { continue };
                process.asked += 1;
                if process.asked > PATIENCE && first.as_ref() == Some(&key) {
                    // It holds as many as it may, and not what it is for.
                    self.die(id, ExitStatus::Code(0));
                    continue;
                }
                let now = self.now;
                self.act(id, |program, process| {
                    if !program.is_leaving() {
                        program.ask(now, &key, &mut process.channel);
                    }
                });
            }
        }
    }

    /// Everybody becomes healthy: then everything that was given in must be served.
    pub fn recover(&mut self) {
        for _ in 0..200 {
            if self.stopped.is_some() {
                return;
            }
            self.heal();
            self.round();
            self.round();
            let backlog: u32 = self.sockets.values().map(|socket| socket.backlog).sum();
            let busy = self.checked && self.reload.is_busy();
            if self.waiting() + backlog == 0 && self.todo.is_empty() && !busy {
                break;
            }
            self.pass(Duration::from_millis(250));
        }
        if self.core.core.stop_deadline().is_none() && self.waiting() > self.unwanted() {
            let what = format!("{:?} wait for ever", self.core.core.held());
            self.fault(Property::NoLoss, what);
        }
        if self.checked && self.reload.is_busy() {
            self.fault(Property::Readiness, "a reload never ends");
        }
    }

    /// How many wait where no program listens: after a reload that has failed half way, the slots
    /// that would may all have been given up.
    fn unwanted(&self) -> u32 {
        let alive: Vec<WorkerId> =
            self.processes.values().filter(|it| it.alive).map(|it| it.id).collect();
        let asked: Vec<_> = alive.into_iter().flat_map(|id| self.asks_of(id)).collect();
        let listeners = self.core.core.listeners();
        listeners.filter(|it| !asked.contains(it.key)).map(|it| it.pending).sum()
    }

    fn waiting(&self) -> u32 {
        self.core.core.pending() + self.core.core.in_flight()
    }

    /// The operator stops the cluster, and nobody does anything for it.
    pub fn stop(&mut self) {
        if self.stopped.is_none() {
            self.input(Input::Command(Command::Stop));
        }
        for _ in 0..40 {
            if self.stopped.is_some() {
                break;
            }
            self.pass(Duration::from_millis(250));
        }
        if self.stopped.is_none() {
            self.fault(Property::Shutdown, "it never ended");
        }
        self.judge();
    }

    /// What was refused must have been refused for a reason, and all must have been counted.
    fn judge(&mut self) {
        let refused = |end: &ConnEnd| matches!(end, ConnEnd::Refused(Refusal::Overflow));
        let ends = || self.fates.iter().filter_map(|fate| fate.released);
        let count = |wanted: fn(&ConnEnd) -> bool| ends().filter(wanted).count() as u64;
        let accepted = count(|end| matches!(end, ConnEnd::AcceptedBy(_)));
        let unknown = count(|end| matches!(end, ConnEnd::Refused(Refusal::Unknown)));
        let others = count(|end| matches!(end, ConnEnd::Refused(_))) - unknown;
        let totals = self.core.core.totals();
        let overflown = ends().any(|end| refused(&end));
        let wait = self.core.core.config().overflow() == Overflow::Wait;
        if (accepted, unknown, others) != (totals.accepted, totals.unknown, totals.refused) {
            let what =
                format!("{accepted} accepted, {unknown} unknown, {others} refused: {totals:?}");
            self.fault(Property::Conservation, what);
        }
        if wait && overflown {
            self.fault(Property::NoLoss, "a connection was refused that could have waited");
        }
    }
}
