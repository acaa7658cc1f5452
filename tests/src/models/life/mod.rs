//! When workers may be started and listeners closed, and when a shutdown must be over: the
//! reference for guarantees 7, 9 and 10.

mod listeners;
mod restarts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roundel_core::{
    Codec, Command, Config, Deadline, Event, FromWorker, Input, ListenKey, ListenerId, Output,
    Signal, Slot, SockName, StopSignal, Time, ToWorker, WorkerId,
};

use crate::faults::fault::Property;
use crate::models::reload::News;
use listeners::Listener;
use restarts::Place;

/// How far a worker is, as the outputs tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Staying,
    Leaving,
}

#[derive(Debug)]
struct WorkerModel {
    slot: Slot,
    stage: Stage,
    ready_at: Option<Time>,
    accepted: bool,
    /// Its channel has ended.
    closed: bool,
    exited: bool,
    /// What it says from now on is not heard.
    killed: bool,
    replaced: bool,
    /// The primary ends it, or it is to take another one's place.
    told_off: bool,
    /// It has spoken.
    spoke: bool,
    native: bool,
    /// It had a connection, as far as anybody knows.
    had: bool,
    /// By when it must be gone, as it was told one after the other, and from how long before on it
    /// may be told so by a signal.
    leaves_by: Vec<(Time, Duration)>,
    /// It is told to leave in this step.
    told_now: bool,
    /// It was told to leave.
    told: bool,
    /// The signal that it handles, as it said before it was told to leave.
    handles: Option<Signal>,
    /// What was counted in this step.
    counted_now: Option<Option<u32>>,
    /// Since when none was counted.
    idle_since: Option<Time>,
    /// It has asked for what it wants, or has had its time to.
    asked: bool,
}

/// The reference.
#[derive(Debug)]
pub struct LifeModel {
    config: Config,
    now: Time,
    is_wake: bool,
    members: BTreeMap<WorkerId, WorkerModel>,
    places: Vec<Place>,
    listeners: BTreeMap<ListenerId, Listener>,
    stopping: bool,
    must_stop_by: Option<Time>,
    /// The same, however late anybody wakes.
    stop_deadline: Option<Time>,
    /// The operator asked for the end before anything else led to it.
    asked: bool,
    stopped: bool,
    /// Workers that are to take another one's place.
    successors: BTreeSet<WorkerId>,
    /// What is the operator's, and what of it may be closed.
    operator: BTreeSet<ListenerId>,
    dropped: BTreeSet<ListenerId>,
    /// A reload is under way.
    reloading: bool,
    /// A shutdown serves on until then.
    serves_until: Option<Time>,
    /// The most workers that were ever wanted.
    peak: usize,
    /// What a worker asks for in this step.
    query: Option<(WorkerId, ListenKey)>,
    faults: Vec<(Property, String)>,
}

impl LifeModel {
    /// The reference for a primary with this configuration.
    pub fn new(config: Config) -> Self {
        let config_workers = config.workers() as usize;
        let places = (0..config.workers()).map(|_| Place::default()).collect();
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
            successors: BTreeSet::new(),
            operator: BTreeSet::new(),
            dropped: BTreeSet::new(),
            reloading: false,
            serves_until: None,
            peak: config_workers,
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

    /// Hears what follows from a reload.
    pub fn on_news(&mut self, news: &News) {
        match news {
            News::Reloading(is) => self.reloading = *is,
            News::Config(config) => {
                self.config = (**config).clone();
                // One that lives on without its channel is given its time only later.
                let timeout = self.config.drain_timeout();
                let by = (self.now + timeout, before(timeout));
                for member in self.members.values_mut().filter(|member| member.closed) {
                    member.leaves_by.push(by);
                }
            }
            News::Hastened(worker, by) => {
                let before = before(self.config.drain_timeout());
                if let Some(member) = self.members.get_mut(worker) {
                    member.leaves_by.push((*by, before));
                }
            }
            News::Successor(worker) => drop(self.successors.insert(*worker)),
            News::Promoted(slot, worker) => self.on_promoted(*slot, *worker),
            News::Operator(listener) => drop(self.operator.insert(*listener)),
            News::Dropped(listener) => drop(self.dropped.insert(*listener)),
        }
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
                self.query = Some((*worker, (**key).clone()));
                if let Some(member) = self.members.get_mut(worker) {
                    member.asked |= member.stage == Stage::Staying;
                }
            }
            Input::Message { worker, msg: FromWorker::StopSignal { signal } } => {
                if let Some(member) = self.members.get_mut(worker)
                    && !member.told
                {
                    member.handles = signal
                        .filter(|it| [Signal::Term, Signal::Interrupt].contains(it))
                        .filter(|_| !member.native);
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
                self.must_stop_by = self.must_stop_by.map(|by| by + late);
            }
            Input::Command(Command::Stop) if self.must_stop_by.is_none() => {
                let delay = self.config.shutdown_delay();
                self.must_stop_by = Some(now + delay + self.config.drain_timeout());
                self.serves_until = Some(now + delay);
                self.stop_deadline = self.must_stop_by;
            }
            Input::Command(Command::Stop | Command::StopNow) => {
                let by = self.must_stop_by.unwrap_or(now);
                self.serves_until = None;
                self.must_stop_by = Some(by.min(now));
            }
            _ => {}
        }
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
                let operator = self.operator.contains(listener);
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
            // In flight when its connections were counted, it may never have been sent.
            Output::Send { worker, msg: ToWorker::NewConn { .. }, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.had = true;
                }
            }
            Output::Release { end: roundel_core::ConnEnd::AcceptedBy(worker), .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.accepted = true;
                    member.had = true;
                }
            }
            Output::Kill { worker, signal: Signal::Kill } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.killed = true;
                }
            }
            Output::Kill { worker, signal } => self.on_signal(*worker, *signal),
            Output::Send { worker, msg: ToWorker::Drain { .. }, .. } => self.on_drain(*worker),
            Output::Event(event) => self.on_event(event),
            Output::Stopped(verdict) => self.on_stopped(verdict),
            _ => {}
        }
    }

    /// A leaving worker may have connections open that a signal would cut: unless it was just seen
    /// without, for as long as it may linger, or its deadline is near.
    fn on_signal(&mut self, worker: WorkerId, signal: Signal) {
        let now = self.now;
        let config = &self.config;
        let timeout = config.drain_timeout();
        let Some(member) = self.members.get(&worker) else { return };
        let before = before(timeout);
        let own = member.leaves_by.iter().any(|(at, before)| at.since(now) <= *before);
        let near = own || self.stop_deadline.is_some_and(|at| at.since(now) <= before);
        let asked_for = match config.stop_signal() {
            Some(chosen) => chosen == StopSignal::Signal(signal),
            None => member.handles == Some(signal),
        };
        let told = member.told_now && (asked_for || !member.spoke);
        let idle = member.idle_since.filter(|_| member.counted_now == Some(Some(0)));
        let cannot_be_told = config.pass_listeners() && config.stop_signal().is_none();
        let lingers = idle.is_some_and(|since| {
            member.had && config.linger().is_some_and(|linger| now.since(since) >= linger)
        });
        let terminates = signal == Signal::Term;
        if !told && !(terminates && (near || lingers || (cannot_be_told && idle.is_some()))) {
            self.fault(Property::Leaving, format!("{worker} gets {signal:?} at {now}"));
        }
    }

    /// A program that is told to leave by a signal of its own rules itself, until it has been seen
    /// without connections for as long as it may linger.
    fn on_drain(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get(&worker) else { return };
        let by_signal = self.config.stop_signal().is_some() || member.handles.is_some();
        if member.native || !by_signal {
            return;
        }
        let idle = member.idle_since.filter(|_| member.counted_now == Some(Some(0)));
        let linger = self.config.linger();
        if idle.zip(linger).is_none_or(|(since, linger)| self.now.since(since) < linger) {
            self.fault(Property::Leaving, format!("{worker} is disconnected at {}", self.now));
        }
    }

    fn stage(&mut self, worker: WorkerId, stage: Stage) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.stage = stage;
        }
    }

    fn on_event(&mut self, event: &Event) {
        let now = self.now;
        let timeout = self.config.drain_timeout();
        if let Event::Failing { worker } = event {
            self.on_suicide(*worker);
        }
        if let Event::Settling { worker, .. }
        | Event::Failing { worker }
        | Event::Leaving { worker }
        | Event::ChannelClosed { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
            && member.leaves_by.is_empty()
        {
            member.leaves_by.push((now + timeout, before(timeout)));
        }
        // Nobody follows one that the primary ends.
        if let Event::Settling { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
        {
            (member.replaced, member.told_off) = (true, true);
            if let Some(place) = self.places.get_mut(member.slot.0 as usize) {
                place.ended_first |= place.newest == Some(*worker);
            }
        }
        if matches!(event, Event::Settling { .. }) {
            self.look_at_delay("a worker is told to leave");
        }
        if let Event::Draining { worker, .. } = event
            && let Some(member) = self.members.get_mut(worker)
        {
            (member.told_now, member.told) = (true, true);
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
            | Event::Failing { worker }
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
            Event::Retrying { slot } => self.on_retrying(*slot),
            Event::Scaled { to, .. } => self.on_scaled(*to as usize),
            Event::Stopping { .. } => {
                self.stopping = true;
                self.must_stop_by.get_or_insert(now);
            }
            _ => {}
        }
    }

    /// All outputs of the input were seen.
    pub fn end_step(&mut self) {
        for member in self.members.values_mut() {
            member.told_now = false;
            member.counted_now = None;
        }
        self.review_budget();
        self.review_retries();
        self.review_listeners();
        // One that is stuck in the kernel is let go of in the step that replaces it.
        let told = |m: &&WorkerModel| m.exited || m.told_off;
        let alive = self.members.values().filter(|m| !told(m)).count();
        if alive > 2 * self.peak {
            self.fault(Property::Restarts, format!("{alive} processes live"));
        }
        // A kill takes effect at once, but for processes that are stuck in the kernel: those are
        // let go of after a fence and another wait.
        let slack = self.config.shutdown_read_timeout() * 2 + Duration::from_millis(1);
        let overdue = self.must_stop_by.is_some_and(|by| self.now > by + slack);
        if overdue && !self.stopped && self.is_wake {
            self.must_stop_by = None;
            self.fault(Property::Shutdown, "the shutdown goes on after its deadline");
        }
    }
}

/// How long before its deadline a leaving worker may get a signal.
fn before(timeout: Duration) -> Duration {
    (timeout / 4).min(Duration::from_secs(2))
}
