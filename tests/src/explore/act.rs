//! What each step does.

use std::net::SocketAddr;

use roundel_core::{Command, Errno, ExitStatus, Input, SockName, SpawnError, Timer, WorkerId};

use super::action::Action;
use super::goals::{Goal, Goals};
use super::process::{NAP, Process, State, Up};
use super::world::{SocketState, World};

/// A deadline after which a worker is punished, or reported, for what it has not done.
fn is_patience(timer: Timer) -> bool {
    // A new worker's deadline is also that of those that have been ready for long enough: a reload
    // that fails because somebody was slow does no harm.
    !matches!(
        timer,
        Timer::Cooldown | Timer::Respawn | Timer::ShutdownRead | Timer::Orphan | Timer::Reload
    )
}

impl World {
    /// Does a step. False if it turns out that it can't be done, or changes nothing.
    pub fn apply(&mut self, action: Action) -> bool {
        self.goals = Goals::default();
        if let Some(said) = &mut self.said {
            said.clear();
        }
        self.pay(action);
        match action {
            Action::Bind(bound) => {
                self.socket = if bound { SocketState::Open(false) } else { SocketState::Closed };
                let name = SockName::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
                let result = if bound { Ok(name) } else { Err(Errno::EADDRINUSE) };
                self.tell(Input::Bound { listener: self.listener, result });
            }
            Action::Unbind => {
                self.socket = SocketState::Closed;
                self.left.connections = 0;
                self.tell(Input::Unbound { listener: self.listener });
            }
            Action::Arrive => self.arrive(),
            Action::Stop => self.tell(Input::Command(Command::Stop)),
            Action::StopNow => self.tell(Input::Command(Command::StopNow)),
            Action::Reload => self.tell(Input::Reload { config: None }),
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
            Action::Reload => self.left.reloads -= 1,
            _ if action.is_trouble() => self.left.troubles -= 1,
            _ => {}
        }
    }

    fn act(&mut self, action: Action, id: WorkerId, nth: u8) {
        match action {
            Action::Spawn(_) => self.spawn(id),
            Action::SpawnFails(_) => {
                self.processes.retain(|process| process.id != id);
                // ENOEXEC.
                let cause = SpawnError::Other(Errno(8));
                self.tell(Input::SpawnFailed { worker: id, cause });
            }
            Action::SpawnStarves(_) => {
                self.processes.retain(|process| process.id != id);
                self.goals.reach(Goal::SpawnStarved);
                std::sync::Arc::make_mut(&mut self.reference).starves(id, self.now);
                let cause = SpawnError::Other(match self.bug {
                    Some(super::bug::Bug::BlameProgram) => Errno(8),
                    _ => Errno::EMFILE,
                });
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

    /// Passes the next deadline that matters, and on the way those that are only reminders: they
    /// can't be told from outside, nor are they part of what is compared.
    fn tick(&mut self, late: Option<std::time::Duration>) -> bool {
        let Some(deadline) = self.primary.deadline() else { return false };
        if is_patience(deadline.timer) && self.processes.iter().any(Process::is_busy) {
            return false;
        }
        while let Some(first) = self.primary.poll_timeout().filter(|first| first.at < deadline.at) {
            self.now = first.at;
            self.tell(Input::Wake);
            if self.primary.poll_timeout().is_some_and(|next| next.at <= self.now) {
                self.wrong("a deadline is not later than the wake");
                return true;
            }
        }
        self.now = late.map_or(deadline.at, |nap| deadline.at + nap);
        self.tell(Input::Wake);
        if self.primary.poll_timeout().is_some_and(|next| next.at <= self.now) {
            self.wrong("a deadline is not later than the wake");
        }
        self.look_around();
        true
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
            Action::Doubt(_) => {
                if let Some((_, seq, _)) = self.unanswered(0) {
                    self.doubted = Some(seq);
                    self.write(Up::Doubt(seq));
                }
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
                self.doubted = None;
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
        | Action::SpawnStarves(w)
        | Action::Introduce(w)
        | Action::Listen(w)
        | Action::Doubt(w)
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
        | Action::Reload
        | Action::Tick
        | Action::Oversleep => return None,
    };
    WorkerId::from_raw(worker.into()).map(|id| (id, nth))
}
