//! The primary's driver: it owns the machine, the descriptors and the processes, carries out every
//! output in order, and turns readiness into inputs. It never waits; an adapter does that.
//!
//! An adapter's loop is: take the [`Change`]s of what to watch, stop when
//! [`finished`](PrimaryDriver::finished) returns an exit code, wait for readiness or until the
//! [`deadline`](PrimaryDriver::deadline), name what is ready with
//! [`on_ready`](PrimaryDriver::on_ready), and call [`turn`](PrimaryDriver::turn).

mod accept;
mod begin;
mod binds;
mod channels;
mod control;
mod count;
mod end;
mod execute;
mod helpers;
mod machine;
mod memory;
mod metrics;
mod notify;
mod output;
mod peer;
mod programs;
mod reap;
mod reload;
mod report;
mod signals;
mod source;
mod stall;
mod start;
mod status;
mod store;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roundel_core::{Codec, Custody, Input, Life, ListenerId, Time, Verdict, WorkerId};

pub use source::{Change, Source};

use crate::exit::Exit;
use crate::observe::console::Console;
use crate::observe::control::ControlServer;
use crate::observe::eventlog::EventLog;
use crate::primary::setup::{ReadyReport, Room};
use crate::text;
use crate::unix::group::Groups;
use crate::unix::limits::OpenFiles;
use crate::unix::process::ChannelVariables;
use crate::unix::reserve::Reserve;
use crate::unix::signals::Signals;
use crate::unix::socket::Inherited;
use crate::unix::user::Identity;
use accept::ListenSocket;
use binds::SocketFiles;
use count::Counter;
use machine::Machine;
use metrics::{Held, Metrics};
use notify::Manager;
use output::Output;
use peer::Peer;
use programs::Programs;
use reload::Reloading;
use store::Stored;
use waiting::Waiting;

/// How soon an action is tried again that failed because descriptors or memory ran out.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

/// A primary with its sockets, channels and processes.
#[derive(Debug)]
pub struct PrimaryDriver {
    core: Machine,
    now: Time,
    started: Time,
    custody: Custody<Held>,
    programs: Programs,
    reloading: Reloading,
    /// Clients of the control socket whose requests take their time.
    waiting: Waiting,
    room: Room,
    inherited: Inherited,
    files: OpenFiles,
    /// Descriptors for the next start of a worker.
    spawn_reserve: Reserve,
    /// A descriptor lent when there is no other: to empty a listener before its close, and to
    /// accept a client of the control socket.
    spare: Reserve,
    signals: Signals,
    control: Option<ControlServer>,
    /// Its clients could not be accepted because descriptors ran out.
    control_starved: bool,
    metrics: Option<Metrics>,
    events: Option<EventLog>,
    /// The service manager, if there is one.
    manager: Option<Manager>,
    /// Listeners that it has kept.
    stored: Stored,
    /// What the files of the operator's unix sockets get, by their paths.
    socket_files: SocketFiles,
    /// The user that the primary becomes before the first worker starts.
    identity: Option<Identity>,
    /// Workers may start: the operator's listeners are bound.
    begun: bool,
    /// The numbers of the listeners that workers are passed.
    _occupied: Vec<OwnedFd>,
    /// What workers print, if the primary reads it.
    output: Option<Output>,
    /// The message still to be printed when all workers are ready.
    welcome: Option<fn(&ReadyReport) -> String>,
    codec: Option<Codec>,
    variables: ChannelVariables,
    console: Console,
    /// The hint about where programs' messages go was printed.
    hinted: bool,
    peers: BTreeMap<WorkerId, Peer>,
    sockets: BTreeMap<ListenerId, ListenSocket>,
    /// Listeners that are being emptied and wait until the machine can hold more.
    awaiting_room: BTreeSet<ListenerId>,
    /// A lack of resources for a start was reported, and no start has succeeded since.
    want_said: bool,
    pids: BTreeMap<WorkerId, i32>,
    workers_by_pid: BTreeMap<i32, WorkerId>,
    groups: Groups,
    counter: Counter,
    /// When the workers' memory is looked at next.
    sample_at: Time,
    changes: VecDeque<Change>,
    ready: BTreeSet<Source>,
    /// Workers for which something waits to be sent.
    unsent: BTreeSet<WorkerId>,
    /// When to retry what failed because descriptors or memory ran out.
    retry_at: Option<Time>,
    /// When to look for connections that are not being accepted.
    look_at: Time,
    read_buffer: Box<[u8]>,
    /// How many messages of programs were skipped.
    skipped: u64,
    stop_asked: bool,
    verdict: Option<Verdict>,
    exit: Option<Exit>,
}

impl PrimaryDriver {
    /// The next change in what to watch.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Notes that a source is ready, or may be.
    pub fn on_ready(&mut self, source: Source) {
        self.ready.insert(source);
    }

    /// True if there is work that needs no readiness: then the next wait must not block.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || self.core.has_output()
            || (self.verdict.is_some() && self.groups.have_ended())
    }

    /// When the next turn is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let core = self.core.poll_timeout().map(|deadline| deadline.at);
        let control = self.control.as_ref().and_then(ControlServer::deadline);
        let output = self.output.as_ref().and_then(Output::deadline);
        let metrics = self.metrics.as_ref().and_then(Metrics::deadline);
        let manager = self.manager.as_ref().and_then(Manager::deadline);
        let rest = [self.core.journal_due(), self.look_due(), self.groups.deadline(), manager];
        let due = [self.retry_at, self.sample_due(), self.waiting.due()];
        [core, control, output, metrics].into_iter().chain(due).chain(rest).flatten().min()
    }

    /// How the primary ended, once it has.
    pub fn finished(&self) -> Option<Exit> {
        self.exit
    }

    /// Does what is due: first the workers' answers, then the rest, each within a budget.
    ///
    /// Deadlines are judged by `now`. If one has passed, readiness must have been checked since
    /// `now` was read.
    pub fn turn(&mut self, now: Time) {
        self.now = now;
        let ready = std::mem::take(&mut self.ready);
        // Answers come before anything else: while the primary keeps its copy of an accepted
        // connection, the worker's close does not take effect.
        for &source in &ready {
            if let Source::Channel(id) = source {
                self.read_channel(id);
            }
        }
        self.carry_out();
        for source in ready {
            match source {
                Source::Channel(_) => {}
                Source::Signals => self.on_signals(),
                Source::Helpers => self.on_helpers(),
                Source::Listener(id) => self.accept(id),
                Source::Control => self.accept_control(),
                Source::ControlClient(client) => self.on_control(client),
                Source::Output(worker, stream) => self.on_output(worker, stream),
                Source::MetricsClient(client) => self.on_metrics(client),
                Source::Metrics => self.accept_metrics(),
            }
        }
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.retry();
        }
        self.sample_memory();
        self.expire_control();
        self.expire_metrics();
        self.expire_output();
        self.end_groups();
        self.input(Input::Wake);
        self.carry_out();
        self.programs.retain(|generation| self.core.is_generation_needed(generation));
        self.answer_waiting();
        self.spawn_reserve.refill();
        self.spare.refill();
        self.go_on_emptying();
        self.look_at_queues();
        if let Some(why) = self.core.flush_journal(self.now) {
            self.unrecorded(&why);
        }
        self.tell_manager();
        self.end_if_stopped();
    }

    fn retry_later(&mut self) {
        self.retry_at.get_or_insert(self.now + RETRY);
    }

    /// Retries what failed because descriptors or memory ran out.
    fn retry(&mut self) {
        self.retry_at = None;
        self.unsent
            .extend(self.peers.iter().filter(|(_, p)| p.channel.has_unsent()).map(|(id, _)| *id));
        self.retry_listeners();
        if std::mem::take(&mut self.control_starved) {
            self.ready.insert(Source::Control);
        }
        self.retry_metrics();
    }

    fn input(&mut self, input: Input) {
        self.core.input(self.now, input);
    }

    /// Carries out all outputs and those that result from them, then sends what waits to be sent.
    fn carry_out(&mut self) {
        loop {
            self.execute_outputs();
            self.flush();
            if !self.core.has_output() {
                return;
            }
        }
    }

    fn execute_outputs(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.execute(output);
        }
    }

    fn watch(&mut self, source: Source, fd: Arc<OwnedFd>) {
        self.changes.push_back(Change::Watch { source, fd, writable: false });
    }

    fn at_ms(&self) -> u64 {
        self.now.since(self.started).as_millis() as u64
    }

    fn log(&mut self, line: impl FnOnce(u64) -> report::Line) {
        let at_ms = self.at_ms();
        if let Some(events) = &mut self.events {
            events.write(&line(at_ms).finish());
        }
    }

    /// Reports that nothing more is recorded, with the reason.
    fn unrecorded(&mut self, why: &str) {
        self.say(why);
        self.log(|at_ms| report::Line::new(at_ms, "journal_stopped").with("cause", why));
    }

    /// Prints the welcome once every wanted worker is ready for the first time.
    fn welcome(&mut self) {
        let Some(welcome) = self.welcome else { return };
        let ready = self.core.workers().filter(|worker| worker.life == Life::Ready);
        let pids: Vec<i32> = ready.filter_map(|worker| worker.pid).collect();
        if pids.len() < self.core.config().workers() as usize {
            return;
        }
        self.welcome = None;
        let listeners = self.core.listeners();
        let addresses =
            listeners.filter_map(|listener| Some(text::printable(&listener.sockname?.to_string())));
        let name = self.console.name();
        let welcome = welcome(&ReadyReport { addresses: addresses.collect(), pids, name });
        self.console.show(&welcome);
    }

    fn say(&self, words: &str) {
        self.console.say(words);
    }

    /// The console that the primary prints on, usable also after the primary has ended.
    pub fn console(&self) -> Console {
        self.console.clone()
    }
}
