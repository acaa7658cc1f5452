//! Which steps are possible in a state, and what each one does.

use std::net::SocketAddr;

use roundel_core::{
    Command, Errno, ExitStatus, Input, Seq, SockName, SpawnError, Time, Timer, WorkerId,
};

use super::action::Action;
use super::goals::{Goal, Goals};
use super::process::{Down, NAP, Process, State, Up};
use super::world::{Door, World};

/// A deadline after which a worker is punished, or reported, for what it has not done.
fn is_patience(timer: Timer) -> bool {
    !matches!(timer, Timer::Cooldown | Timer::Respawn | Timer::Fence | Timer::Orphan)
}

impl World {
    /// What goes on by itself: nobody's wish and no fault is needed for it, and no time.
    pub fn progress(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.verdict.is_some() {
            return actions;
        }
        match self.door {
            Door::Binding => actions.push(Action::Bind(true)),
            Door::Closing => actions.push(Action::Unbind),
            Door::Open(_) | Door::Closed => {}
        }
        for process in &self.processes {
            let w = process.id.get() as u8;
            if process.state == State::Starting {
                actions.push(Action::Spawn(w));
            }
            if process.state == State::Suspended {
                actions.push(Action::Continue(w));
            }
            if process.is_readable() {
                let end = process.up.is_empty();
                actions.push(if end { Action::ReadEnd(w) } else { Action::Read(w) });
            }
            if process.is_reapable() {
                actions.push(Action::Reap(w));
            }
            if process.is_busy() {
                Self::duties(process, w, &mut actions);
            }
        }
        actions
    }

    fn duties(process: &Process, w: u8, actions: &mut Vec<Action>) {
        if !process.introduced {
            actions.push(if process.leaving { Action::Exit(w) } else { Action::Introduce(w) });
        } else if process.down.first() == Some(&Down::Granted) {
            actions.push(Action::Listen(w));
        } else if process.down.is_empty() {
            actions.push(Action::Exit(w));
        } else {
            let conns = process.down.len() as u8;
            actions.extend((0..conns).map(|nth| Action::Accept(w, nth)));
        }
    }

    /// Everything that can happen next.
    pub fn actions(&self) -> Vec<Action> {
        let mut actions = self.progress();
        if self.verdict.is_some() {
            return actions;
        }
        if self.left.connections > 0 && matches!(self.door, Door::Open(true) | Door::Closing) {
            actions.push(Action::Arrive);
        }
        if self.left.troubles > 0 {
            self.troubles(&mut actions);
        }
        if self.left.commands > 0 {
            actions.extend([Action::Stop, Action::StopNow]);
        }
        if self.primary.poll_timeout().is_some() && self.has_read_all() {
            actions.push(Action::Tick);
        }
        let answers = |action: &Action| {
            use Action::{Bind, Spawn, SpawnFails, Unbind};
            matches!(action, Bind(_) | Unbind | Spawn(_) | SpawnFails(_))
        };
        if let Some(only) = self.only_answer() {
            return vec![only];
        }
        if !self.lazy && actions.iter().any(answers) {
            // What comes before the listener is closed comes before the primary is told so.
            let closing = self.door == Door::Closing;
            actions.retain(|action| answers(action) || (closing && *action == Action::Arrive));
        }
        actions
    }

    /// An answer that commutes with everything else that can happen before it, so that it is
    /// enough to look at the runs in which it comes first.
    ///
    /// With neither troubles nor commands left, nothing but a kill by the primary can come between
    /// a running worker and its answer. The primary kills for what it reads (garbage), when a
    /// deadline passes (which waits for running workers), and to make room when a worker fails or
    /// loses its channel. So there must be nothing of that kind under way.
    fn only_answer(&self) -> Option<Action> {
        let calm = self.left.troubles == 0 && self.left.commands == 0 && !self.lazy;
        let steady = |p: &Process| {
            !p.suicided && !p.shut && !p.fenced && !p.killed && !p.up.contains(&Up::Garbage)
        };
        if !calm || !self.processes.iter().all(steady) {
            return None;
        }
        let sole = |process: &&Process| process.is_busy() && process.down.len() == 1;
        let process = self.processes.iter().find(sole)?;
        let w = process.id.get() as u8;
        matches!(process.down.first(), Some(Down::Conn(..))).then_some(Action::Accept(w, 0))
    }

    /// What may go wrong, each for one of the run's troubles.
    fn troubles(&self, actions: &mut Vec<Action>) {
        if self.door == Door::Binding {
            actions.push(Action::Bind(false));
        }
        for process in &self.processes {
            let w = process.id.get() as u8;
            if process.is_busy() {
                let conns = (0..).take_while(|&nth| process.unanswered(nth).is_some());
                actions.extend(conns.map(|nth| Action::Decline(w, nth)));
            }
            match process.state {
                State::Starting => actions.push(Action::SpawnFails(w)),
                State::Running => {
                    actions.push(Action::Crash(w));
                    actions.push(Action::CrashLeavingChild(w));
                    actions.push(Action::Suspend(w));
                    actions.push(Action::Hang(w));
                    if process.introduced && !process.shut {
                        actions.push(Action::Garbage(w));
                        actions.push(Action::CloseChannel(w));
                        if !process.leaving {
                            actions.extend([Action::Suicide(w), Action::Leave(w)]);
                        }
                    }
                }
                State::Suspended | State::Hanging | State::Dead => {}
            }
            if matches!(process.down.last(), Some(Down::Conn(..))) {
                actions.push(Action::HandoffFails(w));
            }
        }
        if self.primary.poll_timeout().is_some() && self.has_read_all() {
            actions.push(Action::Oversleep);
        }
    }

    /// Whether the primary was told everything that it could know: only then is it woken.
    fn has_read_all(&self) -> bool {
        let open = matches!(self.door, Door::Open(_) | Door::Closed);
        let told = |p: &Process| p.state != State::Starting && !p.is_readable() && !p.is_reapable();
        open && self.processes.iter().all(told)
    }

    /// Does a step. False if it turns out that it can't be done, or changes nothing.
    pub fn apply(&mut self, action: Action) -> bool {
        self.goals = Goals::default();
        if let Some(said) = &mut self.said {
            said.clear();
        }
        self.pay(action);
        match action {
            Action::Bind(bound) => {
                self.door = if bound { Door::Open(false) } else { Door::Closed };
                let name = SockName::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
                let result = if bound { Ok(name) } else { Err(Errno::EADDRINUSE) };
                self.tell(Input::Bound { listener: self.listener, result });
            }
            Action::Unbind => {
                self.door = Door::Closed;
                self.left.connections = 0;
                self.tell(Input::Unbound { listener: self.listener });
            }
            Action::Arrive => self.arrive(),
            Action::Stop => self.tell(Input::Command(Command::Stop)),
            Action::StopNow => self.tell(Input::Command(Command::StopNow)),
            Action::Tick => return self.tick(None),
            Action::Oversleep => return self.tick(Some(NAP)),
            _ => {
                let Some((id, nth)) = worker_of(action) else { return false };
                self.act(action, id, nth);
            }
        }
        self.look_around();
        true
    }

    fn pay(&mut self, action: Action) {
        match action {
            Action::Arrive => self.left.connections -= 1,
            Action::Stop | Action::StopNow => self.left.commands -= 1,
            _ if action.is_trouble() => self.left.troubles -= 1,
            _ => {}
        }
    }

    fn act(&mut self, action: Action, id: WorkerId, nth: u8) {
        match action {
            Action::Spawn(_) => self.spawn(id),
            Action::SpawnFails(_) => {
                self.processes.retain(|process| process.id != id);
                let cause = SpawnError::Other(Errno(11));
                self.tell(Input::SpawnFailed { worker: id, cause });
            }
            Action::Accept(..) => self.answer(id, nth, true),
            Action::Decline(..) => self.answer(id, nth, false),
            Action::Read(_) => self.read(id),
            Action::ReadEnd(_) => self.read_end(id),
            Action::Reap(_) => self.reap(id),
            Action::HandoffFails(_) => self.fail_handoff(id),
            _ => {
                if let Some(process) = self.process_mut(id) {
                    process.act(action);
                }
            }
        }
    }

    /// Passes the next deadline at which something happens.
    ///
    /// The ack timer is a reminder that may come too early: such a deadline is none that could be
    /// told apart from outside, nor is it part of what is compared, so it is passed on the way.
    fn tick(&mut self, late: Option<std::time::Duration>) -> bool {
        for _ in 0..100 {
            let Some(deadline) = self.primary.poll_timeout() else { return false };
            let busy = self.processes.iter().any(Process::is_busy);
            let reminder = deadline.timer == Timer::Ack && self.is_early(deadline.at);
            if reminder {
                self.now = deadline.at;
                self.tell(Input::Wake);
                continue;
            }
            if busy && is_patience(deadline.timer) {
                return false;
            }
            self.now = late.map_or(deadline.at, |nap| deadline.at.after(nap));
            self.tell(Input::Wake);
            if self.primary.poll_timeout().is_some_and(|next| next.at <= self.now) {
                self.wrong("a deadline is not later than the wake");
            }
            self.look_around();
            return true;
        }
        self.wrong("the reminders never end");
        true
    }

    /// Whether a wake at this time changes nothing but the clock.
    fn is_early(&self, at: Time) -> bool {
        let (mut woken, mut moved) = (self.primary.clone(), self.primary.clone());
        // Nobody was ever sent so much: it moves the clock, and nothing else.
        let nothing = Seq::from_raw(u64::MAX).zip(self.processes.first().map(|p| p.id));
        let Some((seq, worker)) = nothing else { return false };
        let failed = Input::HandoffFailed { worker, seq, errno: Errno(0) };
        let fine = woken.handle_input(at, Input::Wake).is_ok()
            && moved.handle_input(at, failed).is_ok()
            && !woken.has_output();
        fine && woken.canonical() == moved.canonical()
    }

    /// What a state alone shows.
    fn look_around(&mut self) {
        let here = |process: &Process| process.lives() && !process.ended;
        if self.primary.pending() > 0 && !self.processes.iter().any(here) {
            self.goals.reach(Goal::PendingAlone);
        }
    }
}

impl Process {
    /// What a process does, or what befalls it, that the primary is not told at once.
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Introduce(_) => {
                self.introduced = true;
                self.write(Up::Introduction);
            }
            Action::Listen(_) => {
                self.down.remove(0);
                self.write(Up::Listening);
            }
            Action::Suicide(_) => {
                self.suicided = true;
                self.leaving = true;
                self.write(Up::Suicide);
            }
            Action::Leave(_) => {
                self.leaving = true;
                self.write(Up::Leave);
            }
            Action::Garbage(_) => {
                self.write(Up::Garbage);
            }
            Action::Exit(_) => self.die(ExitStatus::Code(0)),
            Action::Crash(_) => self.die(ExitStatus::Signal(11)),
            Action::CrashLeavingChild(_) => {
                self.die(ExitStatus::Signal(11));
                self.child = !self.shut;
            }
            Action::Suspend(_) => self.state = State::Suspended,
            Action::Continue(_) => self.state = State::Running,
            Action::Hang(_) => self.state = State::Hanging,
            Action::CloseChannel(_) => {
                self.shut = true;
                self.down.clear();
            }
            _ => {}
        }
    }
}

fn worker_of(action: Action) -> Option<(WorkerId, u8)> {
    let (worker, nth) = match action {
        Action::Accept(w, nth) | Action::Decline(w, nth) => (w, nth),
        Action::Spawn(w)
        | Action::SpawnFails(w)
        | Action::Introduce(w)
        | Action::Listen(w)
        | Action::Suicide(w)
        | Action::Leave(w)
        | Action::Garbage(w)
        | Action::Exit(w)
        | Action::Crash(w)
        | Action::CrashLeavingChild(w)
        | Action::Suspend(w)
        | Action::Continue(w)
        | Action::Hang(w)
        | Action::CloseChannel(w)
        | Action::HandoffFails(w)
        | Action::Read(w)
        | Action::ReadEnd(w)
        | Action::Reap(w) => (w, 0),
        Action::Bind(_)
        | Action::Unbind
        | Action::Arrive
        | Action::Stop
        | Action::StopNow
        | Action::Tick
        | Action::Oversleep => return None,
    };
    WorkerId::from_raw(worker.into()).map(|id| (id, nth))
}
