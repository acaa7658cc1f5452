//! The primary's body: it owns the machine, the descriptors and the processes, carries out every
//! output in order, and turns readiness into inputs. It never waits; an adapter does that.
//!
//! An adapter's loop is: take the [`Change`]s of what to watch, stop when
//! [`finished`](Shell::finished) says so, wait for readiness or until the
//! [`deadline`](Shell::deadline), name what is ready with [`on_ready`](Shell::on_ready), and call
//! [`turn`](Shell::turn).

mod accept;
mod control;
mod count;
mod execute;
mod machine;
mod peer;
mod reap;
mod report;
mod source;
mod stall;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use roundel_core::{
    Attach, Codec, Custody, Input, Life, ListenerId, Primary, Time, ToWorker, Verdict, WorkerId,
};

pub use source::{Change, Source};

use crate::clock;
use crate::console::Console;
use crate::control::{ControlServer, Where};
use crate::eventlog::EventLog;
use crate::exit::Exit;
use crate::group::{Groups, Naming};
use crate::journal::Journal;
use crate::limits::{self, OpenFiles};
use crate::link::{Heard, ReadState};
use crate::outbox::Flush;
use crate::process::{self, Program, Told};
use crate::program::PerSlot;
use crate::reserve::Reserve;
use crate::same_file;
use crate::setup::{Setup, StartError, Welcome};
use crate::signals::{Signal, Signals};
use crate::socket::Inherited;
use crate::text;
use accept::Door;
use count::Counter;
use machine::Machine;
use peer::Peer;

/// How soon something that failed for want of descriptors or memory is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

/// The descriptors that a start takes for a moment: the two ends of the channel, standard input,
/// and the two ends of the pipe by which the child tells that it could not exec; and one for good
/// measure.
const SPAWN_FDS: usize = 6;

/// Signals that are read before anything else is done.
const SIGNALS_PER_TURN: u32 = 64;

/// A primary with its sockets, channels and processes.
#[derive(Debug)]
pub struct Shell {
    core: Machine,
    now: Time,
    started: Time,
    custody: Custody<OwnedFd>,
    program: Program,
    per_slot: PerSlot,
    inherited: Inherited,
    files: OpenFiles,
    /// For the next start of a worker.
    spawn_reserve: Reserve,
    /// For whom else there is no descriptor: what is left in a listener that is to be closed, and
    /// who has something to say on the control socket.
    spare: Reserve,
    signals: Signals,
    control: Option<ControlServer>,
    /// Its clients could not be accepted for want of descriptors.
    control_starved: bool,
    events: Option<EventLog>,
    /// Still to be said.
    welcome: Option<fn(&Welcome) -> String>,
    codec: Option<Codec>,
    told: Told,
    console: Console,
    /// Where programs' messages go was said.
    hinted: bool,
    peers: BTreeMap<WorkerId, Peer>,
    doors: BTreeMap<ListenerId, Door>,
    /// Listeners that are being emptied, and wait until the machine can hold more.
    crowded: BTreeSet<ListenerId>,
    /// That nothing is to be had for a start was said, and none has succeeded since.
    want_said: bool,
    pids: BTreeMap<WorkerId, i32>,
    workers_by_pid: BTreeMap<i32, WorkerId>,
    groups: Groups,
    counter: Counter,
    changes: VecDeque<Change>,
    ready: BTreeSet<Source>,
    /// Workers to whom something is to be sent.
    unsent: BTreeSet<WorkerId>,
    /// When to try again what failed for want of descriptors or memory.
    retry_at: Option<Time>,
    /// When to look for connections that nobody accepts.
    look_at: Time,
    read_buffer: Box<[u8]>,
    /// Messages of programs that were passed over.
    skipped: u64,
    stop_asked: bool,
    verdict: Option<Verdict>,
    exit: Option<Exit>,
}

impl Shell {
    /// Takes over the process: signals, limits, control socket, and the scheduling policy of this
    /// thread (see [`process::schedule_in_batches`]). The first turn binds the operator's listeners
    /// and starts the workers: by then the event loop has what it needs, or there are no workers to
    /// leave behind.
    ///
    /// # Errors
    /// [`StartError`] names what could not be set up. Listeners that can't be bound and programs
    /// that do not exist are told by [`finished`](Shell::finished) instead.
    pub fn start(setup: Setup) -> Result<Shell, StartError> {
        let blocked = crate::signals::block();
        // Besides the standard three, which stay.
        let open = limits::open_fds().unwrap_or(0).saturating_sub(3) as u64;
        let inherited = Inherited::snapshot();
        // Where it is forbidden, all works as well, at a higher cost.
        let _ = process::schedule_in_batches();
        let files = OpenFiles::raise().map_err(StartError::Limits)?;
        let (config, clients) = setup.config(&files, open)?;
        inherited.pass_on(|number| process::is_kept(number, config.listeners()));
        let signals = blocked.and_then(|_| Signals::open()).map_err(StartError::Signals)?;
        let spawn_reserve = Reserve::take(SPAWN_FDS).map_err(StartError::Limits)?;
        let spare = Reserve::take(1).map_err(StartError::Limits)?;
        let console = match setup.quiet {
            true => Console::silent(),
            false => Console::open(setup.name).map_err(StartError::Console)?,
        };
        let (events, journal) = (setup.events.as_ref(), setup.journal.as_ref());
        if let Some((one, other, path)) = same_file::find(&setup.control, events, journal) {
            return Err(StartError::SameFile { one, other, path });
        }
        let (mut control, uncontrolled) = match &setup.control {
            Where::Off => (None, None),
            Where::Path(path) => {
                (Some(ControlServer::bind(Some(path)).map_err(StartError::Control)?), None)
            }
            // Nobody asked for this place, so it is no reason not to serve.
            Where::Default => match ControlServer::bind(None) {
                Ok(control) => (Some(control), None),
                Err(error) => (None, Some(error)),
            },
        };
        if let Some(control) = &mut control {
            control.limit_clients(clients);
        }
        let told = match (setup.codec, *config.pass_listeners()) {
            (_, true) => Told::NodeChild,
            (Some(Codec::Native), _) => Told::Native,
            (Some(Codec::Node), _) => Told::Node,
            _ => Told::Either,
        };
        let now = clock::now();
        let events = match &setup.events {
            Some(target) => {
                let log = EventLog::open(target, now, console.clone());
                Some(log.map_err(StartError::Events)?)
            }
            None => None,
        };
        let journal = match &setup.journal {
            Some(target) => Some(Journal::open(target, &config).map_err(StartError::Journal)?),
            None => None,
        };
        let mut shell = Shell {
            core: Machine::new(Primary::new(config), journal, console.clone()),
            now,
            started: now,
            custody: Custody::new(),
            program: setup.program,
            per_slot: setup.per_slot,
            inherited,
            files,
            spawn_reserve,
            spare,
            signals,
            control,
            control_starved: false,
            events,
            welcome: setup.welcome,
            codec: setup.codec,
            told,
            console,
            hinted: false,
            peers: BTreeMap::new(),
            doors: BTreeMap::new(),
            crowded: BTreeSet::new(),
            want_said: false,
            pids: BTreeMap::new(),
            workers_by_pid: BTreeMap::new(),
            groups: Groups::new(Naming::Best),
            counter: Counter::new().map_err(StartError::Limits)?,
            changes: VecDeque::new(),
            ready: BTreeSet::new(),
            unsent: BTreeSet::new(),
            retry_at: None,
            look_at: now,
            read_buffer: vec![0; 64 * 1024].into_boxed_slice(),
            skipped: 0,
            stop_asked: false,
            verdict: None,
            exit: None,
        };
        for note in &setup.notes {
            shell.say(note);
        }
        let signals = shell.signals.fd().map_err(StartError::Signals)?;
        shell.watch(Source::Signals, signals);
        shell.watch(Source::Counter, shell.counter.fd());
        if let Some(control) = &shell.control {
            let fd = control.fd().clone();
            shell.say(&format!("control socket {}", control.path().display()));
            shell.watch(Source::Control, fd);
        }
        if let Some(error) = uncontrolled {
            shell.say(&format!(
                "going on without a control socket: {error} (--control PATH makes it elsewhere, \
                 --control off is silent)"
            ));
        }
        Ok(shell)
    }

    /// The next change in what to watch.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Says that a source is ready, or may be.
    pub fn on_ready(&mut self, source: Source) {
        self.ready.insert(source);
    }

    /// Whether there is work that needs no readiness: the next wait is to be a mere look.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || self.core.has_output()
            || (self.verdict.is_some() && self.groups.have_ended())
    }

    /// When the next turn is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let core = self.core.poll_timeout().map(|deadline| deadline.at);
        let control = self.control.as_ref().and_then(ControlServer::deadline);
        let rest = [self.core.journal_due(), self.look_due(), self.groups.deadline()];
        [core, control, self.retry_at].into_iter().chain(rest).flatten().min()
    }

    /// How the primary ended, once it has.
    pub fn finished(&self) -> Option<Exit> {
        self.exit
    }

    /// Does what is due: first the workers' answers, then the rest, each within a budget.
    ///
    /// Deadlines are judged by `now`. If one has passed, readiness must have been looked at since
    /// `now` was read.
    pub fn turn(&mut self, now: Time) {
        self.now = now;
        let ready = std::mem::take(&mut self.ready);
        // Answers before anything else: the copy that the primary keeps of an accepted connection
        // delays the worker's close.
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
                Source::Counter => self.on_counted(),
                Source::Listener(id) => self.accept(id),
                Source::Control => self.accept_control(),
                Source::ControlClient(client) => self.on_control(client),
            }
        }
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.retry();
        }
        self.expire_control();
        self.end_groups();
        self.input(Input::Wake);
        self.carry_out();
        self.spawn_reserve.refill();
        self.spare.refill();
        self.go_on_emptying();
        self.look_at_queues();
        if let Some(why) = self.core.flush_journal(self.now) {
            self.unrecorded(&why);
        }
        self.end_if_stopped();
    }

    fn read_channel(&mut self, id: WorkerId) {
        let at_ms = self.at_ms();
        let Some(Peer { fd, link, .. }) = self.peers.get_mut(&id) else { return };
        let (core, now, events) = (&mut self.core, self.now, &mut self.events);
        let mut unheard = false;
        let skipped = &mut self.skipped;
        let state = link.read(&mut fd.as_fd(), &mut self.read_buffer, |heard| {
            if let Heard::User { json, with_handle } = &heard {
                match &mut *events {
                    Some(events) => {
                        let line = report::user_message(at_ms, id, json, *with_handle);
                        events.write(&line.finish());
                    }
                    None => unheard = true,
                }
            }
            if let Heard::Skipped { reason, length, with_handle } = heard {
                *skipped += 1;
                if let Some(events) = &mut *events {
                    let line = report::message_skipped(at_ms, id, reason, length, with_handle);
                    events.write(&line.finish());
                }
            }
            if let Some(input) = heard.into_input(id) {
                core.input(now, input);
            }
        });
        // What was blocked may go now: the adapter does not say for which of the two it is ready.
        if link.has_unsent() {
            self.unsent.insert(id);
        }
        if unheard && !std::mem::replace(&mut self.hinted, true) {
            let pid = self.pids.get(&id).copied();
            self.say(&report::unheard(id, pid));
        }
        match state {
            ReadState::Wait => {}
            ReadState::More => {
                self.ready.insert(Source::Channel(id));
            }
            ReadState::Closed => self.close_link(id),
        }
    }

    /// Sends to every worker what waits for it.
    fn flush(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            self.flush_link(id);
        }
    }

    fn flush_link(&mut self, id: WorkerId) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let (custody, doors) = (&self.custody, &self.doors);
            let flush = peer.link.flush(&mut peer.fd.as_fd(), |attach| match attach {
                Attach::Conn(conn) => custody.get(*conn).map(std::os::fd::AsFd::as_fd),
                Attach::Listener(listener) => doors.get(listener).map(Door::as_fd),
            });
            let blocked = match flush {
                Flush::Done => false,
                Flush::Blocked => true,
                Flush::TooManyRefs => {
                    // No readiness tells when it is over; an ack of any worker may.
                    self.retry_later();
                    false
                }
                Flush::Closed => {
                    // End of file, and acks before it, are still to be read.
                    self.ready.insert(Source::Channel(id));
                    false
                }
                Flush::Failed { errno, msg, .. } => {
                    self.on_send_failed(id, &msg, errno);
                    continue;
                }
            };
            let Some(peer) = self.peers.get_mut(&id) else { return };
            if peer.watched_for_write != blocked {
                peer.watched_for_write = blocked;
                let source = Source::Channel(id);
                self.changes.push_back(Change::Rewatch { source, writable: blocked });
            }
            return;
        }
    }

    fn on_send_failed(&mut self, worker: WorkerId, msg: &ToWorker, errno: i32) {
        let errno = roundel_core::Errno(errno);
        if let ToWorker::NewConn { first_seq, count, .. } = msg {
            for seq in first_seq.following(*count) {
                self.input(Input::HandoffFailed { worker, seq, errno });
            }
        }
    }

    fn retry_later(&mut self) {
        self.retry_at.get_or_insert(self.now.after(RETRY));
    }

    /// Tries again whatever failed for want of descriptors or memory.
    fn retry(&mut self) {
        self.retry_at = None;
        self.unsent
            .extend(self.peers.iter().filter(|(_, p)| p.link.has_unsent()).map(|(id, _)| *id));
        self.retry_doors();
        if std::mem::take(&mut self.control_starved) {
            self.ready.insert(Source::Control);
        }
    }

    fn on_signals(&mut self) {
        for _ in 0..SIGNALS_PER_TURN {
            let Some(signal) = self.signals.read() else { return };
            match signal {
                Signal::Child => self.reap(),
                Signal::Terminate | Signal::Interrupt => self.ask_to_stop(),
                Signal::ReopenLogs => {
                    if let Some(events) = &mut self.events {
                        events.reopen();
                    }
                }
                Signal::Quit => {
                    self.stop_asked = true;
                    self.input(Input::Command(roundel_core::Command::StopNow));
                }
                Signal::Upgrade => self.say("upgrade is not available yet; SIGUSR2 is ignored"),
                Signal::CpuTime => self.say(
                    "SIGXCPU: the limit on CPU time is reached; at the hard one the kernel kills",
                ),
                Signal::Other => {}
                Signal::Hangup => self.say("reload is not available yet; SIGHUP is ignored"),
                Signal::MoreWorkers | Signal::FewerWorkers => {
                    self.say("scaling is not available yet; SIGTTIN and SIGTTOU are ignored");
                }
            }
        }
        // The descriptor is ready still, which nobody tells again.
        self.ready.insert(Source::Signals);
    }

    fn ask_to_stop(&mut self) {
        use roundel_core::Command;
        let again = std::mem::replace(&mut self.stop_asked, true);
        self.input(Input::Command(if again { Command::StopNow } else { Command::Stop }));
    }

    fn input(&mut self, input: Input) {
        self.core.input(self.now, input);
    }

    /// Carries out all outputs, with what they bring about, then sends what is to be sent.
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

    fn close_link(&mut self, id: WorkerId) {
        if self.peers.remove(&id).is_some() {
            self.changes.push_back(Change::Unwatch { source: Source::Channel(id) });
        }
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

    /// Nothing more is recorded, for this reason.
    fn unrecorded(&mut self, why: &str) {
        self.say(why);
        self.log(|at_ms| report::Line::new(at_ms, "journal_stopped").with("cause", why));
    }

    /// Says what there is to say once every wanted worker is ready for the first time.
    fn welcome(&mut self) {
        let Some(welcome) = self.welcome else { return };
        let ready = self.core.workers().filter(|worker| worker.life == Life::Ready);
        let pids: Vec<i32> = ready.filter_map(|worker| worker.pid).collect();
        if pids.len() < *self.core.config().workers() as usize {
            return;
        }
        self.welcome = None;
        let listeners = self.core.listeners();
        let addresses =
            listeners.filter_map(|listener| Some(text::printable(&listener.sockname?.to_string())));
        let name = self.console.name();
        let welcome = welcome(&Welcome { addresses: addresses.collect(), pids, name });
        self.console.show(&welcome);
    }

    fn say(&self, words: &str) {
        self.console.say(words);
    }

    /// Where it says what it has to say, also once it has ended.
    pub fn console(&self) -> Console {
        self.console.clone()
    }

    fn end_if_stopped(&mut self) {
        // What leaders left behind has its second, but no longer than until the deadline.
        if !self.groups.have_ended() {
            return;
        }
        let Some(verdict) = self.verdict.take() else { return };
        if let Some(why) = self.core.end_journal() {
            self.unrecorded(&why);
        }
        if let Some(events) = self.events.take() {
            events.finish(std::time::Duration::from_secs(1));
        }
        self.control = None;
        self.exit = Some(match verdict {
            Verdict::Stopped => Exit::Stopped,
            Verdict::CrashLoop => {
                self.say("crash loop: every worker slot failed too often; giving up");
                Exit::CrashLoop
            }
            Verdict::CannotBind { .. } => Exit::CannotBind,
            Verdict::ProgramMissing => {
                let program = self.program.path.to_string_lossy().into_owned();
                // If the file is there, what it needs to be loaded is not.
                let there = Path::new(&program).exists();
                let why = if there {
                    "its interpreter or loader does not exist"
                } else {
                    "no such program"
                };
                self.say(&format!("{program}: {why}"));
                Exit::ProgramMissing
            }
            Verdict::NotExecutable { errno } => {
                let program = self.program.path.to_string_lossy().into_owned();
                let why = report::explain(errno.0);
                self.say(&format!("{program}: cannot be executed: {why}"));
                Exit::NotExecutable
            }
            other => {
                self.say(&other.to_string());
                Exit::Failure
            }
        });
        self.console.flush();
    }
}
