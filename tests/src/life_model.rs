//! When workers may be started and listeners closed, and when a shutdown must be over: the
//! reference for guarantees 7, 9 and 10.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use roundel_core::{
    Codec, Command, Config, Deadline, Event, FromWorker, Input, ListenKey, ListenerId, Output,
    Policy, Respawn, Signal, Slot, SockName, StopSignal, Time, ToWorker, Verdict, WorkerId,
};

use crate::fault::Property;
use crate::plan::is_taken;

/// How far a worker is, as the outputs tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Staying,
    Leaving,
}

#[derive(Debug)]
struct Member {
    slot: Slot,
    stage: Stage,
    ready_at: Option<Time>,
    accepted: bool,
    /// Its channel has ended.
    closed: bool,
    exited: bool,
    replaced: bool,
    /// It has spoken.
    spoke: bool,
    native: bool,
    /// It had a connection, as far as anybody knows.
    had: bool,
    /// When it was first known to leave.
    leaves_since: Option<Time>,
    /// It is told to leave in this step.
    told_now: bool,
    /// What was counted in this step.
    counted_now: Option<Option<u32>>,
    /// Since when none was counted.
    idle_since: Option<Time>,
    /// It has asked for what it wants, or has had its time to.
    asked: bool,
}

#[derive(Debug, Default)]
struct Place {
    newest: Option<WorkerId>,
    /// When its workers failed early.
    failures: Vec<Time>,
    /// How many early failures since it last worked.
    streak: u32,
    not_before: Option<Time>,
    given_up: bool,
    /// It ended and is not respawned.
    ended: bool,
    /// That was looked at.
    judged: bool,
    /// A failure was counted of a worker that has not ended: only then is the slot given up.
    awaits_end: bool,
}

#[derive(Debug, Default)]
struct Listener {
    operator: bool,
    holders: BTreeSet<WorkerId>,
    open: bool,
    closing: bool,
    at: Option<SocketAddr>,
    /// Whose workers had it.
    slots: BTreeSet<Slot>,
    /// A connection came to it.
    used: bool,
    /// One that stays looked whether the port is free.
    probed: bool,
    /// Since when nothing speaks for keeping it.
    unwanted_since: Option<Time>,
}

/// The reference.
#[derive(Debug)]
pub struct LifeModel {
    config: Config,
    now: Time,
    is_wake: bool,
    members: BTreeMap<WorkerId, Member>,
    places: Vec<Place>,
    listeners: BTreeMap<ListenerId, Listener>,
    stopping: bool,
    must_stop_by: Option<Time>,
    /// The same, however late anybody wakes.
    stop_deadline: Option<Time>,
    /// The operator asked for the end before anything else led to it.
    asked: bool,
    stopped: bool,
    /// What a worker asks for in this step.
    query: Option<ListenKey>,
    faults: Vec<(Property, String)>,
}

impl LifeModel {
    /// The reference for a primary with this configuration.
    pub fn new(config: Config) -> Self {
        let places = (0..*config.workers()).map(|_| Place::default()).collect();
        LifeModel {
            config,
            now: Time::ZERO,
            is_wake: false,
            members: BTreeMap::new(),
            places,
            listeners: BTreeMap::new(),
            stopping: false,
            must_stop_by: None,
            stop_deadline: None,
            asked: false,
            stopped: false,
            query: None,
            faults: Vec::new(),
        }
    }

    /// What was found wrong since the last call.
    pub fn take_faults(&mut self) -> Vec<(Property, String)> {
        std::mem::take(&mut self.faults)
    }

    fn fault(&mut self, property: Property, what: impl Into<String>) {
        self.faults.push((property, what.into()));
    }

    /// Sees an input before the core does; `deadline` is the one that the core waits for.
    pub fn on_input(&mut self, now: Time, input: &Input, deadline: Option<Deadline>) {
        self.now = now;
        self.is_wake = matches!(input, Input::Wake);
        let stop = matches!(input, Input::Command(Command::Stop | Command::StopNow));
        self.asked |= stop && !self.stopping;
        self.query = None;
        match input {
            Input::Message { worker, msg: FromWorker::Query { key, .. } } => {
                self.query = Some((**key).clone());
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked |= member.stage == Stage::Staying;
                }
            }
            Input::Hello { worker, codec } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.spoke = true;
                    member.native = *codec == Codec::Native;
                }
            }
            Input::Connections { worker, open } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.counted_now = Some(*open);
                    member.had |= open.is_some_and(|open| open > 0);
                    member.idle_since =
                        (*open == Some(0)).then(|| member.idle_since.unwrap_or(now));
                }
            }
            Input::Incoming { listener, .. } => {
                if let Some(record) = self.listeners.get_mut(listener) {
                    record.used = true;
                }
            }
            Input::Message { worker, msg: FromWorker::Close { listener } } => {
                self.on_close(*worker, *listener);
            }
            Input::ChannelClosed { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.closed = true;
                }
                for record in self.listeners.values_mut() {
                    record.holders.remove(worker);
                }
            }
            Input::Bound { listener, result } => {
                let record = self.listeners.entry(*listener).or_default();
                record.open = result.is_ok();
                if let Ok(SockName::Ip(at)) = result {
                    record.at = Some(*at);
                }
            }
            // Want of resources says nothing of the program, and is told only once.
            Input::SpawnFailed { worker, cause } if cause.is_want_of_resources() => {
                self.on_want(*worker);
            }
            Input::Wake => {
                // What nobody was there to act on is late, and what follows from it as well.
                let late = deadline.map_or(Duration::ZERO, |first| now.since(first.at));
                self.must_stop_by = self.must_stop_by.map(|by| by.after(late));
            }
            Input::Command(Command::Stop) if self.must_stop_by.is_none() => {
                self.must_stop_by = Some(now.after(*self.config.drain_timeout()));
                self.stop_deadline = self.must_stop_by;
            }
            Input::Command(Command::StopNow) => {
                let by = self.must_stop_by.unwrap_or(now);
                self.must_stop_by = Some(by.min(now));
            }
            _ => {}
        }
    }

    fn on_close(&mut self, worker: WorkerId, listener: ListenerId) {
        let shared = *self.config.policy() == Policy::Shared || *self.config.pass_listeners();
        let Some(member) = self.members.get(&worker).filter(|member| !member.exited) else {
            return;
        };
        let stays = member.stage == Stage::Staying;
        if let Some(record) = self.listeners.get_mut(&listener) {
            let held = record.holders.remove(&worker);
            let last = held && record.holders.is_empty() && record.open && !record.operator;
            record.probed |= last && stays && !record.used && !shared;
        }
    }

    /// Whether a listener was asked for by workers, and none has it; or the core has forgotten it.
    pub fn is_left_behind(&self, listener: ListenerId) -> bool {
        let record = self.listeners.get(&listener);
        record.is_none_or(|it| !it.operator && it.holders.is_empty())
    }

    /// Sees an output of the core.
    pub fn on_output(&mut self, output: &Output) {
        match output {
            Output::Spawn { worker, slot, .. } => self.on_spawn(*worker, *slot),
            Output::Forget { worker } => {
                // Stuck in the kernel: let go of without an exit.
                self.on_end(*worker);
                self.members.remove(worker);
            }
            Output::Bind { listener, .. } => {
                let operator = (self.listeners.len()) < self.config.listeners().len();
                self.listeners.insert(*listener, Listener { operator, ..Listener::default() });
            }
            Output::Unbind { listener } => self.on_unbind(*listener),
            Output::Close { listener } => {
                self.on_unbind(*listener);
                if !self.stopping {
                    let what = format!("{listener} was closed with what waits there");
                    self.fault(Property::Listeners, what);
                }
            }
            Output::Send {
                worker, msg: ToWorker::QueryReply { result: Ok(granted), .. }, ..
            } => {
                let record = self.listeners.entry(granted.listener).or_default();
                record.holders.insert(*worker);
                record.slots.extend(self.members.get(worker).map(|member| member.slot));
            }
            Output::Release { end: roundel_core::ConnEnd::AcceptedBy(worker), .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.accepted = true;
                    member.had = true;
                }
            }
            Output::Kill { worker, signal } if *signal != Signal::Kill => {
                self.on_signal(*worker, *signal);
            }
            Output::Event(event) => self.on_event(event),
            Output::Stopped(verdict) => self.on_stopped(verdict),
            _ => {}
        }
    }

    fn on_spawn(&mut self, worker: WorkerId, slot: Slot) {
        let stopping_fault = self.stopped;
        let Some(place) = self.places.get_mut(slot.0 as usize) else {
            return self.fault(Property::Restarts, format!("{slot} is no slot"));
        };
        let early = place.not_before.take().is_some_and(|at| self.now < at);
        let given_up = place.given_up;
        place.newest = Some(worker);
        if early {
            self.fault(Property::Restarts, format!("slot {slot} did not wait"));
        }
        if given_up {
            self.fault(Property::Restarts, format!("slot {slot} was given up and goes on"));
        }
        if stopping_fault {
            self.fault(Property::Shutdown, format!("{worker} was started after the end"));
        }
        let member = Member {
            slot,
            stage: Stage::Starting,
            ready_at: None,
            accepted: false,
            closed: false,
            exited: false,
            replaced: false,
            spoke: false,
            native: false,
            had: false,
            leaves_since: None,
            told_now: false,
            counted_now: None,
            idle_since: None,
            asked: false,
        };
        for other in self.members.values_mut().filter(|m| m.slot == slot) {
            other.replaced = true;
        }
        self.members.insert(worker, member);
    }

    /// A leaving worker may have connections open that a signal would cut: unless it was just seen
    /// without, for as long as it may linger, or its deadline is near.
    fn on_signal(&mut self, worker: WorkerId, signal: Signal) {
        let now = self.now;
        let config = &self.config;
        let timeout = *config.drain_timeout();
        let Some(member) = self.members.get(&worker) else { return };
        let before = (timeout / 4).min(Duration::from_secs(2));
        let own = member.leaves_since.map(|since| since.after(timeout));
        let deadline = own.into_iter().chain(self.stop_deadline).min();
        let near = deadline.is_some_and(|at| at.since(now) <= before);
        let asked_for = *config.stop_signal() == Some(StopSignal::Signal(signal));
        let told = member.told_now && (asked_for || !member.spoke);
        let idle = member.idle_since.filter(|_| member.counted_now == Some(Some(0)));
        let untold = *config.pass_listeners() && config.stop_signal().is_none();
        let lingers = idle.is_some_and(|since| {
            member.had && config.linger().is_some_and(|linger| now.since(since) >= linger)
        });
        let terminates = signal == Signal::Term;
        if !told && !(terminates && (near || lingers || (untold && idle.is_some()))) {
            self.fault(Property::Leaving, format!("{worker} gets {signal:?} at {now}"));
        }
    }

    fn on_unbind(&mut self, listener: ListenerId) {
        let now = self.now;
        let unheld_timeout = *self.config.unheld_timeout();
        let stopping = self.stopping;
        let Some(record) = self.listeners.get_mut(&listener) else { return };
        record.open = false;
        record.closing = true;
        let ripe = record.unwanted_since.is_some_and(|at| now.since(at) >= unheld_timeout);
        let operator = record.operator;
        let at = record.at;
        let yields = self.query.as_ref().is_some_and(|ask| at.is_some_and(|at| is_taken(ask, at)));
        let yields = yields && record.holders.is_empty();
        if !stopping && (operator || !(ripe || yields || record.probed)) {
            self.fault(Property::Listeners, format!("{listener} was closed while wanted"));
        }
    }

    fn on_stopped(&mut self, verdict: &Verdict) {
        self.stopped = true;
        let over = self.places.iter().all(|place| place.given_up || place.ended);
        let spent = over && self.places.iter().any(|place| place.given_up);
        if *verdict == Verdict::CrashLoop && (!spent || self.asked)
            || *verdict == Verdict::Stopped && spent && !self.asked
        {
            self.fault(Property::Restarts, format!("the verdict is {verdict}"));
        }
    }

    fn stage(&mut self, worker: WorkerId, stage: Stage) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.stage = stage;
        }
    }

    /// Where workers accept for themselves, one that fails early is replaced as long as the slot's
    /// budget lasts, and each time counts.
    fn on_suicide(&mut self, worker: WorkerId) {
        let now = self.now;
        let barred = self.stopping || *self.config.respawn() == Respawn::Never;
        let period = *self.config.restart_period();
        let Some(member) = self.members.get_mut(&worker) else { return };
        let early = member.ready_at.is_some_and(|at| now.since(at) < Duration::from_secs(1));
        let counts = *self.config.pass_listeners() && early && !member.replaced && !barred;
        if let Some(place) = self.places.get_mut(member.slot.0 as usize)
            && counts
            && member.stage != Stage::Leaving
        {
            place.failures.retain(|&at| now.since(at) < period);
            place.failures.push(now);
            place.awaits_end = true;
            // Its replacement may have to wait for a place, but not for a delay.
            member.replaced = place.failures.len() <= *self.config.restart_intensity() as usize;
        }
    }

    fn on_event(&mut self, event: &Event) {
        let now = self.now;
        if let Event::Suicide { worker } = event {
            self.on_suicide(*worker);
        }
        if let Event::Settling { worker, .. }
        | Event::Suicide { worker }
        | Event::Leaving { worker }
        | Event::ChannelClosed { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
        {
            member.leaves_since.get_or_insert(now);
        }
        if let Event::Draining { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
        {
            member.told_now = true;
        }
        if let Event::Declined { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
        {
            member.had = true;
        }
        match event {
            Event::Online { worker, .. } => {
                self.stage(*worker, Stage::Staying);
                let asked = self.config.ready_timeout().is_none();
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked = asked;
                }
            }
            Event::NotListening { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked = true;
                }
            }
            Event::Ready { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked = true;
                    member.ready_at = Some(now);
                }
            }
            Event::Killing { worker, .. }
            | Event::Suicide { worker }
            | Event::Leaving { worker }
            | Event::Settling { worker, .. }
            | Event::Draining { worker, .. }
            | Event::ChannelClosed { worker, .. } => self.stage(*worker, Stage::Leaving),
            Event::Exited { worker, .. } => {
                self.stage(*worker, Stage::Leaving);
                self.on_end(*worker);
            }
            Event::SpawnFailed { worker, .. } => {
                self.on_end(*worker);
                self.members.remove(worker);
            }
            Event::Ended { slot } => {
                // Nobody comes after it, so nothing was counted.
                if let Some(place) = self.places.get_mut(slot.0 as usize) {
                    place.ended = true;
                    place.not_before = None;
                    place.failures.clear();
                }
            }
            Event::GivenUp { slot, .. } => self.on_given_up(*slot),
            Event::Unbound { listener } => {
                self.listeners.remove(listener);
            }
            Event::Stopping { .. } => {
                self.stopping = true;
                self.must_stop_by.get_or_insert(now);
            }
            _ => {}
        }
    }

    fn on_given_up(&mut self, slot: Slot) {
        if let Some(place) = self.places.get_mut(slot.0 as usize) {
            place.given_up = true;
        }
    }

    /// Nothing was to be had for a start: the slot waits for the first delay at least, and nothing is
    /// counted.
    fn on_want(&mut self, worker: WorkerId) {
        let not_before = self.now.after(*self.config.respawn_delay());
        let Some(member) = self.members.remove(&worker) else { return };
        if let Some(place) = self.places.get_mut(member.slot.0 as usize)
            && !member.replaced
            && !self.stopping
        {
            place.not_before = Some(not_before);
        }
    }

    /// A worker's process is gone: notes by when its slot may have another.
    fn on_end(&mut self, worker: WorkerId) {
        let now = self.now;
        let period = *self.config.restart_period();
        let (first, max) = (*self.config.respawn_delay(), *self.config.respawn_delay_max());
        let Some(member) = self.members.get_mut(&worker) else { return };
        let repeated = std::mem::replace(&mut member.exited, true);
        let (ready_at, accepted, slot) = (member.ready_at, member.accepted, member.slot);
        let replaced = member.replaced;
        let Some(place) = self.places.get_mut(slot.0 as usize) else { return };
        place.awaits_end = false;
        if ready_at.is_some_and(|at| now.since(at) >= period) {
            place.streak = 0;
        }
        let short = ready_at.is_none_or(|at| now.since(at) < Duration::from_secs(1) && !accepted);
        if repeated {
            return;
        }
        place.failures.retain(|&at| now.since(at) < period);
        // A slot that has ended needs nobody.
        if replaced || !short || self.stopping || place.ended {
            return;
        }
        place.failures.push(now);
        let mut delay = first;
        for _ in 0..place.streak {
            delay = (delay * 2).min(max);
        }
        place.streak += 1;
        place.not_before = Some(now.after(delay));
    }

    /// All outputs of the input were seen.
    pub fn end_step(&mut self) {
        for member in self.members.values_mut() {
            member.told_now = false;
            member.counted_now = None;
        }
        self.review_budget();
        self.review_listeners();
        // One that is stuck in the kernel is let go of in the step that replaces it.
        let alive = self.members.values().filter(|m| !m.exited).count();
        if alive > 2 * self.places.len() {
            self.fault(Property::Restarts, format!("{alive} processes live"));
        }
        // A kill takes effect at once, but for processes that are stuck in the kernel: those are
        // let go of after a fence and another wait.
        let slack = *self.config.fence_timeout() * 2 + Duration::from_millis(1);
        let overdue = self.must_stop_by.is_some_and(|by| self.now > by.after(slack));
        if overdue && !self.stopped && self.is_wake {
            self.must_stop_by = None;
            self.fault(Property::Shutdown, "the shutdown goes on after its deadline");
        }
    }

    fn review_budget(&mut self) {
        let intensity = *self.config.restart_intensity() as usize;
        let now = self.now;
        let mut wrong = Vec::new();
        for (slot, place) in self.places.iter_mut().enumerate() {
            let spent = place.failures.len() > intensity;
            if place.given_up {
                place.not_before = None;
            }
            if place.given_up != spent && !place.judged && !place.awaits_end {
                wrong.push(format!("slot {slot} at {now}: {place:?}"));
            }
            place.judged |= place.given_up;
        }
        if !self.stopping {
            for what in wrong {
                self.fault(Property::Restarts, what);
            }
        }
    }

    fn review_listeners(&mut self) {
        if self.stopping {
            return;
        }
        let now = self.now;
        let unheld_timeout = *self.config.unheld_timeout();
        // One that lives on without its channel has its replacement for that.
        let settled = |m: &Member| m.stage == Stage::Staying && m.asked;
        let may_come = |m: &Member| !(settled(m) || m.closed && m.replaced);
        let back = |slot: &Slot| {
            let newest = self.places.get(slot.0 as usize).and_then(|place| place.newest);
            newest.and_then(|id| self.members.get(&id)).is_some_and(settled)
        };
        let on_the_way = self.members.values().any(may_come)
            || self.members.is_empty()
            || self.places.iter().any(|place| place.not_before.is_some());
        let mut late = false;
        let mut in_use = false;
        for record in self.listeners.values_mut() {
            in_use |= record.probed && record.open;
            let unwanted = record.open && !record.operator && record.holders.is_empty();
            // Who had it has come back without it.
            let missed = record.slots.is_empty() || !record.slots.iter().all(back);
            if !unwanted || on_the_way && missed {
                record.unwanted_since = None;
                continue;
            }
            let since = *record.unwanted_since.get_or_insert(now);
            late |= self.is_wake && now.since(since) >= unheld_timeout;
        }
        if late {
            self.fault(Property::Listeners, "a listener that nobody wants is kept");
        }
        if in_use {
            self.fault(Property::Listeners, "a port that was looked at is kept");
        }
    }
}
