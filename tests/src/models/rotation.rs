//! Which worker gets which connection next, said as plainly as possible: the reference for
//! guarantees 2 to 6.
//!
//! The model sees every input before the core and every output after it. It does not decide when
//! workers become ready or are killed (it believes the core's events, which other checks cover),
//! but it foretells every handoff.

mod judge;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use roundel_core::{
    Attach, Codec, Command, Config, ConnEnd, ConnId, Deadline, Event, FromWorker, Input,
    ListenerId, Output, Refusal, Seq, Time, ToWorker, WorkerId,
};

use crate::faults::fault::Property;
use crate::models::reload::News;

/// A connection, and how many workers have died while it was in flight at them.
type Waiting = (ConnId, u8);

#[derive(Debug)]
struct Flying {
    seq: Seq,
    conn: ConnId,
    listener: ListenerId,
    deaths: u8,
    /// Its worker may have served it without saying so.
    in_doubt: bool,
}

#[derive(Debug, Default)]
struct Share {
    listening: bool,
    /// Set by a decline: nothing until then (`None` once that has passed), and how long the next
    /// decline cools.
    cool: Option<(Option<Time>, Duration)>,
}

#[derive(Debug, Default)]
struct WorkerModel {
    ready: bool,
    /// How many it may have in flight: by what it speaks.
    window: usize,
    /// Draining, leaving, suicided, killed or gone.
    out: bool,
    killed: bool,
    exited: bool,
    /// It does not have its slot yet.
    held: bool,
    native: bool,
    /// When it was last asked for a sign of life, or became online.
    asked_at: Option<Time>,
    /// How often it was asked since it last gave one.
    missed: u32,
    shares: BTreeMap<ListenerId, Share>,
    in_flight: Vec<Flying>,
    /// Rises each time that its number in flight changes, over all workers.
    at_count_since: u64,
    /// Since when it has had something in flight and answered nothing.
    silent_since: Time,
}

/// The reference.
#[derive(Debug)]
pub struct Model {
    config: Config,
    now: Time,
    members: BTreeMap<WorkerId, WorkerModel>,
    queues: BTreeMap<ListenerId, Vec<Waiting>>,
    /// Listeners with something pending: who was served longest ago is first.
    turns: Vec<ListenerId>,
    paused: bool,
    stopping: bool,
    stamp: u64,
    /// Cool-downs that ended with this wake and were not yet looked at, in the order of their end.
    cooled: VecDeque<(Time, WorkerId, ListenerId)>,
    /// Connections that must be refused in this step, for too many deaths.
    worn_out: BTreeSet<ConnId>,
    /// Connections that must be closed in this step, since nobody knows whether they were served.
    unknown: BTreeSet<ConnId>,
    is_wake: bool,
    faults: Vec<(Property, String)>,
}

impl Model {
    /// The reference for a primary with this configuration.
    pub fn new(config: Config) -> Self {
        Model {
            config,
            now: Time::ZERO,
            members: BTreeMap::new(),
            queues: BTreeMap::new(),
            turns: Vec::new(),
            paused: false,
            stopping: false,
            stamp: 0,
            cooled: VecDeque::new(),
            worn_out: BTreeSet::new(),
            unknown: BTreeSet::new(),
            is_wake: false,
            faults: Vec::new(),
        }
    }

    /// What was found wrong since the last call.
    pub fn take_faults(&mut self) -> Vec<(Property, String)> {
        std::mem::take(&mut self.faults)
    }

    fn fault(&mut self, property: Property, what: String) {
        self.faults.push((property, what));
    }

    fn eligible(&self, member: &WorkerModel, listener: ListenerId) -> bool {
        let Some(share) = member.shares.get(&listener) else { return false };
        let warm = match share.cool {
            None => true,
            Some((Some(_), _)) => false,
            Some((None, _)) => member.in_flight.iter().all(|entry| entry.listener != listener),
        };
        let room = member.in_flight.len() < member.window;
        member.ready
            && !member.out
            && !member.held
            && !self.paused
            && share.listening
            && warm
            && room
    }

    /// The next handoff, if there is one to make.
    fn next(&self) -> Option<(ListenerId, WorkerId, ConnId)> {
        for &listener in &self.turns {
            let Some(&(conn, _)) = self.queues.get(&listener).and_then(|queue| queue.first())
            else {
                continue;
            };
            let takers = self.members.iter().filter(|(_, m)| self.eligible(m, listener));
            let best = takers.min_by_key(|(_, m)| (m.in_flight.len(), m.at_count_since));
            if let Some((&worker, _)) = best {
                return Some((listener, worker, conn));
            }
        }
        None
    }

    fn enqueue(&mut self, listener: ListenerId, waiting: Waiting) {
        let queue = self.queues.entry(listener).or_default();
        queue.push(waiting);
        queue.sort_unstable();
        if !self.turns.contains(&listener) {
            self.turns.push(listener);
        }
    }

    /// Takes a connection out of whatever queue it is in.
    fn dequeue(&mut self, conn: ConnId) -> Option<(ListenerId, Waiting)> {
        for (&listener, queue) in &mut self.queues {
            if let Some(at) = queue.iter().position(|waiting| waiting.0 == conn) {
                let waiting = queue.remove(at);
                if queue.is_empty() {
                    self.turns.retain(|&other| other != listener);
                }
                return Some((listener, waiting));
            }
        }
        None
    }

    fn count_changed(&mut self, worker: WorkerId) {
        self.stamp += 1;
        if let Some(member) = self.members.get_mut(&worker) {
            member.at_count_since = self.stamp;
        }
    }

    /// Hears what follows from a reload.
    pub fn on_news(&mut self, news: &News) {
        match news {
            News::Config(config) => self.config = (**config).clone(),
            News::Successor(worker) => {
                let member = WorkerModel { held: true, ..WorkerModel::default() };
                self.members.insert(*worker, member);
            }
            News::Promoted(_, worker) => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.held = false;
                }
                // Joiners enter last.
                self.count_changed(*worker);
            }
            News::Reloading(_) | News::Hastened(..) | News::Operator(_) | News::Dropped(_) => {}
        }
    }

    /// Sees an input before the core does; `deadline` is the one that the core waits for.
    pub fn on_input(&mut self, now: Time, input: &Input, deadline: Option<Deadline>) {
        self.now = now;
        self.is_wake = matches!(input, Input::Wake);
        match input {
            Input::Incoming { listener, conn } => self.enqueue(*listener, (*conn, 0)),
            Input::Message { worker, msg } => self.on_message(*worker, msg),
            Input::Hello { worker, codec } => {
                let window = match codec {
                    Codec::Node => self.config.node_window(),
                    _ => self.config.window(),
                };
                if let Some(member) = self.members.get_mut(worker) {
                    member.window = window as usize;
                    member.native = *codec == Codec::Native;
                }
            }
            Input::InDoubt { worker, seq } => {
                if let Some(member) = self.members.get_mut(worker) {
                    let entries = member.in_flight.iter_mut();
                    entries.filter(|e| e.seq == *seq).for_each(|e| e.in_doubt = true);
                }
            }
            Input::HandoffFailed { worker, seq, .. } => {
                if let Some(entry) = self.land(*worker, *seq) {
                    self.cool_down(*worker, entry.listener);
                    self.enqueue(entry.listener, (entry.conn, entry.deaths));
                }
            }
            Input::ChannelClosed { worker } => self.on_closed(*worker),
            Input::Exited { worker, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.exited = true;
                }
            }
            Input::Command(Command::Pause) if !self.stopping => self.paused = true,
            Input::Wake => self.on_wake(deadline),
            _ => {}
        }
    }

    fn on_closed(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.out = true;
        member.shares.clear();
        for entry in std::mem::take(&mut member.in_flight) {
            let deaths = entry.deaths + 1;
            if entry.in_doubt {
                self.unknown.insert(entry.conn);
            } else if deaths >= self.config.max_attempts() {
                self.worn_out.insert(entry.conn);
            } else {
                self.enqueue(entry.listener, (entry.conn, deaths));
            }
        }
    }

    fn on_wake(&mut self, deadline: Option<Deadline>) {
        if deadline.is_some_and(|first| self.now.since(first.at) > Duration::from_secs(1)) {
            for member in self.members.values_mut() {
                member.silent_since = self.now;
                member.asked_at = member.asked_at.map(|_| self.now);
            }
        }
        let mut cooled = Vec::new();
        for (&worker, member) in &self.members {
            for (&listener, share) in &member.shares {
                if let Some((Some(until), _)) = share.cool
                    && until <= self.now
                {
                    cooled.push((until, worker, listener));
                }
            }
        }
        cooled.sort_unstable();
        self.cooled = cooled.into();
    }

    fn on_message(&mut self, worker: WorkerId, msg: &FromWorker) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        match msg {
            FromWorker::Ack { ack, accepted } => {
                let Some(entry) = self.land(worker, *ack) else { return };
                let now = self.now;
                let Some(member) = self.members.get_mut(&worker) else { return };
                member.silent_since = now;
                if *accepted {
                    if let Some(share) = member.shares.get_mut(&entry.listener) {
                        share.cool = None;
                    }
                } else {
                    self.cool_down(worker, entry.listener);
                    self.enqueue(entry.listener, (entry.conn, entry.deaths));
                }
            }
            FromWorker::Listening { listener } if !member.killed => {
                if let Some(share) = member.shares.get_mut(listener) {
                    share.listening = true;
                }
            }
            FromWorker::Close { listener } if !member.killed => {
                member.shares.remove(listener);
            }
            _ => {}
        }
    }

    /// Takes an answered connection out of flight; `None` for a number that is not in flight.
    fn land(&mut self, worker: WorkerId, seq: Seq) -> Option<Flying> {
        let member = self.members.get_mut(&worker)?;
        let at = member.in_flight.iter().position(|entry| entry.seq == seq)?;
        let entry = member.in_flight.remove(at);
        self.count_changed(worker);
        Some(entry)
    }

    fn cool_down(&mut self, worker: WorkerId, listener: ListenerId) {
        let (first, max) = (self.config.cooldown(), self.config.cooldown_max());
        let now = self.now;
        let share = self.members.get_mut(&worker).and_then(|m| m.shares.get_mut(&listener));
        if let Some(share) = share {
            let span = share.cool.map_or(first, |(_, next)| next);
            share.cool = Some((Some(now + span), (span * 2).min(max)));
        }
    }

    /// Looks at the next cool-down that has ended; false if there is none.
    fn warm_one(&mut self) -> bool {
        let Some((_, worker, listener)) = self.cooled.pop_front() else { return false };
        let share = self.members.get_mut(&worker).and_then(|m| m.shares.get_mut(&listener));
        if let Some(cool) = share.and_then(|share| share.cool.as_mut()) {
            cool.0 = None;
        }
        true
    }

    /// Sees an output of the core.
    pub fn on_output(&mut self, output: &Output) {
        match output {
            Output::Spawn { worker, .. } => {
                self.members.entry(*worker).or_default();
            }
            Output::Send { worker, msg, attach } => self.on_send(*worker, msg, *attach),
            Output::Release { conn, end: ConnEnd::Refused(refusal) } => {
                let worn_out = self.worn_out.remove(conn) != (*refusal == Refusal::Attempts);
                if worn_out || self.unknown.remove(conn) != (*refusal == Refusal::Unknown) {
                    let what = format!("{conn} was refused as {}", refusal.name());
                    self.fault(Property::NoLoss, what);
                }
                self.dequeue(*conn);
            }
            Output::ResumeAccept { listener } if self.paused => {
                let what = format!("{listener} is accepted from during a pause");
                self.fault(Property::Fairness, what);
            }
            Output::Event(event) => self.on_event(event),
            _ => {}
        }
    }

    fn on_send(&mut self, worker: WorkerId, msg: &ToWorker, attach: Option<Attach>) {
        match msg {
            ToWorker::QueryReply { result: Ok(granted), .. } => {
                if let Some(member) = self.members.get_mut(&worker) {
                    member.shares.insert(granted.listener, Share::default());
                }
            }
            // The operator may ask as well; that is not the heartbeat.
            ToWorker::Ping { .. } if self.is_wake => {
                let now = self.now;
                if let Some(member) = self.members.get_mut(&worker) {
                    member.asked_at = Some(now);
                    member.missed += 1;
                }
            }
            ToWorker::NewConn { first_seq, listener, .. } => {
                if let Some(Attach::Conn(conn)) = attach {
                    self.on_handoff(worker, *first_seq, *listener, conn);
                }
            }
            _ => {}
        }
    }

    fn on_handoff(&mut self, worker: WorkerId, seq: Seq, listener: ListenerId, conn: ConnId) {
        let wanted = loop {
            match self.next() {
                Some(next) => break Some(next),
                None if self.warm_one() => {}
                None => break None,
            }
        };
        if wanted != Some((listener, worker, conn)) {
            let what = format!(
                "{conn} of {listener} went to {worker}, and by the rule it is {wanted:?}: {:?}",
                self.members
            );
            // Out of its place in the queue, or to the wrong worker.
            let same = wanted.is_some_and(|(l, w, _)| (l, w) == (listener, worker));
            self.fault(if same { Property::NoLoss } else { Property::Fairness }, what);
        }
        let deaths = self.dequeue(conn).map_or(0, |(_, (_, deaths))| deaths);
        if self.queues.get(&listener).is_some_and(|queue| !queue.is_empty()) {
            self.turns.retain(|&other| other != listener);
            self.turns.push(listener);
        }
        let now = self.now;
        let Some(member) = self.members.get_mut(&worker) else { return };
        if member.in_flight.is_empty() {
            member.silent_since = now;
        }
        member.in_flight.push(Flying { seq, conn, listener, deaths, in_doubt: false });
        if member.in_flight.len() > member.window {
            self.fault(Property::Stuck, format!("{worker} has more than its window"));
        }
        self.count_changed(worker);
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Ready { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.ready = true;
                }
                // Joiners enter last.
                self.count_changed(*worker);
            }
            Event::Online { worker, .. } => {
                let now = self.now;
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked_at = Some(now);
                }
            }
            Event::Pong { worker, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.missed = 0;
                }
            }
            Event::Stopping { .. } => self.stopping = true,
            Event::Resumed => {
                self.paused = false;
                // All join anew.
                let ids: Vec<WorkerId> = self.members.keys().copied().collect();
                ids.into_iter().for_each(|id| self.count_changed(id));
            }
            Event::Killing { worker, class, .. } => self.on_killing(*worker, *class),
            Event::Failing { worker }
            | Event::Leaving { worker }
            | Event::Settling { worker, .. }
            | Event::Draining { worker, .. }
            | Event::ChannelClosed { worker, .. }
            | Event::Exited { worker, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.out = true;
                }
            }
            _ => {}
        }
    }
}
