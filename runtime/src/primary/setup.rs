//! What a primary is started with, whether by the command line or by a program's own code.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use roundel_core::{Address, Codec, Config, ConfigBuilder, ConfigError, ListenKey};

use crate::observe::control::{ControlError, Where};
use crate::observe::eventlog::Target;
use crate::observe::journal;
use crate::observe::metrics::FDS;
use crate::observe::output::Format;
use crate::observe::same_file;
use crate::primary::bind::Bind;
use crate::unix::limits;
use crate::unix::outputs::Outputs;
use crate::unix::passed::Passed;
use crate::unix::process::{PerSlot, Program};
use crate::unix::unix_path::FileOptions;
use crate::unix::user::Identity;

/// A primary, ready to be started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setup {
    /// What each line on standard error begins with: the name of the binary.
    pub name: &'static str,
    /// What the workers run.
    pub program: Program,
    /// The configuration of the machine; `max_held` is set from the limit on open files.
    pub config: ConfigBuilder,
    /// The operator's listeners; if there are any, they replace those of `config`.
    pub binds: Vec<Bind>,
    /// The user that the primary becomes once its listeners are bound; logs and the control socket
    /// are made as this user. `None` leaves everything as it is.
    pub identity: Option<Identity>,
    /// Where the control socket is.
    pub control: Where,
    /// Where the event log goes, if there is one.
    pub events: Option<Target>,
    /// Where the journal goes, if there is one.
    pub journal: Option<journal::Target>,
    /// Where the metrics are served over HTTP, if they are: an IP address or the path of a unix
    /// socket.
    pub metrics: Option<Address>,
    /// The form of workers' output. [`Format::Raw`] without a `log_file` leaves it to the workers:
    /// they write directly to the primary's standard output and standard error.
    pub log_format: Format,
    /// The file that workers' output is appended to, instead of the primary's own outputs; a new
    /// one gets mode 0640.
    pub log_file: Option<PathBuf>,
    /// The message for standard error when all wanted workers are ready for the first time; the
    /// function gets the addresses of the listeners and the place of the control socket.
    pub welcome: Option<fn(&ReadyReport) -> String>,
    /// The codec that workers must speak; `None` lets each one choose.
    pub codec: Option<Codec>,
    /// Whether the program may be one that takes listeners from the service manager
    /// (sd_listen_fds(3)). Then, if workers accept by themselves and no codec is forced, workers
    /// are passed the operator's listeners in that way too.
    pub listen_fds: bool,
    /// Whether nothing is printed on standard error.
    pub quiet: bool,
    /// Starts the threads that the event loop needs for itself. It is called after the primary has
    /// taken over the signals, which no thread may take from it, and before anything else is made.
    pub prepare: fn() -> io::Result<()>,
    /// What differs from slot to slot.
    pub per_slot: PerSlot,
    /// Messages printed first.
    pub notes: Vec<String>,
    /// Finds out what a reload starts. Without it, new workers run the same program with the same
    /// configuration.
    pub reread: Option<Reread>,
}

/// Reads the configuration again, and looks the program up again.
#[derive(Clone)]
pub struct Reread(Arc<Read>);

type Read = dyn Fn(bool) -> Result<Fresh, String> + Send + Sync;

impl Reread {
    /// Calls this for each reload, on a thread of its own: it may wait. An error is one line for
    /// each reason against a reload. It is told whether it is only a dry run, which must change
    /// nothing.
    pub fn new(read: impl Fn(bool) -> Result<Fresh, String> + Send + Sync + 'static) -> Reread {
        Reread(Arc::new(read))
    }

    pub(crate) fn call(&self, dry_run: bool) -> Result<Fresh, String> {
        (self.0)(dry_run)
    }
}

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reread")
    }
}

/// What a reload starts.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fresh {
    /// What the new workers run.
    pub program: Program,
    /// The configuration of the machine, as in [`Setup::config`].
    pub config: ConfigBuilder,
    /// Differences between slots.
    pub per_slot: PerSlot,
    /// Messages printed first.
    pub notes: Vec<String>,
    /// What the files of the operator's unix sockets get, by their paths.
    pub(crate) socket_files: BTreeMap<String, FileOptions>,
}

impl Setup {
    /// The part that a reload can change.
    ///
    /// # Errors
    /// [`StartError::Bind`] if the service manager has not passed what `--bind sd:NAME` needs.
    pub fn into_fresh(mut self) -> Result<Fresh, StartError> {
        self.complete(&Passed::to_process())?;
        let socket_files = self.socket_files();
        let Setup { program, config, per_slot, notes, .. } = self;
        Ok(Fresh { program, config, per_slot, notes, socket_files })
    }

    /// Adds what other fields mean for the configuration and the program.
    pub(crate) fn complete(&mut self, passed: &Passed) -> Result<(), StartError> {
        if !self.binds.is_empty() {
            self.config = self.config.clone().listeners(self.listeners_of(passed)?);
        }
        self.config = self.config.clone().listen_fds(self.passes_listeners());
        if let Some(identity) = &self.identity {
            self.program.env.splice(0..0, identity.variables().iter().cloned());
        }
        Ok(())
    }
}

impl Fresh {
    /// New workers that run this program.
    pub fn new(program: Program, config: ConfigBuilder) -> Fresh {
        let (per_slot, notes, socket_files) = Default::default();
        Fresh { program, config, per_slot, notes, socket_files }
    }
}

impl Setup {
    /// A primary with this name on each line of standard error, whose workers run this program. The
    /// control socket is at the default place; there are no logs, no welcome and no notes.
    pub fn new(name: &'static str, program: Program, config: ConfigBuilder) -> Setup {
        Setup {
            name,
            program,
            config,
            binds: Vec::new(),
            identity: None,
            control: Where::Default,
            events: None,
            journal: None,
            metrics: None,
            log_format: Format::Raw,
            log_file: None,
            welcome: None,
            codec: None,
            listen_fds: true,
            quiet: false,
            prepare: || Ok(()),
            per_slot: PerSlot::default(),
            notes: Vec::new(),
            reread: None,
        }
    }
}

/// A report on a primary that has just become ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadyReport {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// The process ids of its workers.
    pub pids: Vec<i32>,
    /// The name of the binary.
    pub name: &'static str,
}

impl Setup {
    /// Whether the primary reads what workers print.
    pub(crate) fn outputs(&self) -> Outputs {
        match (self.log_format, &self.log_file) {
            (Format::Raw, None) => Outputs::Inherited,
            _ => Outputs::Piped,
        }
    }

    /// What its configurations have to fit into, if `open` descriptors are open before, besides the
    /// standard three.
    pub(crate) fn room(&self, limit: u64, open: u64) -> Room {
        // Clients of the metrics never take what connections need.
        let metrics = self.metrics.as_ref().map_or(0, |_| FDS as u64);
        Room { limit, open: open + metrics, outputs: self.outputs() }
    }

    /// Checks what can be checked without starting or binding anything.
    ///
    /// # Errors
    /// [`StartError::Config`] and [`StartError::SameFile`].
    pub fn check(&self) -> Result<(), StartError> {
        let mut config = self.config.clone();
        if !self.binds.is_empty() {
            let known = self.binds.iter().filter_map(Bind::address);
            config = config.listeners(known.cloned().map(ListenKey::stream).collect());
        }
        config.build().map_err(StartError::Config)?;
        let (events, journal) = (self.events.as_ref(), self.journal.as_ref());
        let log_file = self.log_file.as_deref();
        match same_file::find(&self.control, events, journal, log_file) {
            Some((one, other, path)) => Err(StartError::SameFile { one, other, path }),
            None => Ok(()),
        }
    }

    /// The operator's listeners, as the core knows them.
    ///
    /// # Errors
    /// [`StartError::Bind`] if the service manager has not passed what `--bind sd:NAME` needs.
    pub fn listeners(&self) -> Result<Vec<ListenKey>, StartError> {
        self.listeners_of(&Passed::to_process())
    }

    pub(crate) fn listeners_of(&self, passed: &Passed) -> Result<Vec<ListenKey>, StartError> {
        let keys: Result<Vec<_>, _> = self.binds.iter().map(|bind| bind.keys(passed)).collect();
        Ok(keys.map_err(StartError::Bind)?.concat())
    }

    /// Whether workers are passed the operator's listeners as a service manager would.
    pub(crate) fn passes_listeners(&self) -> bool {
        let wanted = self.listen_fds && self.codec.is_none() && !self.binds.is_empty();
        let config = self.config.clone().build();
        wanted && config.is_ok_and(|it| it.policy().workers_accept() && !it.pass_listeners())
    }

    /// What the files of unix sockets get. Without options they belong to the user who serves.
    pub(crate) fn socket_files(&self) -> BTreeMap<String, FileOptions> {
        let files = self.binds.iter().filter_map(Bind::file).map(|(path, mut file)| {
            if let Some((uid, gid)) = self.identity.as_ref().map(Identity::owner) {
                file.owner = file.owner.or(Some(uid));
                file.group = file.group.or(Some(gid));
            }
            (path.to_owned(), file)
        });
        files.collect()
    }
}

/// What of the limit on open files a configuration has to fit into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The limit.
    pub(crate) limit: u64,
    /// How many of it are taken otherwise.
    pub(crate) open: u64,
    /// Whether each worker has pipes too.
    pub(crate) outputs: Outputs,
}

impl Room {
    /// The checked configuration, in which connections and listeners fit into the limit on open
    /// files with so many workers or its own number, whichever is more, and how many clients the
    /// control socket may have.
    ///
    /// # Errors
    /// [`StartError`] if it is not valid, or if the limit leaves no room.
    pub(crate) fn fit(
        &self,
        config: &ConfigBuilder,
        workers: u32,
    ) -> Result<(Config, usize), StartError> {
        let draft = config.clone().build().map_err(StartError::Config)?;
        let (limit, workers) = (self.limit, u64::from(draft.workers().max(workers)));
        let listeners = draft.listeners().len() as u64;
        let shares = limits::divide(limit, self.open, workers, listeners, self.outputs)
            .map_err(|needed| StartError::TooFewFiles { limit, workers, listeners, needed })?;
        let config = config
            .clone()
            .max_held(shares.held.min(draft.max_held()))
            .max_listeners(shares.listeners.min(draft.max_listeners()))
            .build()
            .map_err(StartError::Config)?;
        Ok((config, shares.clients))
    }
}

/// Why a primary could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is not valid.
    Config(ConfigError),
    /// The service manager has not passed what an address needs: a line that names it.
    Bind(String),
    /// The primary can't become the user or group that was asked for.
    User(io::Error),
    /// The limit on open files leaves no room for connections.
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// How many workers the operator configured.
        workers: u64,
        /// How many listeners the operator gave.
        listeners: u64,
        /// The lowest limit that would do.
        needed: u64,
    },
    /// Signals could not be taken over.
    Signals(io::Error),
    /// The limit on open files could not be read, or the reserve descriptors could not be opened.
    Limits(io::Error),
    /// The control socket could not be made.
    Control(ControlError),
    /// The event log could not be opened.
    Events(io::Error),
    /// The journal could not be opened.
    Journal(io::Error),
    /// The log of workers' output could not be opened.
    LogFile(io::Error),
    /// The address of the metrics could not be bound.
    Metrics {
        /// The address.
        address: Address,
        /// Why.
        errno: roundel_core::Errno,
    },
    /// Two options name one file.
    SameFile {
        /// One option.
        one: &'static str,
        /// The other one.
        other: &'static str,
        /// The file, as the other one names it.
        path: PathBuf,
    },
    /// The thread that writes to standard error could not be started.
    Console(io::Error),
    /// The event loop could not set up what it needs for itself.
    EventLoop(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(ConfigError::Overlap(it)) if it.wide == it.narrow => {
                write!(f, "--bind {}: given twice; give it once", it.wide)
            }
            StartError::Config(ConfigError::Overlap(it)) => write!(
                f,
                "--bind {1}: --bind {0} already includes it; give --bind {0} alone",
                it.wide, it.narrow
            ),
            StartError::Config(error) => error.fmt(f),
            StartError::TooFewFiles { limit, workers, listeners, needed } => write!(
                f,
                "the limit of {limit} open files (ulimit -n) is too low for {workers} workers and \
                 {listeners} listeners, which need {needed}"
            ),
            StartError::Bind(line) => f.write_str(line),
            StartError::User(error) => {
                write!(f, "--user, --group: {error} (only root can become another user)")
            }
            StartError::Signals(error) => write!(f, "cannot set up signal handling: {error}"),
            StartError::Limits(error) => write!(f, "the limit on open files: {error}"),
            StartError::Control(error) => write!(f, "--control: {error}"),
            StartError::Events(error) => write!(f, "--events: {error}"),
            StartError::Journal(error) => write!(f, "--journal: {error}"),
            StartError::LogFile(error) => write!(f, "--log-file: {error}"),
            StartError::Metrics { address, errno } => {
                write!(f, "--metrics {address}: {}", Errno::from_raw(errno.0).desc())
            }
            StartError::SameFile { one, other, path } => {
                write!(f, "{other}: {path:?} is also the file of {one}")
            }
            StartError::Console(error) => write!(f, "cannot start a thread: {error}"),
            StartError::EventLoop(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_the_metrics_leave_less_room_for_connections() {
        let mut setup =
            Setup::new("test", Program::default(), Config::builder().max_held(u32::MAX));
        let without = setup.room(4_096, 0).fit(&setup.config, 0).unwrap();
        setup.metrics = Some("127.0.0.1:0".parse().unwrap());
        let with = setup.room(4_096, 0).fit(&setup.config, 0).unwrap();
        assert_eq!(without.0.max_held() - with.0.max_held(), FDS as u32);
        assert_eq!(without.1, with.1);
    }
}
