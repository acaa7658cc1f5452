//! Which worker must get which connection next, computed as plainly as possible beside the primary.

use std::time::Duration;

use roundel_core::{
    Attach, Config, ConnEnd, ConnId, Event, FromWorker, Input, Output, Overflow, Primary, Refusal,
    Seq, Signal, Time, ToWorker, WorkerId,
};

use super::goals::{Goal, Goals};
use super::restarts::Tries;

/// Set by a decline: nothing until then (`None` once that has passed), and how long the next
/// decline cools.
type Cool = (Option<Time>, Duration);

/// A worker as its handoffs and answers show it.
#[derive(Clone, Debug)]
pub struct WorkerModel {
    /// Which one.
    pub id: WorkerId,
    /// It listens.
    pub ready: bool,
    /// It is on its way out, or gone.
    pub out: bool,
    /// It is to take another one's place, and does not have it yet.
    pub held: bool,
    /// In flight, with the number of workers that died with it.
    pub in_flight: Vec<(Seq, ConnId, u8)>,
    /// Which of that it may have served.
    pub in_doubt: Vec<Seq>,
    /// Whether it declined.
    pub cool: Option<Cool>,
    /// Its place.
    pub(super) slot: u32,
    pub(super) ready_at: Option<Time>,
    pub(super) served: bool,
    /// Its place has, or waits for, another one.
    pub(super) followed: bool,
}

/// The reference for guarantees 2 to 6, and 9.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// The workers, the one whose number in flight changed last at the end.
    pub members: Vec<WorkerModel>,
    /// Pending, in the order of the ids, with the number of workers that died with it.
    pub pending: Vec<(ConnId, u8)>,
    /// What dead workers may have served: to be released.
    unknown: Vec<ConnId>,
    pub(super) successors: Vec<WorkerId>,
    pub(super) tries: Vec<Tries>,
    pub(super) now: Time,
    is_wake: bool,
    stopping: bool,
    /// What the worker just accepted: to be released.
    accepted: Option<(ConnId, WorkerId)>,
    /// What was reached.
    pub goals: Goals,
    /// The first thing that was wrong.
    pub fault: Option<String>,
}

impl Reference {
    pub(super) fn wrong(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    pub(super) fn member(&mut self, id: WorkerId) -> Option<&mut WorkerModel> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    pub(super) fn move_to_end(&mut self, id: WorkerId) {
        if let Some(at) = self.members.iter().position(|member| member.id == id) {
            let member = self.members.remove(at);
            self.members.push(member);
        }
    }

    fn leaves(&mut self, id: WorkerId) {
        if let Some(member) = self.member(id) {
            member.out = true;
        }
    }

    /// Nobody comes after one that the primary ends.
    fn follow(&mut self, id: WorkerId) {
        if let Some(member) = self.member(id) {
            member.followed = true;
        }
    }

    fn comes_back(&mut self, conn: ConnId, deaths: u8) {
        self.pending.push((conn, deaths));
        self.pending.sort_unstable();
    }

    /// Sees an input before the primary does.
    pub fn on_input(&mut self, now: Time, input: &Input, config: &Config) {
        self.now = now;
        self.is_wake = matches!(input, Input::Wake);
        match input {
            Input::Incoming { conn, .. } => self.pending.push((*conn, 0)),
            Input::Message { worker, msg } => self.on_message(*worker, msg, config),
            Input::Violation { worker, .. } => self.leaves(*worker),
            Input::Exited { worker, .. } => {
                self.leaves(*worker);
                self.vacates(*worker);
            }
            Input::InDoubt { worker, seq } => {
                if let Some(member) = self.member(*worker) {
                    member.in_doubt.push(*seq);
                }
            }
            Input::ChannelClosed { worker } => {
                self.leaves(*worker);
                let Some(member) = self.member(*worker) else { return };
                let in_flight = std::mem::take(&mut member.in_flight);
                let in_doubt = std::mem::take(&mut member.in_doubt);
                for (seq, conn, deaths) in in_flight {
                    if in_doubt.contains(&seq) {
                        self.unknown.push(conn);
                    } else {
                        self.comes_back(conn, deaths + 1);
                    }
                }
            }
            Input::HandoffFailed { worker, seq, .. } => self.declined(*worker, *seq, config),
            Input::SpawnFailed { worker, .. } => {
                self.vacates(*worker);
                self.members.retain(|member| member.id != *worker);
            }
            _ => {}
        }
    }

    fn on_message(&mut self, id: WorkerId, msg: &FromWorker, config: &Config) {
        match msg {
            FromWorker::Listening { .. } => {
                let now = self.now;
                if let Some(member) = self.member(id) {
                    member.ready = true;
                    member.ready_at = Some(now);
                    self.move_to_end(id);
                }
            }
            FromWorker::Suicide { .. } | FromWorker::ExitedAfterDisconnect { .. } => {
                self.leaves(id);
            }
            FromWorker::Ack { ack, accepted: false } => self.declined(id, *ack, config),
            FromWorker::Ack { ack, accepted: true } => {
                if let Some((conn, _)) = self.land(id, *ack) {
                    self.accepted = Some((conn, id));
                    if let Some(member) = self.member(id) {
                        member.cool = None;
                        member.served = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// A connection is in flight no longer.
    fn land(&mut self, id: WorkerId, seq: Seq) -> Option<(ConnId, u8)> {
        let member = self.member(id)?;
        let at = member.in_flight.iter().position(|in_flight| in_flight.0 == seq)?;
        let (_, conn, deaths) = member.in_flight.remove(at);
        member.in_doubt.retain(|&in_doubt| in_doubt != seq);
        self.move_to_end(id);
        Some((conn, deaths))
    }

    fn declined(&mut self, id: WorkerId, seq: Seq, config: &Config) {
        let Some((conn, deaths)) = self.land(id, seq) else { return };
        self.comes_back(conn, deaths);
        let now = self.now;
        if let Some(member) = self.member(id) {
            let span = member.cool.map_or(config.cooldown(), |cool| cool.1);
            member.cool = Some((Some(now + span), (span * 2).min(config.cooldown_max())));
        }
    }

    /// Cool-downs that are over, up to that of `last` in the order in which they end.
    fn cool_until(&mut self, last: Option<WorkerId>) {
        let now = self.now;
        let end = |member: &WorkerModel| member.cool.and_then(|cool| cool.0);
        let last = last.and_then(|id| {
            let member = self.members.iter().find(|member| member.id == id)?;
            end(member).map(|at| (at, id))
        });
        for member in &mut self.members {
            let over = end(member)
                .is_some_and(|at| at <= now && last.is_none_or(|last| (at, member.id) <= last));
            if over && let Some(cool) = &mut member.cool {
                cool.0 = None;
            }
        }
    }

    fn is_eligible(member: &WorkerModel, window: u32) -> bool {
        let cooled = match member.cool {
            None => true,
            Some((Some(_), _)) => false,
            Some((None, _)) => member.in_flight.is_empty(),
        };
        member.ready
            && !member.out
            && !member.held
            && member.in_flight.len() < window as usize
            && cooled
    }

    /// The eligible worker with the fewest in flight, among equals the one that has been at that
    /// number longest.
    fn next(&self, window: u32) -> Option<WorkerId> {
        let eligible = self.members.iter().filter(|member| Self::is_eligible(member, window));
        eligible.min_by_key(|member| member.in_flight.len()).map(|member| member.id)
    }

    /// Sees an output after the primary has said it.
    pub fn on_output(&mut self, output: &Output, config: &Config) {
        match output {
            Output::Spawn { worker, slot, .. } => self.on_spawn(*worker, slot.0, config),
            Output::Kill { worker, signal: Signal::Kill }
            | Output::Send { worker, msg: ToWorker::Drain { .. }, .. } => self.leaves(*worker),
            Output::Forget { worker } => {
                self.vacates(*worker);
                self.members.retain(|member| member.id != *worker);
            }
            Output::Send {
                worker,
                msg: ToWorker::NewConn { first_seq, .. },
                attach: Some(Attach::Conn(conn)),
            } => self.on_handoff(*worker, *first_seq, *conn, config.window()),
            Output::Event(Event::Settling { worker, .. }) => {
                self.leaves(*worker);
                self.follow(*worker);
            }
            Output::Event(Event::GivenUp { slot, .. }) => self.on_given_up(slot.0, config),
            // Somebody wanted it, or every slot was given up.
            Output::Event(Event::Stopping { .. }) => self.stopping = true,
            Output::Release { conn, end } => self.on_release(*conn, *end, config),
            _ => {}
        }
    }

    fn on_handoff(&mut self, id: WorkerId, seq: Seq, conn: ConnId, window: u32) {
        if self.is_wake {
            self.cool_until(Some(id));
        }
        if self.unknown.contains(&conn) {
            self.wrong(format!("3: {conn} goes to {id} and may have been served"));
        }
        let full = |member: &&WorkerModel| member.in_flight.len() >= window as usize;
        if self.members.iter().filter(full).any(|member| member.id == id) {
            self.wrong(format!("6: {conn} goes to {id}, which has its window full"));
        }
        let next = self.next(window);
        if next != Some(id) {
            self.wrong(format!("4: {conn} goes to {id} and {next:?} was next"));
        }
        let first = self.pending.first().copied();
        let Some((first, deaths)) = first.filter(|first| first.0 == conn) else {
            return self.wrong(format!("2: {conn} is handed off and {first:?} was first"));
        };
        self.pending.remove(0);
        if let Some(member) = self.member(id) {
            let after_cool = member.cool.is_some();
            member.in_flight.push((seq, first, deaths));
            if after_cool {
                self.goals.reach(Goal::ServedAfterDecline);
            }
        }
        self.move_to_end(id);
    }

    fn on_release(&mut self, conn: ConnId, end: ConnEnd, config: &Config) {
        let refusal = match end {
            ConnEnd::AcceptedBy(worker) => {
                if self.accepted.take() != Some((conn, worker)) {
                    self.wrong(format!("2: {conn} is released as accepted by {worker}"));
                }
                return;
            }
            ConnEnd::Refused(refusal) => refusal,
        };
        if refusal == Refusal::Unknown {
            let before = self.unknown.len();
            self.unknown.retain(|&unknown| unknown != conn);
            if self.unknown.len() == before {
                self.wrong(format!("2: {conn} is let go of as unknown and nobody took it"));
            }
            return self.goals.reach(Goal::Unknown);
        }
        let Some(at) = self.pending.iter().position(|pending| pending.0 == conn) else {
            return self.wrong(format!("2: {conn} is refused and was not pending"));
        };
        let (_, deaths) = self.pending.remove(at);
        let (allowed, goal) = match refusal {
            Refusal::Attempts => (deaths >= config.max_attempts(), Goal::RefusedAttempts),
            Refusal::Shutdown => (self.stopping, Goal::RefusedShutdown),
            Refusal::Overflow => {
                let full = self.pending.len() >= config.max_pending() as usize;
                (full && config.overflow() == Overflow::Refuse, Goal::RefusedOverflow)
            }
            _ => (false, Goal::RefusedOverflow),
        };
        if allowed {
            self.goals.reach(goal);
        } else {
            self.wrong(format!("2: {conn} is refused for no reason ({})", refusal.name()));
        }
    }

    /// All outputs were seen: what must hold then.
    pub fn end_step(&mut self, primary: &Primary, config: &Config) {
        if self.is_wake {
            self.cool_until(None);
        }
        let window = config.window();
        if let Some((conn, worker)) = self.accepted.take() {
            self.wrong(format!("1: {conn} was accepted by {worker} and is not released"));
        }
        if let Some(conn) = self.unknown.first() {
            self.wrong(format!("3: {conn} may have been served and is not let go of"));
        }
        if let Some((conn, _)) = self.pending.iter().find(|p| p.1 >= config.max_attempts()) {
            self.wrong(format!("2: {conn} was in flight at too many workers that died"));
        }
        if let (Some(pending), Some(next)) = (self.pending.first(), self.next(window)) {
            self.wrong(format!("5: {} waits although {next} is eligible", pending.0));
        }
        let most = self.members.iter().map(|member| member.in_flight.len()).max().unwrap_or(0);
        if most > window as usize {
            self.wrong(format!("6: {most} are in flight at one worker"));
        }
        let in_flight: usize = self.members.iter().map(|member| member.in_flight.len()).sum();
        let counts = (primary.pending() as usize, primary.in_flight() as usize);
        if counts != (self.pending.len(), in_flight) {
            self.wrong(format!(
                "1: the primary counts {counts:?} pending and in flight, which is {:?}",
                (self.pending.len(), in_flight)
            ));
        }
    }
}
