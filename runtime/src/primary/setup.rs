//! What a primary is started with, whether by the command line or by a program's own code.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use roundel_core::{Codec, Config, ConfigBuilder, ConfigError, ListenKey};

use crate::observe::control::{ControlError, Where};
use crate::observe::eventlog::Target;
use crate::observe::journal;
use crate::observe::output::Format;
use crate::observe::same_file;
use crate::primary::bind::Bind;
use crate::unix::limits::{self, OpenFiles};
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
    /// Who the primary becomes once its listeners are bound; logs and the control socket are made
    /// as this user. `None` leaves everything as it is.
    pub identity: Option<Identity>,
    /// Where the control socket is.
    pub control: Where,
    /// Where the event log goes, if there is one.
    pub events: Option<Target>,
    /// Where the journal goes, if there is one.
    pub journal: Option<journal::Target>,
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
            log_format: Format::Raw,
            log_file: None,
            welcome: None,
            codec: None,
            listen_fds: true,
            quiet: false,
            prepare: || Ok(()),
            per_slot: PerSlot::default(),
            notes: Vec::new(),
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

    /// The checked configuration, in which connections and listeners fit into the limit on open
    /// files, and how many clients the control socket may have. `open` is the number of descriptors
    /// open before, besides the standard three.
    ///
    /// # Errors
    /// [`StartError`] if it is not valid, or if the limit leaves no room.
    pub(crate) fn config(
        &self,
        files: &OpenFiles,
        open: u64,
    ) -> Result<(Config, usize), StartError> {
        let draft = self.config.clone().build().map_err(StartError::Config)?;
        let (limit, workers) = (files.soft(), u64::from(draft.workers()));
        let listeners = draft.listeners().len() as u64;
        let shares = limits::divide(limit, open, workers, listeners, self.outputs())
            .map_err(|needed| StartError::TooFewFiles { limit, workers, listeners, needed })?;
        let config = self
            .config
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
            StartError::SameFile { one, other, path } => {
                write!(f, "{other}: {path:?} is also the file of {one}")
            }
            StartError::Console(error) => write!(f, "cannot start a thread: {error}"),
            StartError::EventLoop(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}
