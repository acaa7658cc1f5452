//! What a primary sets up before its first turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roundel_core::{Codec, Custody, Primary};

use super::binds::SocketFiles;
use super::count::Counter;
use super::helpers;
use super::machine::Machine;
use super::metrics::Metrics;
use super::notify::Manager;
use super::output::Output;
use super::programs::Programs;
use super::reload::Reloading;
use super::store::Stored;
use super::waiting::Waiting;
use super::{PrimaryDriver, Source};
use crate::observe::console::Console;
use crate::observe::control::{ControlServer, Where};
use crate::observe::eventlog::EventLog;
use crate::observe::journal::Journal;
use crate::observe::output::OutputLog;
use crate::observe::same_file;
use crate::primary::setup::{Setup, StartError};
use crate::unix::clock;
use crate::unix::group::{Groups, Naming};
use crate::unix::limits::{self, OpenFiles};
use crate::unix::outputs::Outputs;
use crate::unix::passed::Passed;
use crate::unix::process::{self, ChannelVariables};
use crate::unix::reserve::Reserve;
use crate::unix::signals::Signals;
use crate::unix::socket::Inherited;
use crate::unix::sys;
use crate::unix::user::Identity;

/// The descriptors that the start of a worker needs for a moment: the two ends of the channel,
/// standard input, the two ends of the pipe by which the child reports that it could not exec, and
/// one as a margin.
const SPAWN_FDS: usize = 6;

/// The ends of the two pipes of a worker whose output is read.
const PIPE_FDS: usize = 4;

impl PrimaryDriver {
    /// Takes over the process: signals, limits, control socket, and the scheduling policy of this
    /// thread (see [`process::schedule_in_batches`]). The first turn binds the operator's listeners
    /// and starts the workers: by then the event loop is set up; if it could not be, no workers are
    /// left behind.
    ///
    /// # Errors
    /// [`StartError`] names what could not be set up. Listeners that can't be bound and programs
    /// that do not exist are reported by [`finished`](PrimaryDriver::finished) instead.
    pub fn start(mut setup: Setup) -> Result<PrimaryDriver, StartError> {
        let blocked = crate::unix::signals::block();
        // Without the standard three, which stay open.
        let open = limits::open_fds().unwrap_or(0).saturating_sub(3) as u64;
        let inherited = Inherited::snapshot();
        // If it is forbidden, everything still works, at a higher cost.
        let _ = process::schedule_in_batches();
        let passed = Passed::to_process();
        setup.complete(&passed)?;
        let files = OpenFiles::raise().map_err(StartError::Limits)?;
        let room = setup.room(files.soft(), open);
        let (config, clients) = room.fit(&setup.config, 0)?;
        let places = if config.listen_fds() { config.listeners().len() } else { 0 };
        let occupied = sys::occupy(places).map_err(StartError::Limits)?;
        inherited.pass_on(|number| process::is_kept(number, config.listeners()));
        let signals = blocked.and_then(|_| Signals::open()).map_err(StartError::Signals)?;
        let spawn_fds = match setup.outputs() {
            Outputs::Inherited => SPAWN_FDS + places,
            Outputs::Piped => SPAWN_FDS + PIPE_FDS + places,
        };
        let spawn_reserve = Reserve::take(spawn_fds).map_err(StartError::Limits)?;
        let spare = Reserve::take(1).map_err(StartError::Limits)?;
        let console = match setup.quiet {
            true => Console::silent(),
            false => Console::open(setup.name).map_err(StartError::Console)?,
        };
        (setup.prepare)().map_err(StartError::EventLoop)?;
        // What is made from here on belongs to the user who serves, and can be opened anew later.
        let identity = setup.identity.as_ref();
        let assumed = identity.map(Identity::assume).transpose().map_err(StartError::User)?;
        let (events, journal) = (setup.events.as_ref(), setup.journal.as_ref());
        let log_file = setup.log_file.as_deref();
        if let Some((one, other, path)) = same_file::find(&setup.control, events, journal, log_file)
        {
            return Err(StartError::SameFile { one, other, path });
        }
        let (mut control, uncontrolled) = match &setup.control {
            Where::Off => (None, None),
            Where::Path(path) => {
                (Some(ControlServer::bind(Some(path)).map_err(StartError::Control)?), None)
            }
            // The operator did not ask for this place, so a failure is no reason not to serve.
            Where::Default => match ControlServer::bind(None) {
                Ok(control) => (Some(control), None),
                Err(error) => (None, Some(error)),
            },
        };
        if let Some(control) = &mut control {
            control.limit_clients(clients);
        }
        let metrics = match &setup.metrics {
            Some(address) => {
                let metrics = Metrics::open(address, config.workers());
                let refused = |errno| StartError::Metrics { address: address.clone(), errno };
                Some(metrics.map_err(refused)?)
            }
            None => None,
        };
        let variables = match (setup.codec, config.pass_listeners()) {
            (_, true) => ChannelVariables::NodeChild,
            (Some(Codec::Native), _) => ChannelVariables::Native,
            (Some(Codec::Node), _) => ChannelVariables::Node,
            _ => ChannelVariables::Either,
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
        let output = match setup.outputs() {
            Outputs::Inherited => None,
            Outputs::Piped => {
                let log = OutputLog::open(setup.log_format, log_file, setup.name, &console);
                Some(Output::new(log.map_err(StartError::LogFile)?))
            }
        };
        drop(assumed);
        let socket_files = SocketFiles::new(setup.socket_files());
        let helpers = helpers::signal().map_err(StartError::Limits)?;
        let mut driver = PrimaryDriver {
            core: Machine::new(Primary::new(config), journal, console.clone()),
            now,
            started: now,
            custody: Custody::new(),
            programs: Programs::new(setup.program, setup.per_slot),
            reloading: Reloading::new(setup.reread, helpers.clone()),
            waiting: Waiting::default(),
            room,
            inherited,
            files,
            spawn_reserve,
            spare,
            signals,
            control,
            control_starved: false,
            metrics,
            events,
            manager: Manager::of_process(now),
            stored: Stored::of(passed),
            socket_files,
            identity: setup.identity,
            begun: false,
            _occupied: occupied,
            output,
            welcome: setup.welcome,
            codec: setup.codec,
            variables,
            console,
            hinted: false,
            peers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            awaiting_room: BTreeSet::new(),
            want_said: false,
            pids: BTreeMap::new(),
            workers_by_pid: BTreeMap::new(),
            groups: Groups::new(Naming::Best),
            counter: Counter::new(helpers.clone()),
            sample_at: now,
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
            driver.say(note);
        }
        let signals = driver.signals.fd().map_err(StartError::Signals)?;
        driver.watch(Source::Signals, signals);
        driver.watch(Source::Helpers, helpers);
        if let Some(control) = &driver.control {
            let fd = control.fd().clone();
            driver.say(&format!("control socket {}", control.path().display()));
            driver.watch(Source::Control, fd);
        }
        if let Some(metrics) = &driver.metrics {
            let fd = metrics.fd();
            driver.say(&format!("metrics at {}", metrics.place()));
            driver.watch(Source::Metrics, fd);
        }
        if let Some(error) = uncontrolled {
            driver.say(&format!(
                "running without a control socket: {error} (--control PATH makes it elsewhere, \
                 --control off omits it)"
            ));
        }
        Ok(driver)
    }
}
