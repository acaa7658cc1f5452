//! A cluster in virtual time around the real core: what an embedder does, without a kernel.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use roundel_core::{
    Codec, Config, ConnEnd, ConnId, Custody, Errno, Input, ListenKey, ListenerId, Output, Primary,
    SockName, SpawnError, Time, Verdict, Violation, WorkerId,
};

use crate::fault::{Fault, Property};
use crate::life_model::LifeModel;
use crate::model::Model;
use crate::mutants::{Mutant, Shim};
use crate::sim_worker::{SimWorker, Up};
use crate::token::Token;

/// Something that the embedder will tell the core when its turn comes.
#[derive(Clone, Debug)]
pub(crate) enum Todo {
    Spawn(WorkerId),
    Bind(ListenerId),
    Unbind(ListenerId),
}

/// A listener as the embedder has it.
#[derive(Debug, Default)]
pub(crate) struct SimListener {
    pub(crate) open: bool,
    pub(crate) accepting: bool,
    /// Clients in the kernel's queue.
    pub(crate) backlog: u32,
}

/// The cluster.
pub struct Sim {
    /// The core, or a mutant of it.
    pub core: Shim,
    /// Virtual time.
    pub now: Time,
    /// Every input so far.
    pub transcript: Vec<(Time, Input)>,
    /// Every output so far.
    pub outputs: Vec<Output>,
    /// What went wrong.
    pub faults: Vec<Fault>,
    /// How it ended, once it has.
    pub stopped: Option<Verdict>,
    /// What workers ask to listen on.
    pub keys: Vec<ListenKey>,
    pub(crate) workers: BTreeMap<WorkerId, SimWorker>,
    pub(crate) listeners: BTreeMap<ListenerId, SimListener>,
    pub(crate) todo: VecDeque<Todo>,
    pub(crate) custody: Custody<Token>,
    /// Who served a connection: its answer was in the kernel.
    pub(crate) served: BTreeMap<ConnId, Vec<WorkerId>>,
    pub(crate) released: BTreeMap<ConnId, ConnEnd>,
    pub(crate) failing_spawns: u32,
    pub(crate) failing_binds: u32,
    /// New workers say nothing.
    pub(crate) mute: bool,
    model: Model,
    life: LifeModel,
    /// Print every input and output.
    pub trace: bool,
}

impl Sim {
    /// A cluster that begins at `start`. Workers ask for each of `keys`.
    pub fn new(config: Config, keys: Vec<ListenKey>, start: Time, mutant: Option<Mutant>) -> Self {
        let mut sim = Sim {
            core: Shim::new(Primary::new(config.clone()), mutant),
            now: start,
            transcript: Vec::new(),
            outputs: Vec::new(),
            faults: Vec::new(),
            stopped: None,
            keys,
            workers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            todo: VecDeque::new(),
            custody: Custody::new(),
            served: BTreeMap::new(),
            released: BTreeMap::new(),
            failing_spawns: 0,
            failing_binds: 0,
            mute: false,
            model: Model::new(config.clone()),
            life: LifeModel::new(config),
            trace: false,
        };
        sim.wake();
        sim
    }

    /// The faults of one property.
    pub fn broken(&self, property: Property) -> Vec<&Fault> {
        self.faults.iter().filter(|fault| fault.property == property).collect()
    }

    pub(crate) fn fault(&mut self, property: Property, what: impl Into<String>) {
        let step = self.transcript.len();
        self.faults.push(Fault { property, step, what: what.into() });
    }

    /// Tells the core something and does what it says.
    pub(crate) fn input(&mut self, input: Input) {
        let deadline = self.core.core.poll_timeout();
        self.model.on_input(self.now, &input, deadline);
        self.life.on_input(self.now, &input, deadline);
        self.transcript.push((self.now, input.clone()));
        if self.trace {
            eprintln!("{} <- {input:?}", self.now);
        }
        if let Err(misuse) = self.core.handle_input(self.now, input.clone()) {
            self.fault(Property::Invariants, format!("{input:?} was refused: {misuse}"));
        }
        while let Some(output) = self.core.poll_output() {
            if self.trace {
                eprintln!("{}    -> {output:?}", self.now);
            }
            self.model.on_output(&output);
            self.life.on_output(&output);
            self.outputs.push(output.clone());
            self.execute(output);
        }
        self.model.end_step();
        self.life.end_step();
        for (property, what) in self.model.take_faults().into_iter().chain(self.life.take_faults())
        {
            self.fault(property, format!("at {} after {input:?}: {what}", self.now));
        }
        if let Err(broken) = self.core.core.check() {
            self.fault(Property::Invariants, format!("after {input:?}: {broken}"));
        }
        // Each input has a few outputs; each connection, listener and worker a few in its life.
        let allowed = 12 * self.transcript.len() + 16 * (self.workers.len() + 8);
        if self.outputs.len() > allowed {
            self.fault(Property::Linear, format!("{} outputs", self.outputs.len()));
        }
    }

    /// Looks at the clock.
    pub(crate) fn wake(&mut self) {
        self.input(Input::Wake);
        if let Some(deadline) = self.core.poll_timeout()
            && deadline.at <= self.now
        {
            self.fault(Property::Timeouts, format!("{deadline} is not later than {}", self.now));
        }
    }

    /// The primary reads a worker's channel to its end.
    pub(crate) fn pull(&mut self, id: WorkerId) {
        loop {
            let Some(worker) = self.workers.get_mut(&id) else { return };
            if worker.ended || !worker.started {
                return;
            }
            let Some(up) = worker.up.pop_front() else { break };
            let input = match up {
                Up::Hello => Input::Hello { worker: id, codec: Codec::Native },
                Up::Msg(msg) => Input::Message { worker: id, msg },
                Up::Garbage => Input::Violation { worker: id, what: Violation::UnknownCodec },
                Up::Half => Input::FrameBegun { worker: id },
            };
            self.input(input);
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.open || worker.fenced {
            worker.ended = true;
            self.input(Input::ChannelClosed { worker: id });
        }
    }

    pub(crate) fn pull_all(&mut self) {
        for id in self.ids() {
            self.pull(id);
        }
    }

    /// The primary learns which processes have ended.
    pub(crate) fn reap_all(&mut self) {
        for id in self.ids() {
            if let Some(worker) = self.workers.get_mut(&id)
                && worker.started
                && !worker.reaped
                && let Some(status) = worker.exit
            {
                worker.reaped = true;
                self.input(Input::Exited { worker: id, status });
            }
        }
    }

    pub(crate) fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// Accepts clients as far as the core wants them.
    pub(crate) fn accept(&mut self, listener: ListenerId, at_most: u32) {
        for _ in 0..at_most {
            let Some(record) = self.listeners.get_mut(&listener) else { return };
            if !record.accepting || record.backlog == 0 {
                return;
            }
            record.backlog -= 1;
            self.admit(listener);
        }
    }

    fn admit(&mut self, listener: ListenerId) {
        let name = (self.released.len() + self.custody.len()) as u64;
        let conn = self.custody.admit(Token::new(name));
        self.input(Input::Incoming { listener, conn });
    }

    /// Does the oldest thing that was asked for and answers the core.
    pub(crate) fn do_one(&mut self) -> bool {
        let Some(todo) = self.todo.pop_front() else { return false };
        match todo {
            Todo::Spawn(id) => self.spawn(id),
            Todo::Bind(listener) => {
                let result = if self.failing_binds > 0 {
                    self.failing_binds -= 1;
                    Err(crate::sim_worker::BIND_ERRNO)
                } else {
                    let port = 1_000 + listener.get() as u16;
                    Ok(SockName::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
                };
                if result.is_ok() {
                    self.listeners.entry(listener).or_default().open = true;
                }
                self.input(Input::Bound { listener, result });
            }
            Todo::Unbind(listener) => {
                // Everything that has come is given in.
                while let Some(record) = self.listeners.get_mut(&listener)
                    && record.backlog > 0
                {
                    record.backlog -= 1;
                    self.admit(listener);
                }
                self.listeners.remove(&listener);
                self.input(Input::Unbound { listener });
            }
        }
        true
    }

    fn spawn(&mut self, id: WorkerId) {
        if self.failing_spawns > 0 {
            self.failing_spawns -= 1;
            self.workers.remove(&id);
            let cause = SpawnError::Other(Errno(11));
            return self.input(Input::SpawnFailed { worker: id, cause });
        }
        let (mute, keys) = (self.mute, self.keys.clone());
        if let Some(worker) = self.workers.get_mut(&id) {
            // A kill that came before the start is carried out right after it.
            let condemned = worker.exit.take();
            worker.started = true;
            worker.alive = true;
            worker.open = true;
            if !mute {
                worker.introduce(&keys);
            }
            if let Some(status) = condemned {
                worker.die(status);
            }
        }
        self.input(Input::Spawned { worker: id, pid: 1_000 + id.get() as i32 });
    }

    /// What is left at the end is a fault; returns all faults.
    pub fn finish(mut self) -> Vec<Fault> {
        if let Err(leftover) = std::mem::take(&mut self.custody).finish() {
            self.fault(Property::Conservation, format!("{leftover}: {:?}", leftover.0));
            leftover.0.into_iter().for_each(|(_, token)| token.close());
        }
        std::mem::take(&mut self.faults)
    }
}

impl Drop for Sim {
    /// A run that is left in the middle holds connections, and that is no fault.
    fn drop(&mut self) {
        if let Err(leftover) = std::mem::take(&mut self.custody).finish() {
            leftover.0.into_iter().for_each(|(_, token)| token.close());
        }
    }
}
