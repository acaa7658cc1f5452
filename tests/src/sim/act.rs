//! Lets the things of a plan happen.

use std::time::Duration;

use roundel_core::{BYTES_PER_TURN, Command, ExitStatus, Input, ListenKey, ListenerId, WorkerId};

use super::Sim;
use super::end::Trouble;
use super::listen_sockets::ListenSocket;
use super::omen::Omen;
use super::process::Process;
use super::program::Program;
use crate::faults::mutants::{Mutant, Shim};
use crate::sim::coverage::Effect;
use crate::sim::ops::Op;
use crate::sim::plan::{MEMORY, UNWANTED, change};

impl Sim {
    fn worker(&self, pick: u8) -> Option<WorkerId> {
        let count = self.processes.len().max(1);
        self.processes.keys().nth(usize::from(pick) % count).copied()
    }

    fn socket(&self, pick: u8) -> Option<ListenerId> {
        let wanted = |socket: &ListenSocket| socket.at.is_none_or(|at| at.port() != UNWANTED);
        let open = || {
            self.sockets
                .iter()
                .filter(|(_, socket)| socket.open && wanted(socket))
                .map(|(id, _)| *id)
        };
        open().nth(usize::from(pick) % open().count().max(1))
    }

    fn with(&mut self, pick: u8, what: impl FnOnce(&mut Process)) {
        if let Some(process) = self.worker(pick).and_then(|id| self.processes.get_mut(&id)) {
            what(process);
        }
    }

    fn act_on(&mut self, pick: u8, what: impl FnOnce(&mut Program, &mut Process)) {
        if let Some(id) = self.worker(pick) {
            self.act(id, what);
        }
    }

    /// Lets one thing happen.
    pub fn apply(&mut self, op: &Op) {
        if self.stopped.is_some() {
            return;
        }
        if !matches!(op, Op::Pass(_) | Op::Round | Op::Todo | Op::TodoOne | Op::Reap) {
            let whose = op.worker().and_then(|pick| self.worker(pick));
            self.note(whose, || format!("{op:?}"));
        }
        let now = self.now;
        match *op {
            Op::Connect(l, n) => {
                if let Some(socket) = self.socket(l).and_then(|id| self.sockets.get_mut(&id)) {
                    socket.backlog += u32::from(n);
                }
            }
            Op::Accept(l, n) => {
                if let Some(listener) = self.socket(l) {
                    self.accept(listener, n.into());
                }
            }
            Op::Read(w) => self.read_by(w, BYTES_PER_TURN),
            Op::ReadSome(w, n) => self.read_by(w, n.into()),
            Op::Answer(w, nth, accepted) => {
                self.act_on(w, |p, it| p.answer(now, nth.into(), accepted, &mut it.channel));
            }
            Op::AcceptAll(w) => self.act_on(w, |p, it| p.take_all(now, &mut it.channel)),
            Op::Pull(w) => self.pull_by(w, BYTES_PER_TURN),
            Op::PullSome(w, n) => self.pull_by(w, n.into()),
            Op::Round => self.round(),
            Op::Todo => while self.do_one() {},
            Op::TodoOne => drop(self.do_one()),
            Op::Reap => self.reap_all(),
            Op::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
            Op::Sleep(ms) => self.sleep(Duration::from_millis(ms.into())),
            Op::Mute(mute) => self.mute = mute,
            Op::FailSpawns(n, missing) => self.fail_spawns(n, missing),
            Op::StarveSpawns(n) => self.starve_spawns(n),
            Op::FailBind => self.failing_binds = 1,
            Op::FailHandoff(w) => self.with(w, |it| it.trouble = Some(Trouble::Fails)),
            Op::ManyRefs(w) => self.with(w, |it| it.trouble = Some(Trouble::TooManyRefs)),
            Op::Ping(w) => {
                if let Some(id) = self.worker(w) {
                    self.input(Input::Command(Command::Ping(id)));
                }
            }
            Op::Stop => self.input(Input::Command(Command::Stop)),
            Op::StopNow => self.input(Input::Command(Command::StopNow)),
            Op::Reload(seed) => self.ask_to_reload(seed),
            Op::Scale(workers) => {
                self.input(Input::Command(Command::Scale(workers.into())));
            }
            Op::Pause(pause) => {
                self.paused = pause;
                let command = if pause { Command::Pause } else { Command::Resume };
                self.input(Input::Command(command));
            }
            Op::Memory(w, large) => {
                if let Some(worker) = self.worker(w) {
                    let bytes = if large { MEMORY + 1 } else { 1 };
                    self.input(Input::Memory { worker, bytes });
                }
            }
            Op::Doom(pick, count) => {
                let omen = Omen::of(pick);
                self.dooms.extend(std::iter::repeat_n(omen, count.into()));
            }
            // Nothing else: what a blocked send would do now, it does at the next operation.
            Op::Restore => return self.restore(),
            ref other => self.misbehave(other),
        }
        self.flush_all();
    }

    fn ask_to_reload(&mut self, seed: u32) {
        let config = change(seed, self.core.core.config());
        if seed.is_multiple_of(3) {
            self.dooms.push_back(Omen::of((seed >> 8) as u8));
        }
        if seed.is_multiple_of(13) {
            self.failing_binds = 1;
        }
        self.input(Input::Reload { config: config.map(Box::new) });
    }

    fn read_by(&mut self, pick: u8, budget: usize) {
        if let Some(id) = self.worker(pick) {
            self.read(id, budget);
        }
    }

    fn pull_by(&mut self, pick: u8, budget: usize) {
        if let Some(id) = self.worker(pick) {
            self.pull(id, budget);
        }
    }

    /// What a worker does on its own account.
    fn misbehave(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            // A number that is in flight would be an answer, and a lie that nobody can tell.
            Op::Stray(w, n) => self.act_on(w, |p, it| {
                // Now and then more than are put up with.
                let times = if n.is_multiple_of(16) { 12 } else { 1 };
                for raw in (1_000_000 + u64::from(n)..).take(times) {
                    p.stray(raw, raw.is_multiple_of(2), &mut it.channel);
                }
            }),
            Op::Repeat(w, accepted) => self.act_on(w, |p, it| p.repeat(accepted, &mut it.channel)),
            Op::Stall(w, stalls) => self.with(w, |it| it.stalls = stalls || it.hangs),
            Op::Slow(w, slow) => self.with(w, |it| it.slow = slow),
            Op::Starve(w, starved) => self.with(w, |it| it.starved = starved),
            Op::Linger(w, level) => self.with(w, |it| it.stubborn = level % 4),
            Op::Die(w) => {
                self.read_by(w, BYTES_PER_TURN);
                self.act_on(w, |p, it| p.take_all(now, &mut it.channel));
                self.kill(w, ExitStatus::Signal(9));
                self.reap_all();
            }
            Op::Exit(w, code) => self.kill(w, ExitStatus::Code(code.into())),
            Op::LoseExit(w) => {
                self.with(w, |it| it.exit_lost = true);
                self.kill(w, ExitStatus::Code(1));
                self.reached(Effect::ExitLost);
            }
            Op::Orphan(w) => {
                self.with(w, |it| it.grandchild = true);
                self.kill(w, ExitStatus::Signal(9));
            }
            Op::Hang(w) => self.with(w, |it| {
                it.hangs = it.alive;
                it.stalls |= it.hangs;
            }),
            Op::CloseChannel(w) => self.with(w, |it| {
                if it.alive && !it.hangs {
                    it.channel.worker_closes();
                }
            }),
            Op::Suicide(w) => self.act_on(w, |p, it| p.request_replacement(now, &mut it.channel)),
            Op::Leave(w) => self.act_on(w, |p, it| p.leave(now, &mut it.channel)),
            Op::CloseListener(w, l) => {
                self.act_on(w, |p, it| p.close(now, l.into(), &mut it.channel));
            }
            Op::Ask(w, k) => {
                let keys: Vec<&ListenKey> = self.keys.iter().chain(&self.rivals).collect();
                if let Some(&key) = keys.get(usize::from(k) % keys.len().max(1)) {
                    let key = key.clone();
                    self.act_on(w, |p, it| p.ask(now, &key, &mut it.channel));
                }
            }
            Op::Rival(w) => self.ask_for_a_rival(w),
            Op::Chat(w, n) => self.act_on(w, |p, it| p.chat(now, n.into(), &mut it.channel)),
            Op::SendHandle(w) => self.act_on(w, |p, it| {
                if let Program::Node(node) = p {
                    node.send_handle(&mut it.channel);
                }
            }),
            Op::Flood(w, asks) => {
                let asked = self.worker(w).map(|id| self.asks_of(id)).unwrap_or_default();
                // One that it can do without.
                let key = asked.into_iter().find(|key| self.keys.contains(key)).filter(|_| asks);
                self.act_on(w, |p, it| {
                    for n in 0..400 {
                        match &key {
                            Some(key) => p.ask_in_vain(n, key, &mut it.channel),
                            None => p.babble(n, &mut it.channel),
                        }
                    }
                });
            }
            Op::Hostile(w, seed) => {
                if let Some(id) = self.worker(w) {
                    self.send_hostile(id, seed.into());
                }
            }
            Op::Half(w) => {
                if let Some(id) = self.worker(w) {
                    self.send_half(id);
                }
            }
            _ => {}
        }
    }

    fn ask_for_a_rival(&mut self, pick: u8) {
        let (now, Some(key)) = (self.now, self.rivals.first().cloned()) else { return };
        for id in self.ids() {
            self.act(id, |p, it| p.close(now, 255, &mut it.channel));
        }
        self.round();
        self.act_on(pick, |p, it| p.ask(now, &key, &mut it.channel));
        self.pull_by(pick, BYTES_PER_TURN);
    }

    fn kill(&mut self, pick: u8, status: ExitStatus) {
        if let Some(id) = self.worker(pick)
            && self.processes.get(&id).is_some_and(|it| !it.hangs)
        {
            self.die(id, status);
        }
    }

    /// Writes the primary and the native workers down and goes on with what is read back.
    fn restore(&mut self) {
        let text = serde_json::to_value(&self.core.core);
        if let Ok(mut state) = text {
            if self.mutant == Some(Mutant::LoseTimer) {
                state["timers"] = serde_json::Value::Array(Vec::new());
            }
            let Ok(primary) = serde_json::from_value(state) else { return };
            Shim::replace(&mut self.core, primary);
            self.reached(Effect::Restored);
        }
        for process in self.processes.values_mut() {
            if let Some(Program::Native(native)) = &mut process.program {
                let text = serde_json::to_string(native.core_mut());
                if let Some(core) = text.ok().and_then(|text| serde_json::from_str(&text).ok()) {
                    *native.core_mut() = core;
                }
            }
        }
    }

    /// Time passes, and nobody looks at the clock meanwhile.
    fn sleep(&mut self, span: Duration) {
        self.turn();
        if let Some(deadline) = self.core.poll_timeout()
            && (self.now + span).since(deadline.at) > Duration::from_secs(1)
        {
            self.reached(Effect::ClockJump);
        }
        self.now += span;
        self.turn();
        self.wake();
    }
}
