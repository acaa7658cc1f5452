//! The primary for programs that run as their own workers.

use std::ffi::OsString;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use roundel_core::{Address, Config, ConfigBuilder, limits};

use crate::exit::Exit;
use crate::observe::control::Where;
use crate::observe::eventlog::Target;
use crate::observe::journal;
use crate::observe::output::Format;
use crate::primary::bind::Bind;
use crate::primary::driver::PrimaryDriver;
use crate::primary::setup::Setup;
use crate::unix::process::Program;

/// True if this process must be the primary: no primary has started it.
pub fn is_primary() -> bool {
    !crate::worker::is_worker()
}

/// An adapter's event loop.
pub trait EventLoop {
    /// Starts the loop's own threads: see [`Setup::prepare`].
    ///
    /// # Errors
    /// If they can't be started.
    fn prepare() -> io::Result<()> {
        Ok(())
    }

    /// Runs a primary to its end.
    ///
    /// # Errors
    /// If the loop can't wait any more; no input causes that.
    fn run(driver: PrimaryDriver) -> io::Result<Exit>;
}

/// A primary whose workers run this same executable, with the same arguments.
///
/// Each adapter has its own name for it, with its event loop, and an example.
#[derive(Debug)]
pub struct Primary<L> {
    program: Program,
    config: ConfigBuilder,
    binds: Vec<Bind>,
    control: Where,
    events: Option<PathBuf>,
    journal: Option<journal::Target>,
    metrics: Option<Address>,
    log_format: Format,
    log_file: Option<PathBuf>,
    quiet: bool,
    event_loop: PhantomData<L>,
}

impl<L: EventLoop> Primary<L> {
    /// A primary of this executable, with as many workers as there are cores and otherwise the
    /// defaults of the command line.
    ///
    /// # Errors
    /// If the path of this executable can't be found out.
    pub fn new() -> io::Result<Primary<L>> {
        let args = std::env::args_os().skip(1).collect();
        Ok(Primary::of(std::env::current_exe()?.into_os_string(), args))
    }

    /// A primary of another program.
    pub fn of(program: OsString, args: Vec<OsString>) -> Primary<L> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = u32::try_from(cores).unwrap_or(1).min(*limits::workers().end());
        Primary {
            program: Program { path: program, args, ..Program::default() },
            config: Config::builder().workers(workers),
            binds: Vec::new(),
            control: Where::Default,
            events: None,
            journal: None,
            metrics: None,
            log_format: Format::Raw,
            log_file: None,
            quiet: false,
            event_loop: PhantomData,
        }
    }

    /// How many workers to keep: see [`Config::workers`].
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.config = self.config.workers(workers);
        self
    }

    /// Listens on an address before the first worker starts, as `--bind` does: see [`Bind::parse`].
    ///
    /// # Errors
    /// `InvalidInput` if the address can't be parsed.
    pub fn bind(mut self, at: &str) -> io::Result<Self> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
        self.binds.push(Bind::parse(at).map_err(invalid)?);
        Ok(self)
    }

    /// Serves metrics over HTTP at an address, as `--metrics` does.
    ///
    /// # Errors
    /// `InvalidInput` if the address can't be parsed.
    pub fn metrics(mut self, at: &str) -> io::Result<Self> {
        self.metrics = Some(parse(at)?);
        Ok(self)
    }

    /// How long a drain may take.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.config = self.config.drain_timeout(timeout);
        self
    }

    /// Changes any other part of the configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        self.config = change(self.config);
        self
    }

    /// Where the control socket is, instead of the default place. If it can't be made there, the
    /// primary does not start; if it can't be made at the default place, the primary starts without
    /// it.
    #[must_use]
    pub fn control(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Where::Path(path.into());
        self
    }

    /// Makes no control socket.
    #[must_use]
    pub fn without_control(mut self) -> Self {
        self.control = Where::Off;
        self
    }

    /// Writes the event log to a file.
    #[must_use]
    pub fn events(mut self, path: impl Into<PathBuf>) -> Self {
        self.events = Some(path.into());
        self
    }

    /// Records the run for `roundel replay` in a file, which is replaced; after 1 GiB the recording
    /// ends, and the run goes on.
    #[must_use]
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        let limit = journal::DEFAULT_LIMIT;
        self.journal = Some(journal::Target { path: path.into(), limit });
        self
    }

    /// The form of what workers print: see [`Setup::log_format`].
    #[must_use]
    pub fn log_format(mut self, format: Format) -> Self {
        self.log_format = format;
        self
    }

    /// Appends what workers print to a file; SIGUSR1 opens it anew.
    #[must_use]
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_file = Some(path.into());
        self
    }

    /// Prints nothing on standard error.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs the primary until it has stopped. Call it before other threads exist: it takes over the
    /// process's signals.
    ///
    /// # Errors
    /// If the primary can't be started: `Other` with the reason; or if epoll(7) fails.
    pub fn run(self) -> io::Result<Exit> {
        let mut setup = Setup::new("roundel", self.program, self.config);
        setup.binds = self.binds;
        setup.control = self.control;
        setup.events = self.events.map(Target::Path);
        setup.journal = self.journal;
        setup.metrics = self.metrics;
        setup.log_format = self.log_format;
        setup.log_file = self.log_file;
        setup.quiet = self.quiet;
        setup.prepare = L::prepare;
        L::run(PrimaryDriver::start(setup).map_err(io::Error::other)?)
    }
}

fn parse(at: &str) -> io::Result<Address> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
    crate::address::parse(at).map_err(invalid)
}
