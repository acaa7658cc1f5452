//! What the core says, done at once and without waiting.

use roundel_core::{
    Attach, Config, ConnEnd, ConnId, DecodeError, Event, ExitStatus, ListenKey, Output, Refusal,
    Signal, ToWorker, Violation, WorkerId,
};
use roundel_runtime::primary::channel_io;
use roundel_runtime::unix::transmit::Flush;

use super::Sim;
use super::end::{PipeEnd, Trouble};
use super::listen_sockets::{ListenSocket, Todo, socket_address};
use super::process::Process;
use super::socket::Handle;
use crate::faults::fault::Property;
use crate::faults::mutants::Mutant;
use crate::sim::coverage::Effect;
use crate::sim::plan::{ADDED, Codecs};

impl Sim {
    pub(super) fn execute(&mut self, output: Output) {
        match output {
            Output::Spawn { worker, slot, generation } => {
                let config = self.core.core.config();
                let process = Process::new(worker, (slot, generation), config, &self.world);
                let (keys, given) = (&self.keys, &self.given);
                self.asks.entry(generation).or_insert_with(|| asks(keys, given, config));
                self.processes.insert(worker, process);
                self.todo.push_back(Todo::Spawn(worker));
            }
            Output::Kill { worker, signal } => self.signal(worker, signal),
            Output::ShutdownRead { worker } => {
                if let Some(process) = self.processes.get_mut(&worker)
                    && self.mutant != Some(Mutant::NoShutdownRead)
                {
                    let channel = &mut process.channel;
                    let mut end = PipeEnd::new(&mut channel.up, &mut channel.down);
                    channel_io::shutdown_read(&mut process.link, &mut end);
                    if !process.channel.up.is_empty() {
                        self.reached(Effect::FencedWithSomethingUnread);
                    }
                }
            }
            Output::Forget { worker } => {
                if let Some(process) = self.processes.remove(&worker)
                    && !process.ended
                {
                    self.fault(Property::Invariants, format!("{worker} forgotten with a channel"));
                }
            }
            Output::Bind { listener, key, .. } => {
                self.look_for_leftovers(&key);
                let socket =
                    ListenSocket { at: socket_address(listener, &key), ..ListenSocket::default() };
                self.sockets.insert(listener, socket);
                self.todo.push_back(Todo::Bind(listener));
            }
            Output::Unbind { listener } => {
                if let Some(socket) = self.sockets.get_mut(&listener) {
                    socket.accepting = false;
                }
                self.todo.push_back(Todo::Unbind(listener));
            }
            Output::Close { listener } => {
                if let Some(socket) = self.sockets.get_mut(&listener) {
                    (socket.accepting, socket.open) = (false, false);
                }
                self.todo.push_back(Todo::Close(listener));
            }
            Output::ResumeAccept { listener } => {
                if let Some(socket) = self.sockets.get_mut(&listener) {
                    socket.accepting = socket.open;
                }
            }
            Output::PauseAccept { listener } => {
                if let Some(socket) = self.sockets.get_mut(&listener) {
                    socket.accepting = false;
                }
            }
            Output::CountConnections { workers } => {
                self.todo.extend(workers.into_iter().map(Todo::Count));
            }
            Output::Send { worker, msg, attach } => self.send(worker, msg, attach),
            Output::Release { conn, end } => self.release(conn, end),
            Output::Event(Event::Killing { worker, violation: Some(violation), .. }) => {
                self.judge_violation(worker, &violation);
            }
            Output::Event(Event::Stalled { listener, worker, .. }) => {
                let what = format!("{listener} has a connection and {worker} is idle");
                self.fault(Property::WorkConservation, what);
            }
            Output::Event(
                Event::ReloadFailed { failure, .. } | Event::RecycleFailed { failure, .. },
            ) => {
                self.coverage.failed(&failure);
            }
            Output::Stopped(verdict) => {
                let before = self.stopped.replace(verdict);
                if before.is_some() {
                    self.fault(Property::Shutdown, "it ended twice");
                }
            }
            _ => {}
        }
    }

    /// Only who sends what is no message is ended for it.
    fn judge_violation(&mut self, worker: WorkerId, violation: &Violation) {
        // A worker stopped in the middle of a message is honest; so is one that answers too often.
        let own = matches!(violation, Violation::FrameTimeout | Violation::StrayMessages);
        // A worker without descriptors for the listener that it is given can't serve: it is told so
        // thus.
        let full = self.world.codecs == Codecs::Fork
            && *violation == Violation::Decode(DecodeError::BadMessage);
        if !own && !full && !self.hostile.contains(&worker) {
            let what = format!("{worker} is ended ({}) and did nothing", violation.name());
            self.fault(Property::Harmless, what);
        }
    }

    fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let dies = match signal {
            Signal::Kill if process.hangs => {
                process.doomed = true;
                return self.reached(Effect::KilledInTheKernel);
            }
            Signal::Kill => Some(9),
            // A program that is stopped gets it when it goes on.
            _ if process.stalls || process.hangs => None,
            Signal::Term if process.stubborn <= 2 => Some(15),
            Signal::Interrupt if process.stubborn <= 1 => Some(2),
            Signal::Hangup if process.stubborn <= 1 => Some(1),
            Signal::User2 if process.stubborn <= 1 => Some(12),
            _ => None,
        };
        let Some(number) = dies else { return };
        let status = ExitStatus::Signal(number);
        if process.started {
            self.die(id, status);
        } else if process.exit.is_none() {
            // It is carried out right after the start.
            process.exit = Some(status);
        }
    }

    fn send(&mut self, id: WorkerId, msg: ToWorker, attach: Option<Attach>) {
        if let Some(Attach::Conn(conn)) = attach {
            if self.custody.get(conn).is_none() {
                self.fault(Property::Conservation, format!("{conn} goes out and is not held"));
            }
            let servers = self.servers(conn);
            if !servers.is_empty() {
                let what = format!("{conn} goes to {id} and {servers:?} has served it");
                self.fault(Property::NoDouble, what);
            }
        }
        if let Some(process) = self.processes.get_mut(&id)
            && !process.ended
        {
            // One that has not said what it speaks counts for neither.
            if let Some(codec) = process.link.codec() {
                self.coverage.sent(codec == roundel_core::Codec::Node, &msg);
            }
            if process.link.push(msg, attach) {
                self.reached(Effect::MergedHandoffs);
            }
        }
    }

    /// Which honest workers' programs were given a connection.
    pub(super) fn servers(&mut self, conn: ConnId) -> Vec<WorkerId> {
        let served = self.fate(conn).map(|fate| fate.served.clone()).unwrap_or_default();
        served.into_iter().filter(|id| !self.hostile.contains(id)).collect()
    }

    fn release(&mut self, conn: ConnId, end: ConnEnd) {
        let Some((token, socket)) = self.custody.release(conn) else {
            return self.fault(Property::Conservation, format!("{conn} is released twice"));
        };
        token.close();
        drop(socket);
        if let Some(fate) = self.fate(conn) {
            fate.released = Some(end);
        }
        let servers = self.servers(conn);
        match end {
            ConnEnd::AcceptedBy(worker) if self.hostile.contains(&worker) => {}
            ConnEnd::AcceptedBy(worker) if servers.is_empty() => {
                let what = format!("{conn} is said to be {worker}'s, and nobody has it");
                self.fault(Property::NoLoss, what);
            }
            ConnEnd::AcceptedBy(worker) if servers != [worker] => {
                let what = format!("{conn} is said to be {worker}'s, and is {servers:?}'s");
                self.fault(Property::NoDouble, what);
            }
            ConnEnd::Refused(Refusal::Unknown) => self.reached(match servers.is_empty() {
                true => Effect::UnknownAndNotServed,
                false => Effect::UnknownAndServed,
            }),
            ConnEnd::Refused(refusal) if !servers.is_empty() => {
                let what = format!("{conn} is refused ({}) and served", refusal.name());
                self.fault(Property::NoDouble, what);
            }
            _ => {}
        }
    }

    /// Sends to every worker what waits for it.
    pub(super) fn flush_all(&mut self) {
        loop {
            let mut unsent = Vec::new();
            for process in self.processes.values_mut() {
                if !process.link.has_unsent() || !process.started || process.ended {
                    continue;
                }
                let (custody, sockets) = (&self.custody, &self.sockets);
                let trouble = process.trouble;
                let end = PipeEnd::new(&mut process.channel.up, &mut process.channel.down);
                let mut end = PipeEnd { trouble: Some(&mut process.trouble), ..end };
                let resolve = |attach: &Attach| match attach {
                    Attach::Conn(conn) => {
                        custody.get(*conn).map(|(_, socket)| Handle::Conn(socket.clone()))
                    }
                    Attach::Listener(listener) => {
                        sockets.contains_key(listener).then_some(Handle::Listener(*listener))
                    }
                };
                let before = unsent.len();
                let flush = channel_io::flush(&mut process.link, &mut end, resolve, |event| {
                    unsent.extend(event.into_input(process.id));
                });
                if unsent.len() > before && trouble != Some(Trouble::Fails) {
                    self.coverage.reached(Effect::NothingToSend);
                }
                match flush {
                    Flush::Done => {}
                    Flush::Blocked if end.is_cut => {
                        self.coverage.reached(Effect::ShortWriteToWorker);
                    }
                    Flush::Blocked => self.coverage.reached(Effect::ChannelFull),
                    Flush::TooManyRefs => self.coverage.reached(Effect::TooManyRefs),
                    Flush::Closed => self.coverage.reached(Effect::BrokenPipe),
                }
            }
            if unsent.is_empty() {
                return;
            }
            unsent.into_iter().for_each(|input| self.input(input));
        }
    }
}

/// What the programs of a generation listen on: what all do, but for what is the operator's. Of
/// that, what its configuration has.
fn asks(keys: &[ListenKey], given: &[ListenKey], config: &Config) -> Vec<ListenKey> {
    let has = |key: &&ListenKey| !given.contains(key) || config.listeners().contains(key);
    let added = config.listeners().iter().filter(|it| it.address.port() == Some(ADDED));
    keys.iter().filter(has).chain(added).cloned().collect()
}
