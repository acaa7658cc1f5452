//! How a reload, the recycling of a worker and another number of workers must go: the reference
//! for guarantee 8, one clause after the other.
//!
//! It sees every input before the core and every output after it, and tells the other references
//! what follows for them ([`News`]).

mod ends;
mod rules;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use roundel_core::{
    Command, Config, ConnEnd, Deadline, Event, FromWorker, Input, ListenKey, ListenerId, Output,
    Slot, Time, ToWorker, WorkerId,
};

use crate::faults::fault::Property;

/// How long a worker is left alone whose replacement has failed.
const SPARED: std::time::Duration = std::time::Duration::from_secs(60);

/// What other references must know.
#[derive(Clone, Debug)]
pub enum News {
    /// Whether a reload is under way.
    Reloading(bool),
    /// This configuration holds from now on.
    Config(Box<Config>),
    /// This worker is started to take another one's place, and does not have it yet.
    Successor(WorkerId),
    /// A worker that leaves must be gone by then.
    Hastened(WorkerId, Time),
    /// A worker has taken the place of its slot's worker.
    Promoted(Slot, WorkerId),
    /// This listener is the operator's.
    Operator(ListenerId),
    /// This listener of the operator's may be closed.
    Dropped(ListenerId),
}

/// Why a slot gets no worker by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closed {
    #[default]
    No,
    GivenUp,
    Ended,
    Removed,
}

#[derive(Clone, Debug)]
struct Place {
    generation: u32,
    current: Option<WorkerId>,
    successor: Option<WorkerId>,
    /// The old worker, which was told to leave before there is a new one.
    ends_first: Option<WorkerId>,
    /// Its new worker could not be started for want of something, and will be.
    wants: bool,
    closed: Closed,
    /// What the new worker must listen on.
    needs: BTreeSet<ListenerId>,
    /// What its last worker that served listened on.
    last: BTreeSet<ListenerId>,
}

#[derive(Clone, Debug)]
struct Member {
    slot: Slot,
    /// It has not begun to leave, nor was killed.
    stays: bool,
    killed: bool,
    exited: bool,
    online_at: Option<Time>,
    ready_at: Option<Time>,
    /// Listeners that it has, and whether it listens there.
    shares: BTreeMap<ListenerId, bool>,
    /// Queries without an answer.
    queries: u32,
    /// Since when it is as ready as it must be to take another one's place.
    since: Option<Time>,
    accepted: u64,
    /// It was seen with too much memory, once or twice in a row.
    large: u32,
    /// It could not be recycled, and is left alone until then.
    spared: Option<Time>,
    /// By then it must be gone: its generation is one too many.
    gone_by: Option<Time>,
    generation: u32,
}

/// What goes on.
#[derive(Clone, Debug)]
struct Active {
    generation: u32,
    recycled: Option<WorkerId>,
    /// The configuration to go back to.
    before: Config,
    done: u32,
    total: u32,
    /// The slots in the order in which they have their turn.
    order: Vec<Slot>,
    passed: BTreeSet<Slot>,
    /// How many were ready as the batch began.
    ready_before: Option<u32>,
    deadline: Option<Time>,
    /// The operator has chosen a number of workers meanwhile.
    scaled: bool,
    /// The new worker of a recycling was lost, so the next one is not new.
    lost: bool,
}

#[derive(Clone, Debug)]
struct OperatorListener {
    key: ListenKey,
    open: bool,
}

/// The reference.
#[derive(Clone, Debug)]
pub struct ReloadModel {
    config: Config,
    now: Time,
    is_wake: bool,
    late: bool,
    places: Vec<Place>,
    members: BTreeMap<WorkerId, Member>,
    active: Option<Active>,
    /// The reload that waits.
    waiting: Option<(u32, Option<Config>, bool)>,
    /// Reloads without an outcome.
    open: BTreeSet<u32>,
    last_generation: u32,
    wanted: u32,
    scale_to: Option<u32>,
    /// The operator's listeners of each generation.
    keys: BTreeMap<u32, Vec<ListenKey>>,
    /// The last reload that was done.
    generation: u32,
    binds: Vec<ListenKey>,
    operator: BTreeMap<ListenerId, OperatorListener>,
    binding: BTreeSet<ListenerId>,
    /// Listeners that are open, whoever has them.
    bound: BTreeSet<ListenerId>,
    started: bool,
    stopping: bool,
    stopped_now: bool,
    failed_now: bool,
    /// Ready workers that were told to leave in this step for the sake of new ones.
    taken: u32,
    /// New workers that were told to leave in this step.
    called_off: Vec<(WorkerId, Slot)>,
    /// New workers whose reload has failed in this step.
    failed: Vec<WorkerId>,
    /// Old workers whose places were taken in this step.
    retired: Vec<WorkerId>,
    news: Vec<News>,
    faults: Vec<(Property, String)>,
}

impl ReloadModel {
    /// The reference for a primary with this configuration.
    pub fn new(config: Config) -> Self {
        let place = Place {
            generation: 1,
            current: None,
            successor: None,
            ends_first: None,
            wants: false,
            closed: Closed::No,
            last: BTreeSet::new(),
            needs: BTreeSet::new(),
        };
        ReloadModel {
            now: Time::ZERO,
            is_wake: false,
            late: false,
            places: vec![place; config.workers() as usize],
            members: BTreeMap::new(),
            active: None,
            waiting: None,
            open: BTreeSet::new(),
            last_generation: 1,
            wanted: config.workers(),
            scale_to: None,
            keys: [(1, config.listeners().to_vec())].into(),
            generation: 1,
            binds: config.listeners().to_vec(),
            operator: BTreeMap::new(),
            binding: BTreeSet::new(),
            bound: BTreeSet::new(),
            started: false,
            stopping: false,
            stopped_now: false,
            failed_now: false,
            taken: 0,
            called_off: Vec::new(),
            failed: Vec::new(),
            retired: Vec::new(),
            news: Vec::new(),
            faults: Vec::new(),
            config,
        }
    }

    /// What was found wrong since the last call.
    pub fn take_faults(&mut self) -> Vec<(Property, String)> {
        std::mem::take(&mut self.faults)
    }

    /// What the other references must know before they see the output.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Whether a reload that the operator wants is not over.
    pub fn is_busy(&self) -> bool {
        let reloads = self.active.as_ref().is_some_and(|it| it.recycled.is_none());
        !self.stopping && (reloads || self.waiting.is_some())
    }

    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push((Property::Readiness, what.into()));
    }

    fn place_mut(&mut self, slot: Slot) -> Option<&mut Place> {
        self.places.get_mut(slot.0 as usize)
    }

    fn place(&self, slot: Slot) -> Option<&Place> {
        self.places.get(slot.0 as usize)
    }

    fn is_ready(&self, id: WorkerId) -> bool {
        self.members.get(&id).is_some_and(|it| it.ready_at.is_some() && it.stays)
    }

    /// How many slots have a ready worker.
    fn ready_count(&self) -> u32 {
        let currents = self.places.iter().filter_map(|place| place.current);
        currents.filter(|&id| self.is_ready(id)).count() as u32
    }

    fn least_ready(&self, before: u32) -> u32 {
        self.config.min_ready().unwrap_or(self.wanted).min(self.wanted).min(before)
    }

    /// Sees an input before the core does; `deadline` is the one that the core waits for.
    pub fn on_input(&mut self, now: Time, input: &Input, deadline: Option<Deadline>) {
        self.now = now;
        self.is_wake = matches!(input, Input::Wake);
        let late = |first: Deadline| now.since(first.at) > std::time::Duration::from_secs(1);
        self.late = self.is_wake && deadline.is_some_and(late);
        (self.stopped_now, self.failed_now, self.taken) = (false, false, 0);
        self.called_off.clear();
        match input {
            Input::Reload { config } => {
                self.last_generation += 1;
                self.open.insert(self.last_generation);
                // What comes of it, the outputs tell; if it waits, it takes the place of another.
                let config = config.as_deref().cloned();
                if !self.stopping && !self.is_fixed(config.as_ref()) {
                    self.waiting = Some((self.last_generation, config, false));
                }
            }
            Input::Command(Command::Scale(workers)) if !self.stopping => {
                self.scale_to = Some((*workers).clamp(1, 10_000));
                if let Some(active) = &mut self.active {
                    active.scaled = true;
                }
                if let Some((.., scaled)) = &mut self.waiting {
                    *scaled = true;
                }
            }
            Input::Message { worker, msg } => self.on_message(*worker, msg),
            Input::ChannelClosed { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.stays = false;
                    member.shares.clear();
                }
            }
            Input::SpawnFailed { worker, cause } if cause.is_want_of_resources() => {
                self.on_want(*worker);
            }
            Input::Bound { listener, result } => {
                self.binding.remove(listener);
                if result.is_ok() {
                    self.bound.insert(*listener);
                }
                if result.is_err() {
                    self.operator.remove(listener);
                } else if let Some(record) = self.operator.get_mut(listener) {
                    record.open = true;
                }
            }
            Input::Memory { worker, bytes } => {
                let most = self.config.max_memory();
                if let Some(member) = self.members.get_mut(worker) {
                    let large = most.is_some_and(|most| *bytes > most.get());
                    // It may have to wait for its turn, whatever it has by then.
                    let before = if member.large >= 2 { 2 } else { 0 };
                    member.large = if large { member.large + 1 } else { before };
                }
            }
            _ => {}
        }
    }

    fn is_fixed(&self, config: Option<&Config>) -> bool {
        config.is_some_and(|config| {
            config.policy() != self.config.policy()
                || config.pass_listeners() != self.config.pass_listeners()
        })
    }

    fn on_message(&mut self, worker: WorkerId, msg: &FromWorker) {
        let Some(member) = self.members.get_mut(&worker).filter(|it| !it.killed) else { return };
        match msg {
            FromWorker::Listening { listener } => {
                if let Some(listens) = member.shares.get_mut(listener) {
                    *listens = true;
                }
            }
            FromWorker::Close { listener } => drop(member.shares.remove(listener)),
            FromWorker::Query { .. } => member.queries += 1,
            _ => {}
        }
    }

    /// Sees an output of the core.
    pub fn on_output(&mut self, output: &Output) {
        match output {
            Output::Spawn { worker, slot, generation } => {
                self.on_spawn(*worker, *slot, *generation);
            }
            Output::Forget { worker } => {
                self.on_gone(*worker);
                self.members.remove(worker);
            }
            Output::Kill { worker, signal: roundel_core::Signal::Kill } => {
                self.leaves(*worker);
                if let Some(member) = self.members.get_mut(worker) {
                    member.killed = true;
                }
            }
            Output::Bind { listener, key, .. } => {
                if let Some(at) = self.binds.iter().position(|it| *it == **key) {
                    self.binds.remove(at);
                    self.binding.insert(*listener);
                    let record = OperatorListener { key: (**key).clone(), open: false };
                    self.operator.insert(*listener, record);
                    self.news.push(News::Operator(*listener));
                }
            }
            Output::Unbind { listener } | Output::Close { listener } => {
                self.bound.remove(listener);
                self.on_unbind(*listener);
            }
            Output::Send { worker, msg: ToWorker::QueryReply { result, .. }, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.queries = member.queries.saturating_sub(1);
                    if let Ok(granted) = result {
                        member.shares.insert(granted.listener, false);
                    }
                }
            }
            Output::Send { worker, msg: ToWorker::PassListener { listener }, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.shares.insert(*listener, false);
                }
            }
            Output::Send { worker, msg: ToWorker::NewConn { .. }, .. }
                if self.places.iter().any(|place| place.successor == Some(*worker)) =>
            {
                self.fault(format!("{worker} does not count yet and gets a connection"));
            }
            Output::Release { end: ConnEnd::AcceptedBy(worker), .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.accepted += 1;
                }
            }
            Output::Event(event) => self.on_event(event),
            _ => {}
        }
    }

    fn on_event(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Online { worker, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.online_at = Some(now);
                }
            }
            Event::Ready { worker } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.ready_at = Some(now);
                }
            }
            Event::Failing { worker }
            | Event::Leaving { worker }
            | Event::ChannelClosed { worker, .. } => self.leaves(*worker),
            Event::Killing { worker, class, .. } => self.on_killing(*worker, *class),
            Event::Settling { worker, .. } => self.on_settling(*worker),
            Event::Exited { worker, .. } => self.on_gone(*worker),
            Event::SpawnFailed { worker, .. } => {
                self.on_gone(*worker);
                self.members.remove(worker);
            }
            Event::GivenUp { slot, .. } => self.close(*slot, Closed::GivenUp),
            Event::Ended { slot } => self.close(*slot, Closed::Ended),
            Event::Retrying { slot } => self.close(*slot, Closed::No),
            Event::Stopping { deadline } => {
                (self.stopping, self.stopped_now) = (true, true);
                match *deadline > self.now {
                    true => self.fill_places(),
                    false => self.places.iter_mut().for_each(|it| it.ends_first = None),
                }
            }
            Event::Scaled { from, to } => self.on_scaled(*from, *to),
            Event::ReloadStarted { generation, slots } => self.on_started(*generation, *slots),
            Event::ReloadProgress { generation, done, slots } => {
                self.on_progress(*generation, *done, *slots);
            }
            Event::ReloadDone { generation } => self.on_done(*generation),
            Event::ReloadFailed { generation, failure } => self.on_failed(*generation, failure),
            Event::Recycling { worker, slot } => self.on_recycling(*worker, *slot),
            Event::Recycled { worker, slot } => self.on_recycled(*worker, *slot),
            Event::RecycleFailed { worker, .. } => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.spared = Some(now + SPARED);
                }
                self.fail();
                self.active = None;
            }
            _ => {}
        }
    }
}
