//! Which steps are possible in a state.

use roundel_core::Codec;

use super::action::Action;
use super::process::{Down, Process, State, Up};
use super::world::{SocketState, World};

impl World {
    /// What goes on by itself: nobody's wish and no fault is needed for it, and no time.
    pub fn progress(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.verdict.is_some() {
            return actions;
        }
        match self.socket {
            SocketState::Binding => actions.push(Action::Bind(true)),
            SocketState::Closing | SocketState::Shutting => actions.push(Action::Unbind),
            SocketState::Open(_) | SocketState::Closed => {}
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
        if self.left.connections > 0
            && matches!(self.socket, SocketState::Open(true) | SocketState::Closing)
        {
            actions.push(Action::Arrive);
        }
        if self.left.troubles > 0 && self.reload.is_some() {
            self.troubles_of_reloads(&mut actions);
        } else if self.left.troubles > 0 {
            self.troubles(&mut actions);
        }
        if self.left.commands > 0 {
            actions.extend([Action::Stop, Action::StopNow]);
        }
        if self.left.reloads > 0 {
            actions.push(Action::Reload);
        }
        if self.primary.poll_timeout().is_some() && self.has_read_all() {
            actions.push(Action::Tick);
        }
        let answers = |action: &Action| {
            use Action::{Bind, Spawn, SpawnFails, SpawnStarves, Unbind};
            matches!(action, Bind(_) | Unbind | Spawn(_) | SpawnFails(_) | SpawnStarves(_))
        };
        if !self.lazy && actions.iter().any(answers) {
            // What comes before the listener is closed comes before the primary is told so.
            let closing = self.socket == SocketState::Closing;
            actions.retain(|action| answers(action) || (closing && *action == Action::Arrive));
        } else if let Some(only) = self.only_answer() {
            return vec![only];
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
        let calm =
            self.reduce.answers && self.left.troubles == 0 && self.left.commands == 0 && !self.lazy;
        let calm = calm && !self.may_reload();
        let steady = |p: &Process| {
            !p.suicided && !p.shut && !p.read_shut && !p.killed && !p.up.contains(&Up::Garbage)
        };
        if !calm || !self.processes.iter().all(steady) {
            return None;
        }
        let sole = |process: &&Process| process.is_busy() && process.down.len() == 1;
        let process = self.processes.iter().find(sole)?;
        let w = process.id.get() as u8;
        matches!(process.down.first(), Some(Down::Conn(..))).then_some(Action::Accept(w, 0))
    }

    /// What may go wrong with a reload: a worker dies, or does not become ready.
    fn troubles_of_reloads(&self, actions: &mut Vec<Action>) {
        let running = self.processes.iter().filter(|process| process.runs());
        for process in running {
            let w = process.id.get() as u8;
            actions.push(Action::Crash(w));
            let listens = self.reference.members.iter().any(|it| it.id == process.id && it.ready);
            if !listens && !process.up.contains(&Up::Listening) {
                actions.push(Action::Suspend(w));
            }
        }
    }

    /// What may go wrong, each for one of the run's troubles.
    fn troubles(&self, actions: &mut Vec<Action>) {
        if self.socket == SocketState::Binding {
            actions.push(Action::Bind(false));
        }
        for process in &self.processes {
            let w = process.id.get() as u8;
            if process.is_busy() {
                let conns = (0..).take_while(|&nth| process.unanswered(nth).is_some());
                actions.extend(conns.map(|nth| Action::Decline(w, nth)));
                let holds = self.codec == Codec::Node && process.doubted.is_none();
                if holds && process.unanswered(0).is_some() {
                    actions.push(Action::Doubt(w));
                }
            }
            match process.state {
                State::Starting => {
                    actions.extend([Action::SpawnFails(w), Action::SpawnStarves(w)]);
                }
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
            // What it has taken was sent.
            let last =
                |down: &&Down| matches!(down, Down::Conn(seq, _) if process.doubted != Some(*seq));
            if process.down.last().filter(last).is_some() {
                actions.push(Action::HandoffFails(w));
            }
        }
        if self.primary.poll_timeout().is_some() && self.has_read_all() {
            actions.push(Action::Oversleep);
        }
    }

    /// Whether the primary was told everything that it could know: only then is it woken.
    fn has_read_all(&self) -> bool {
        let open = matches!(self.socket, SocketState::Open(_) | SocketState::Closed);
        let told = |p: &Process| p.state != State::Starting && !p.is_readable() && !p.is_reapable();
        open && self.processes.iter().all(told)
    }
}
