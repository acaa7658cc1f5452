//! A cluster in virtual time: the real primary, real workers and unmodified ones, and between them
//! channels that carry bytes and handles through the real codecs. One plan, one run.

mod act;
pub mod coverage;
mod digest;
pub mod end;
mod execute;
mod hostile;
mod listen_sockets;
pub mod native;
pub mod node;
pub mod omen;
pub mod ops;
pub mod pipe;
pub mod plan;
mod process;
pub mod program;
pub mod rng;
mod run;
pub mod simulate;
pub mod socket;
pub mod spread;
pub mod token;
pub mod trace;
pub mod variants;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Weak;

use roundel_core::{
    ConnEnd, ConnId, Custody, Input, ListenKey, ListenerId, Output, Primary, SpawnError, Time,
    Verdict, WorkerId,
};

use crate::faults::fault::{Fault, Property};
use crate::faults::mutants::{Mutant, Shim};
use crate::models::life::LifeModel;
use crate::models::reload::ReloadModel;
use crate::models::rotation::Model;
use crate::sim::coverage::{Coverage, Effect};
use crate::sim::plan::{Plan, World};
use crate::sim::token::Token;
use digest::Digest;
use listen_sockets::{ListenSocket, Todo};
use omen::Omen;
use process::Process;
use rng::Rng;
use socket::Socket;
use trace::Trace;

/// What is known of a connection from outside.
#[derive(Debug)]
struct Fate {
    /// The workers whose programs were given it.
    served: Vec<WorkerId>,
    released: Option<ConnEnd>,
    socket: Weak<ConnId>,
}

/// The cluster.
pub struct Sim {
    /// The core, or a mutant of it.
    pub core: Shim,
    /// The configuration that it began with; a reload may have changed it since.
    pub config: roundel_core::Config,
    /// Virtual time.
    pub now: Time,
    /// Every input so far, unless the run is not recorded.
    pub transcript: Vec<(Time, Input)>,
    /// Every output so far, unless the run is not recorded.
    pub outputs: Vec<Output>,
    /// What went wrong.
    pub faults: Vec<Fault>,
    /// How it ended, once it has.
    pub stopped: Option<Verdict>,
    /// What happened in it, and how often.
    pub coverage: Coverage,
    /// Rows for reading, if they are wanted.
    pub trace: Option<Trace>,
    /// Whether inputs and outputs are kept.
    pub recorded: bool,
    /// Whether the models and the invariants are looked at.
    pub checked: bool,
    /// How many connections the workers of each slot were given.
    pub served_by_slot: Vec<u64>,
    keys: Vec<ListenKey>,
    rivals: Vec<ListenKey>,
    world: World,
    rng: Rng,
    processes: BTreeMap<WorkerId, Process>,
    sockets: BTreeMap<ListenerId, ListenSocket>,
    todo: VecDeque<Todo>,
    custody: Custody<(Token, Socket)>,
    /// By the number of the connection, from 1.
    fates: Vec<Fate>,
    /// Workers that sent what nobody should believe.
    hostile: BTreeSet<WorkerId>,
    failing_spawns: Vec<SpawnError>,
    failing_binds: u32,
    /// New workers say nothing.
    mute: bool,
    mutant: Option<Mutant>,
    model: Model,
    life: LifeModel,
    reload: ReloadModel,
    /// What becomes of the next programs that start.
    dooms: VecDeque<Omen>,
    paused: bool,
    /// What the programs of each generation listen on.
    asks: BTreeMap<u32, Vec<ListenKey>>,
    given: Vec<ListenKey>,
    inputs: usize,
    emitted: usize,
    /// How many outputs the inputs so far may have.
    allowed: usize,
    digest: Digest,
    heard: Vec<roundel_core::ChannelEvent>,
    /// What a read fills.
    buffer: Vec<u8>,
}

impl Sim {
    /// The cluster of a plan, that begins at `start`, before anything has happened.
    pub fn new(plan: &Plan, start: Time, mutant: Option<Mutant>) -> Self {
        let config = plan.config.clone();
        let mut sim = Sim {
            core: Shim::new(Primary::new(Mutant::told(mutant, config.clone())), mutant),
            config: config.clone(),
            now: start,
            transcript: Vec::new(),
            outputs: Vec::new(),
            faults: Vec::new(),
            stopped: None,
            coverage: Coverage::default(),
            trace: None,
            recorded: true,
            checked: true,
            served_by_slot: vec![0; plan.config.workers() as usize],
            keys: plan.keys.clone(),
            rivals: plan.rivals.clone(),
            world: plan.world,
            rng: Rng::new(plan.world.seed),
            processes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            todo: VecDeque::new(),
            custody: Custody::new(),
            fates: Vec::new(),
            hostile: BTreeSet::new(),
            failing_spawns: Vec::new(),
            failing_binds: 0,
            mute: false,
            mutant,
            model: Model::new(config.clone()),
            life: LifeModel::new(config.clone()),
            given: config.listeners().to_vec(),
            reload: ReloadModel::new(config),
            dooms: VecDeque::new(),
            paused: false,
            asks: BTreeMap::new(),
            inputs: 0,
            emitted: 0,
            allowed: 0,
            digest: Digest::default(),
            heard: Vec::new(),
            buffer: vec![0; 64 * 1024],
        };
        sim.wake();
        sim
    }

    /// The faults of one property.
    pub fn broken(&self, property: Property) -> Vec<&Fault> {
        self.faults.iter().filter(|fault| fault.property == property).collect()
    }

    /// A number that two runs have in common if all inputs and outputs were the same.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.fates.len()
    }

    /// How many inputs there were.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    fn fault(&mut self, property: Property, what: impl Into<String>) {
        let step = self.inputs;
        let what = what.into();
        self.note(None, || format!("*** {property:?}: {what}"));
        self.faults.push(Fault { property, step, what });
    }

    fn note(&mut self, whose: Option<WorkerId>, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let process = whose.and_then(|id| self.processes.get(&id));
            trace.add(self.now, process.map(|p| (p.id, p.slot)), what());
        }
    }

    fn reached(&mut self, effect: Effect) {
        self.coverage.reached(effect);
    }

    /// Tells the core something and does what it says.
    fn input(&mut self, input: Input) {
        let deadline = self.core.core.poll_timeout();
        if self.checked {
            self.model.on_input(self.now, &input, deadline);
            self.life.on_input(self.now, &input, deadline);
            self.reload.on_input(self.now, &input, deadline);
        }
        self.coverage.input(self.now, &input, deadline);
        self.inputs += 1;
        (self.now, &input).hash(&mut self.digest);
        if self.recorded {
            self.transcript.push((self.now, input.clone()));
        }
        if input != Input::Wake {
            self.note(None, || format!("<- {input:?}"));
        }
        let misuse = self.core.handle_input(self.now, input.clone());
        if let Err(misuse) = misuse {
            self.fault(Property::Invariants, format!("{input:?} was refused: {misuse}"));
        }
        while let Some(output) = self.core.poll_output() {
            if self.checked {
                self.reload.on_output(&output);
                for news in self.reload.take_news() {
                    self.model.on_news(&news);
                    self.life.on_news(&news);
                }
                self.model.on_output(&output);
                self.life.on_output(&output);
            }
            self.coverage.output(&output);
            self.emitted += 1;
            output.hash(&mut self.digest);
            self.note(None, || format!("   -> {output:?}"));
            if self.recorded {
                self.outputs.push(output.clone());
            }
            self.execute(output);
        }
        if self.checked {
            self.check(&input);
        }
    }

    fn check(&mut self, input: &Input) {
        self.model.end_step();
        self.life.end_step();
        self.reload.end_step();
        let faults = self.model.take_faults().into_iter().chain(self.life.take_faults());
        for (property, what) in faults.chain(self.reload.take_faults()) {
            self.fault(property, format!("at {} after {input:?}: {what}", self.now));
        }
        if let Err(broken) = self.core.core.check() {
            self.fault(Property::Invariants, format!("after {input:?}: {broken}"));
        }
        // Each input has a few outputs, and two for each listener if accepting stops or goes on at
        // all of them; each worker has a few in its life.
        self.allowed += 8 + 2 * self.sockets.len();
        if self.emitted > self.allowed + 16 * (self.processes.len() + 8) {
            self.fault(Property::Linear, format!("{} outputs", self.emitted));
        }
    }

    /// Looks at the clock.
    fn wake(&mut self) {
        self.input(Input::Wake);
        if let Some(deadline) = self.core.poll_timeout()
            && deadline.at <= self.now
        {
            self.fault(Property::Timeouts, format!("{deadline} is not later than {}", self.now));
        }
    }

    fn ids(&self) -> Vec<WorkerId> {
        self.processes.keys().copied().collect()
    }

    fn fate(&mut self, conn: ConnId) -> Option<&mut Fate> {
        self.fates.get_mut(usize::try_from(conn.get()).ok()?.checked_sub(1)?)
    }

    /// What is left at the end is a fault; returns all faults.
    pub fn finish(mut self) -> Vec<Fault> {
        self.close_books();
        std::mem::take(&mut self.faults)
    }

    /// Looks whether every connection was released, and every copy of it closed.
    pub fn close_books(&mut self) {
        if let Err(leftover) = std::mem::take(&mut self.custody).finish() {
            self.fault(Property::Conservation, leftover.to_string());
            leftover.0.into_iter().for_each(|(_, (token, _))| token.close());
        }
        self.processes.clear();
        let open = self.fates.iter().filter(|fate| fate.socket.strong_count() > 0).count();
        if open > 0 {
            self.fault(Property::Conservation, format!("{open} connections were never closed"));
        }
    }
}

impl Drop for Sim {
    /// A run that is left in the middle holds connections, and that is no fault.
    fn drop(&mut self) {
        if let Err(leftover) = std::mem::take(&mut self.custody).finish() {
            leftover.0.into_iter().for_each(|(_, (token, _))| token.close());
        }
    }
}
