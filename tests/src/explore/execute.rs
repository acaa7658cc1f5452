//! What the primary says, done at once and without waiting.

use roundel_core::{
    Attach, ConnEnd, ConnId, Event, ExitClass, ExitStatus, Output, ReloadFailure, Signal, ToWorker,
    WorkerId,
};

use super::action::Action;
use super::goals::Goal;
use super::process::{Down, Process, State};
use super::world::{SocketState, World};

impl World {
    pub(super) fn execute(&mut self, output: &Output) {
        if self.verdict.is_some() {
            self.wrong(format!("10: {output:?} after the end"));
        }
        match output {
            Output::Spawn { worker, slot, .. } => self.on_spawn(*worker, slot.0),
            Output::Kill { worker, signal } => self.signal(*worker, *signal),
            Output::ShutdownRead { worker } => {
                if let Some(process) = self.process_mut(*worker) {
                    process.read_shut = true;
                }
            }
            Output::Forget { worker } => self.forget(*worker),
            Output::Bind { listener, .. } => {
                self.listener = *listener;
                self.socket = SocketState::Binding;
            }
            Output::Unbind { .. } => self.socket = SocketState::Closing,
            Output::Close { .. } => self.socket = SocketState::Shutting,
            Output::ResumeAccept { .. } => self.socket = SocketState::Open(true),
            Output::PauseAccept { .. } => self.socket = SocketState::Open(false),
            Output::Send { worker, msg, attach } => self.send(*worker, msg, *attach),
            Output::Release { conn, end } => self.release(*conn, *end),
            Output::Event(event) => self.on_event(event),
            Output::Stopped(verdict) => {
                self.verdict = Some(verdict.clone());
                self.goals.reach(match verdict {
                    roundel_core::Verdict::CrashLoop => Goal::CrashLoop,
                    roundel_core::Verdict::CannotBind { .. } => Goal::CannotBind,
                    _ => Goal::Stopped,
                });
                if !self.custody.is_empty() {
                    self.wrong(format!("1: {:?} are held at the end", self.custody));
                }
            }
            _ => {}
        }
    }

    fn on_spawn(&mut self, worker: WorkerId, slot: u32) {
        self.left.respawns -= 1;
        if self.processes.iter().any(|process| process.suicided && process.lives()) {
            self.goals.reach(Goal::SuicideReplaced);
        }
        if self.processes.iter().any(|process| process.shut && process.lives()) {
            self.goals.reach(Goal::OrphanReplaced);
        }
        self.processes.push(Process::new(worker, slot));
    }

    fn signal(&mut self, worker: WorkerId, signal: Signal) {
        let Some(process) = self.process_mut(worker) else { return };
        match (signal, process.state) {
            (Signal::Kill, State::Starting) => process.condemned = true,
            (Signal::Kill, State::Running | State::Suspended) => {
                process.killed = true;
                process.die(ExitStatus::Signal(9));
            }
            (Signal::Kill, _) => process.killed = true,
            (_, State::Dead) => {}
            // It ends when it runs.
            _ => process.leaving = true,
        }
    }

    fn forget(&mut self, worker: WorkerId) {
        let Some(at) = self.processes.iter().position(|process| process.id == worker) else {
            return self.wrong(format!("{worker} is forgotten twice"));
        };
        let process = self.processes.remove(at);
        let hangs = process.state == State::Hanging;
        if !process.ended || !(process.reaped || hangs) {
            self.wrong(format!("{worker} is forgotten and has not ended"));
        }
        if hangs {
            self.goals.reach(Goal::HangingBuried);
        }
    }

    fn send(&mut self, worker: WorkerId, msg: &ToWorker, attach: Option<Attach>) {
        let down = match (msg, attach) {
            (ToWorker::NewConn { first_seq, count: 1, .. }, Some(Attach::Conn(conn))) => {
                match self.custody.iter().find(|held| held.0 == conn) {
                    None => self.wrong(format!("1: {conn} is handed off and is not held")),
                    Some((_, Some(other))) => {
                        let what = format!("3: {conn} goes to {worker} and {other} accepted it");
                        self.wrong(what);
                    }
                    Some((_, None)) => {}
                }
                if self.primary.stop_deadline().is_some() {
                    self.goals.reach(Goal::ServedInShutdown);
                }
                Down::Conn(*first_seq, conn)
            }
            (ToWorker::QueryReply { result: Ok(_), .. }, _) => Down::Granted,
            (ToWorker::Drain { .. }, _) => {
                if let Some(process) = self.process_mut(worker) {
                    process.leaving = true;
                }
                return;
            }
            _ => return,
        };
        let lazy = self.lazy;
        let Some(process) = self.process_mut(worker) else {
            return self.wrong(format!("{worker} is sent something and is gone"));
        };
        if let Down::Conn(seq, _) = down {
            process.sent = seq.get();
        }
        // To a dead one it is lost in the channel; its answer would never be read.
        if process.lives() && !process.shut && !process.ended {
            process.down.push(down);
            if !lazy && down == Down::Granted && process.runs() {
                process.act(Action::Listen(worker.get() as u8));
            }
        }
    }

    fn release(&mut self, conn: ConnId, end: ConnEnd) {
        let Some(at) = self.custody.iter().position(|held| held.0 == conn) else {
            return self.wrong(format!("1: {conn} is released and is not held"));
        };
        let (_, server) = self.custody.remove(at);
        let right = match end {
            ConnEnd::AcceptedBy(worker) => server == Some(worker),
            ConnEnd::Refused(_) => server.is_none(),
        };
        if !right {
            self.wrong(format!("3: {conn} ends as {end:?}, accepted by {server:?}"));
        }
    }

    fn on_event(&mut self, event: &Event) {
        let goal = match event {
            Event::Redispatched { .. } => Goal::Redispatched,
            Event::ReloadDone { .. } => Goal::ReloadDone,
            Event::ReloadFailed { failure: ReloadFailure::Ended { .. }, .. } => Goal::ReloadFailed,
            Event::ReloadFailed { failure: ReloadFailure::NotReady { .. }, .. } => Goal::ReloadLate,
            Event::ReloadFailed { failure: ReloadFailure::Stopped, .. } => Goal::ReloadStopped,
            Event::Exited { class: ExitClass::Voluntary, .. } => Goal::Voluntary,
            Event::Killing { class: ExitClass::Unresponsive, .. } => Goal::AckTimeout,
            Event::Killing { class: ExitClass::NeverReady, .. } => Goal::NeverReady,
            Event::Killing { class: ExitClass::Overdue, .. } => Goal::Overdue,
            Event::Killing { class: ExitClass::Violations, .. } => Goal::Violation,
            Event::RespawnDelayed { .. } => Goal::RespawnDelayed,
            Event::Silent { .. } => Goal::Reported,
            Event::SpawnFailed { .. } => Goal::SpawnFailed,
            Event::GivenUp { .. } => Goal::GivenUp,
            _ => return,
        };
        self.goals.reach(goal);
    }
}
