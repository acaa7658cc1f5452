//! Runs a plan, and brings what is left to its end.

use std::time::Duration;

use roundel_core::{
    Command, ConnEnd, Errno, ExitStatus, FromWorker, Input, ListenerId, Refusal, Time, ToWorker,
    WorkerId,
};

use crate::fault::{Fault, Property};
use crate::mutants::Mutant;
use crate::ops::{Op, Plan};
use crate::sim::Sim;
use crate::sim_worker::{SimWorker, Up};

const START: Time = Time::from_millis(5);

/// No run takes as many turns of one kind as this: it goes round in circles.
const TURNS: usize = 2_000;

impl Sim {
    /// A cluster that went through a plan, not yet brought to its end.
    pub fn after(plan: &Plan, start: Time, mutant: Option<Mutant>) -> Sim {
        let mut sim = Sim::new(plan.config.clone(), plan.keys.clone(), start, mutant);
        for op in &plan.ops {
            sim.apply(op);
        }
        sim
    }

    /// Goes through a whole life: the plan, recovery, shutdown. Returns what went wrong.
    pub fn life(plan: &Plan, mutant: Option<Mutant>) -> Vec<Fault> {
        Sim::live(Sim::new(plan.config.clone(), plan.keys.clone(), START, mutant), plan)
    }

    /// The same, with every input and output printed.
    pub fn traced_life(plan: &Plan) -> Vec<Fault> {
        let mut sim = Sim::new(plan.config.clone(), plan.keys.clone(), START, None);
        sim.trace = true;
        Sim::live(sim, plan)
    }

    fn live(mut sim: Sim, plan: &Plan) -> Vec<Fault> {
        for op in &plan.ops {
            sim.apply(op);
        }
        sim.recover();
        sim.stop();
        sim.finish()
    }

    fn worker(&self, pick: u8) -> Option<WorkerId> {
        let ids = self.ids();
        ids.get(usize::from(pick) % ids.len().max(1)).copied()
    }

    fn listener(&self, pick: u8) -> Option<ListenerId> {
        let open: Vec<ListenerId> =
            self.listeners.iter().filter(|(_, l)| l.open).map(|(id, _)| *id).collect();
        open.get(usize::from(pick) % open.len().max(1)).copied()
    }

    fn with(&mut self, pick: u8, act: impl FnOnce(&mut SimWorker)) {
        let id = self.worker(pick);
        if let Some(worker) = id.and_then(|id| self.workers.get_mut(&id)) {
            act(worker);
        }
    }

    /// Lets one thing happen.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Connect(l, n) => {
                if let Some(listener) = self.listener(l)
                    && let Some(record) = self.listeners.get_mut(&listener)
                {
                    record.backlog += u32::from(n);
                }
            }
            Op::Accept(l, n) => {
                if let Some(listener) = self.listener(l) {
                    self.accept(listener, n.into());
                }
            }
            Op::Read(w) => self.with(w, |worker| {
                if !worker.stalls {
                    worker.read();
                }
            }),
            Op::Answer(w, nth, accepted) => {
                if let Some(id) = self.worker(w)
                    && self.workers.get(&id).is_some_and(|worker| !worker.stalls)
                {
                    self.answer(id, nth.into(), accepted);
                }
            }
            Op::AcceptAll(w) => {
                if let Some(id) = self.worker(w) {
                    self.accept_all(id);
                }
            }
            Op::Pull(w) => {
                if let Some(id) = self.worker(w) {
                    self.pull(id);
                }
            }
            Op::Die(w) => {
                if let Some(id) = self.worker(w) {
                    if let Some(worker) = self.workers.get_mut(&id)
                        && !worker.stalls
                    {
                        worker.read();
                    }
                    self.accept_all(id);
                    self.with(w, |worker| worker.die(ExitStatus::Signal(9)));
                    self.reap_all();
                }
            }
            Op::Round => self.round(),
            Op::Todo => while self.do_one() {},
            Op::TodoOne => {
                self.do_one();
            }
            Op::Reap => self.reap_all(),
            Op::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
            Op::Sleep(ms) => {
                self.turn();
                self.now = self.now.after(Duration::from_millis(ms.into()));
                self.turn();
                self.wake();
            }
            Op::Mute(mute) => self.mute = mute,
            Op::FailSpawns(n) => self.failing_spawns += u32::from(n),
            Op::FailBind => self.failing_binds = 1,
            Op::FailHandoff(w) => self.fail_handoff(w),
            Op::Ping(w) => {
                if let Some(id) = self.worker(w) {
                    self.input(Input::Command(Command::Ping(id)));
                }
            }
            Op::Stop => self.input(Input::Command(Command::Stop)),
            Op::StopNow => self.input(Input::Command(Command::StopNow)),
            ref other => self.misbehave(other),
        }
    }

    /// What a worker does on its own account.
    fn misbehave(&mut self, op: &Op) {
        let keys = self.keys.clone();
        match *op {
            // A number that is in flight would be an answer, and a lie that nobody can tell.
            Op::Stray(w, n) => self.with(w, |worker| worker.stray(1_000_000 + u64::from(n))),
            Op::Repeat(w, accepted) => self.with(w, |worker| {
                if let Some(&ack) = worker.answered.last() {
                    worker.say(FromWorker::Ack { ack, accepted });
                }
            }),
            Op::Stall(w, stalls) => self.with(w, |worker| worker.stalls = stalls),
            Op::Exit(w, code) => self.with(w, |worker| worker.die(ExitStatus::Code(code.into()))),
            Op::Orphan(w) => self.with(w, |worker| {
                worker.grandchild = true;
                worker.die(ExitStatus::Signal(9));
            }),
            Op::Hang(w) => self.with(w, |worker| {
                worker.hangs = true;
                worker.stalls = true;
            }),
            Op::CloseChannel(w) => self.with(w, |worker| worker.open = false),
            Op::Suicide(w) => self.with(w, |worker| {
                let seq = worker.take_seq();
                worker.say(FromWorker::Suicide { seq });
            }),
            Op::Leave(w) => self.with(w, |worker| {
                let seq = worker.take_seq();
                worker.say(FromWorker::ExitedAfterDisconnect { seq });
                worker.leaving = true;
            }),
            Op::CloseListener(w, l) => self.with(w, |worker| {
                if !worker.granted.is_empty() {
                    let at = usize::from(l) % worker.granted.len();
                    let (listener, _) = worker.granted.remove(at);
                    worker.say(FromWorker::Close { listener });
                }
            }),
            Op::Ask(w, k) => self.with(w, |worker| {
                if let Some(key) = keys.get(usize::from(k) % keys.len().max(1)) {
                    worker.ask(key);
                }
            }),
            Op::Garbage(w) => self.with(w, |worker| {
                worker.write(Up::Garbage);
            }),
            Op::Half(w) => self.with(w, |worker| {
                worker.write(Up::Half);
            }),
            _ => {}
        }
    }

    fn fail_handoff(&mut self, pick: u8) {
        let Some(id) = self.worker(pick) else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Some((ToWorker::NewConn { first_seq, .. }, _)) = worker.down.back() {
            let seq = *first_seq;
            worker.down.pop_back();
            self.input(Input::HandoffFailed { worker: id, seq, errno: Errno(24) });
        }
    }

    fn accept_all(&mut self, id: WorkerId) {
        while self.workers.get(&id).is_some_and(|w| w.alive && !w.stalls && !w.holds.is_empty()) {
            self.answer(id, 0, true);
        }
    }

    /// Everybody does what a healthy one does.
    fn round(&mut self) {
        while self.do_one() {}
        for id in self.ids() {
            if let Some(worker) = self.workers.get_mut(&id)
                && !worker.stalls
            {
                worker.read();
            }
            self.accept_all(id);
            let done = |w: &SimWorker| w.leaving && w.alive && !w.stalls && w.holds.is_empty();
            if let Some(worker) = self.workers.get_mut(&id)
                && done(worker)
            {
                worker.die(ExitStatus::Code(0));
            }
        }
        self.pull_all();
        self.reap_all();
        let listeners: Vec<ListenerId> = self.listeners.keys().copied().collect();
        for listener in listeners {
            self.accept(listener, 64);
        }
    }

    /// What an embedder does before it looks at the clock.
    fn turn(&mut self) {
        for _ in 0..TURNS {
            let before = self.transcript.len();
            while self.do_one() {}
            self.pull_all();
            self.reap_all();
            if self.transcript.len() == before {
                return;
            }
        }
        self.fault(Property::Timeouts, "the turn never ends");
    }

    /// Time passes and every deadline is served when it is due, all channels read before.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        for _ in 0..TURNS {
            self.turn();
            let due = self.core.poll_timeout().map(|deadline| deadline.at).filter(|at| *at <= end);
            self.now = due.unwrap_or(end).max(self.now);
            self.wake();
            self.turn();
            if due.is_none() {
                return;
            }
        }
        self.fault(Property::Timeouts, "the deadlines never end");
    }

    /// Everybody becomes healthy: then everything that was given in must be served.
    pub fn recover(&mut self) {
        self.mute = false;
        self.failing_spawns = 0;
        self.failing_binds = 0;
        for _ in 0..200 {
            let keys = self.keys.clone();
            for worker in self.workers.values_mut().filter(|worker| worker.alive) {
                worker.hangs &= worker.doomed;
                worker.stalls = worker.hangs;
                if !worker.introduced && !worker.stalls {
                    worker.introduce(&keys);
                }
                for key in &keys {
                    let has = worker.granted.iter().any(|granted| granted.1 == *key);
                    if !has && worker.asked.is_empty() && !worker.leaving && !worker.stalls {
                        worker.ask(key);
                    }
                }
            }
            self.round();
            self.round();
            let core = &self.core.core;
            let backlog: u32 = self.listeners.values().map(|record| record.backlog).sum();
            let quiet = core.pending() + core.in_flight() + backlog == 0 && self.todo.is_empty();
            if quiet || self.stopped.is_some() {
                break;
            }
            self.pass(Duration::from_millis(250));
        }
        if self.stopped.is_none() && self.core.core.stop_deadline().is_none() {
            let core = &self.core.core;
            if core.pending() + core.in_flight() > 0 {
                let what = format!("{:?} wait for ever", core.held());
                self.fault(Property::NoLoss, what);
            }
        }
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
        self.judge_refusals();
    }

    /// What was refused must have been refused for a reason.
    fn judge_refusals(&mut self) {
        let refused = |end: &ConnEnd| matches!(end, ConnEnd::Refused(Refusal::Overflow));
        let wait = *self.core.core.config().overflow() == roundel_core::Overflow::Wait;
        if wait && self.released.values().any(refused) {
            self.fault(Property::NoLoss, "a connection was refused that could have waited");
        }
    }
}
