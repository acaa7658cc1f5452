//! The real primary and everything around it, as one state.

use std::sync::{Arc, OnceLock};

use roundel_core::{
    Address, Codec, Config, ConnId, Errno, ExitStatus, FromWorker, Input, ListenKey, ListenerId,
    Output, Primary, Seq, Time, Verdict, Violation, WorkerId,
};

use super::action::Action;
use super::bounds::{Bounds, Reduce};
use super::bug::Bug;
use super::fingerprint::Seen;
use super::goals::{Goal, Goals};
use super::process::{Process, Up};
use super::reference::Reference;
use crate::models::reload::ReloadModel;

/// The listener as the embedder has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// Being bound.
    Binding,
    /// Open; whether the primary accepts.
    Open(bool),
    /// Being emptied and closed.
    Closing,
    /// Being closed as it is.
    Shutting,
    /// Closed, or never bound.
    Closed,
}

/// What is left to happen in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Connections that have not arrived.
    pub connections: u8,
    /// Troubles.
    pub troubles: u8,
    /// Workers beyond the first ones; below zero the run has left the bounds.
    pub respawns: i8,
    /// Wishes of the operator.
    pub commands: u8,
    /// Reloads.
    pub reloads: u8,
}

impl Left {
    /// Whether whatever can happen with the other can happen with this.
    pub fn covers(self, other: Left) -> bool {
        self.connections >= other.connections
            && self.troubles >= other.troubles
            && self.respawns >= other.respawns
            && self.commands >= other.commands
            && self.reloads >= other.reloads
    }
}

/// A state: the primary, the processes, the channels, the clock.
#[derive(Clone, Debug)]
pub struct World {
    /// The real one, shared with the states before and after in which it was told nothing.
    pub primary: Arc<Primary>,
    /// Virtual time.
    pub now: Time,
    /// The listener.
    pub socket: SocketState,
    /// The processes, in the order of their ids.
    pub processes: Vec<Process>,
    /// Every connection that the primary has not released, and the worker that accepted it: its
    /// answer is in the channel.
    pub custody: Vec<(ConnId, Option<WorkerId>)>,
    /// What is left to happen.
    pub left: Left,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// The reference that says which worker must get which connection.
    pub reference: Arc<Reference>,
    /// The reference for reloads, if there are any.
    pub reload: Option<Arc<ReloadModel>>,
    /// What the last step reached.
    pub goals: Goals,
    /// The first thing that was wrong.
    pub fault: Option<String>,
    /// What the primary said in the last step, if anybody wants to know.
    pub said: Option<Vec<Output>>,
    /// The hash of the primary as it is, once somebody wanted it.
    pub(super) seen: OnceLock<Seen>,
    pub(super) bug: Option<Bug>,
    pub(super) lazy: bool,
    pub(super) codec: Codec,
    pub(super) reduce: Reduce,
    /// Troubles are too few for a process too many.
    pub(super) few_troubles: bool,
    pub(super) last_conn: u64,
    pub(super) config: Arc<Config>,
    pub(super) listener: ListenerId,
}

/// A number for messages whose number nobody looks at.
fn some_seq() -> Seq {
    Seq::from_raw(1).unwrap_or_else(|| unreachable!("not zero"))
}

impl World {
    /// The first state of a search.
    pub fn new(bounds: &Bounds, bug: Option<Bug>) -> World {
        let config = Arc::new(bounds.config());
        let told = bug.map_or(bounds.builder(), |bug| bug.configures(bounds)).build();
        let told = told.unwrap_or_else(|error| unreachable!("{error}"));
        let left = Left {
            connections: bounds.connections,
            troubles: bounds.troubles,
            respawns: i8::try_from(u32::from(bounds.respawns) + bounds.workers).unwrap_or(i8::MAX),
            commands: bounds.commands,
            reloads: bounds.reloads,
        };
        let mut world = World {
            primary: Arc::new(Primary::new(told)),
            seen: OnceLock::new(),
            now: Time::from_millis(1_000),
            socket: SocketState::Closed,
            processes: Vec::new(),
            custody: Vec::new(),
            left,
            verdict: None,
            reference: Arc::default(),
            reload: (bounds.reloads > 0).then(|| ReloadModel::new(bounds.config()).into()),
            goals: Goals::default(),
            fault: None,
            said: None,
            bug,
            lazy: bounds.lazy,
            codec: bounds.codec(),
            reduce: bounds.reduce,
            few_troubles: u32::from(bounds.troubles) <= bounds.workers,
            last_conn: 0,
            config,
            listener: ListenerId::from_raw(1).unwrap_or_else(|| unreachable!("not zero")),
        };
        world.tell(Input::Wake);
        if !bounds.cold {
            world.boot();
        }
        world
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert(what.into());
    }

    pub(super) fn process_mut(&mut self, id: WorkerId) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.id == id)
    }

    /// Tells the primary something, does what it says, and looks whether that was right.
    pub(super) fn tell(&mut self, input: Input) {
        if let Some(bug) = self.bug
            && bug.keeps(self, &input)
        {
            return;
        }
        let config = Arc::clone(&self.config);
        Arc::make_mut(&mut self.reference).on_input(self.now, &input, &config);
        if let Some(reload) = &mut self.reload {
            let deadline = self.primary.poll_timeout();
            Arc::make_mut(reload).on_input(self.now, &input, deadline);
        }
        self.seen = OnceLock::new();
        if let Err(misuse) = Arc::make_mut(&mut self.primary).handle_input(self.now, input) {
            self.wrong(format!("a right input was refused: {misuse}"));
        }
        while let Some(output) = Arc::make_mut(&mut self.primary).poll_output() {
            match self.bug {
                Some(bug) => {
                    for output in bug.bends(self, output) {
                        self.carry_out(output, &config);
                    }
                }
                None => self.carry_out(output, &config),
            }
        }
        if let Some(reload) = &mut self.reload {
            let reload = Arc::make_mut(reload);
            reload.end_step();
            if let Some((_, what)) = reload.take_faults().into_iter().next() {
                self.wrong(format!("8: {what}"));
            }
        }
        let reference = Arc::make_mut(&mut self.reference);
        reference.end_step(&self.primary, &config);
        self.goals.join(std::mem::take(&mut reference.goals));
        if let Some(what) = reference.fault.take() {
            self.wrong(what);
        }
    }

    fn carry_out(&mut self, output: Output, config: &Config) {
        let reference = Arc::make_mut(&mut self.reference);
        if let Some(reload) = &mut self.reload {
            let reload = Arc::make_mut(reload);
            reload.on_output(&output);
            reload.take_news().iter().for_each(|news| reference.on_news(news));
        }
        reference.on_output(&output, config);
        self.execute(&output);
        if let Some(said) = &mut self.said {
            said.push(output);
        }
    }

    /// Whether a reload is under way, waits, or may come.
    pub(super) fn may_reload(&self) -> bool {
        self.left.reloads > 0 || self.reload.as_ref().is_some_and(|it| it.is_busy())
    }

    /// The primary reads one message of a worker.
    pub(super) fn read(&mut self, id: WorkerId) {
        let Some(process) = self.process_mut(id) else { return };
        if process.up.is_empty() {
            return;
        }
        let up = process.up.remove(0);
        let (reaped, killed) = (process.reaped, process.killed);
        let suicided = process.suicided;
        let message = |msg| Input::Message { worker: id, msg };
        match up {
            Up::Introduction => {
                self.tell(Input::Hello { worker: id, codec: self.codec });
                self.tell(message(FromWorker::Online));
                self.tell(message(FromWorker::Query {
                    seq: some_seq(),
                    key: Box::new(ListenKey::stream(Address::Nth(0))),
                    backlog: 0,
                    data: Vec::new(),
                }));
            }
            Up::Listening => {
                self.tell(message(FromWorker::Listening { listener: self.listener }));
            }
            Up::Ack(ack, accepted) => {
                for (reached, goal) in [
                    (accepted, Goal::Accepted),
                    (accepted && reaped, Goal::LateAck),
                    (accepted && killed, Goal::AckOfKilled),
                    (accepted && suicided, Goal::AckOfSuicide),
                ] {
                    if reached {
                        self.goals.reach(goal);
                    }
                }
                self.tell(message(FromWorker::Ack { ack, accepted }));
            }
            Up::Doubt(seq) => self.tell(Input::InDoubt { worker: id, seq }),
            Up::Suicide => self.tell(message(FromWorker::Suicide { seq: some_seq() })),
            Up::Leave => {
                self.tell(message(FromWorker::ExitedAfterDisconnect { seq: some_seq() }));
            }
            Up::Garbage => {
                self.tell(Input::Violation { worker: id, what: Violation::UnknownCodec });
            }
        }
    }

    /// The primary reads the end of a worker's channel. What the worker has not acted upon makes
    /// no difference from now on.
    pub(super) fn read_end(&mut self, id: WorkerId) {
        let Some(process) = self.process_mut(id) else { return };
        process.ended = true;
        process.down.clear();
        if process.read_shut && (process.lives() || process.child) {
            self.goals.reach(Goal::ReadShutEnd);
        }
        self.tell(Input::ChannelClosed { worker: id });
    }

    /// The primary learns that a process has ended.
    pub(super) fn reap(&mut self, id: WorkerId) {
        let Some(process) = self.process_mut(id) else { return };
        process.reaped = true;
        let status = process.exit.unwrap_or(ExitStatus::Code(0));
        self.tell(Input::Exited { worker: id, status });
    }

    /// A process is started. One that was killed before is killed now.
    pub(super) fn spawn(&mut self, id: WorkerId) {
        let lazy = self.lazy;
        let Some(process) = self.process_mut(id) else { return };
        process.state = super::process::State::Running;
        if process.condemned {
            process.die(ExitStatus::Signal(9));
        } else if !lazy && !process.leaving {
            process.act(Action::Introduce(id.get() as u8));
        }
        let pid = 1_000 + i32::try_from(id.get()).unwrap_or(0);
        self.tell(Input::Spawned { worker: id, pid });
    }

    /// A worker answers the nth connection that it was sent.
    pub(super) fn answer(&mut self, id: WorkerId, nth: u8, accepted: bool) {
        let Some(process) = self.process_mut(id) else { return };
        let Some((at, seq, conn)) = process.unanswered(nth) else { return };
        process.down.remove(at);
        process.doubted = process.doubted.filter(|&doubted| doubted != seq);
        // An answer that can't be written means that the connection is closed unread.
        let written = process.write(Up::Ack(seq, accepted));
        if nth > 0 {
            self.goals.reach(Goal::OutOfOrder);
        }
        if !written || !accepted {
            return;
        }
        let served = self.custody.iter_mut().find(|held| held.0 == conn).map(|held| &mut held.1);
        match served {
            Some(worker @ None) => *worker = Some(id),
            Some(Some(other)) => {
                let what = format!("3: {conn} was accepted by {other} and by {id}");
                self.wrong(what);
            }
            None => self.wrong(format!("3: {conn} was released and then accepted by {id}")),
        }
    }

    /// A connection is accepted from the listener.
    pub(super) fn arrive(&mut self) {
        self.last_conn += 1;
        let Some(conn) = ConnId::from_raw(self.last_conn) else { return };
        self.custody.push((conn, None));
        if self.socket == SocketState::Closing {
            self.goals.reach(Goal::LateArrival);
        }
        self.tell(Input::Incoming { listener: self.listener, conn });
    }

    /// The last handoff to a worker can't be sent.
    pub(super) fn fail_handoff(&mut self, id: WorkerId) {
        let Some(process) = self.process_mut(id) else { return };
        if let Some(super::process::Down::Conn(seq, _)) = process.down.pop() {
            self.goals.reach(Goal::HandoffFailed);
            self.tell(Input::HandoffFailed { worker: id, seq, errno: Errno(24) });
        }
    }
}

impl World {
    /// Everybody gets ready, one after the other.
    fn boot(&mut self) {
        while let Some(action) = self.progress().first().copied() {
            self.apply(action);
        }
        self.goals = Goals::default();
    }
}
