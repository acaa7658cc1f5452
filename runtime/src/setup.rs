//! What a primary is started with, whether by the command line or by a program's own code.

use std::fmt;
use std::io;
use std::path::PathBuf;

use roundel_core::{Codec, Config, ConfigBuilder, ConfigError};

use crate::control::{ControlError, Where};
use crate::eventlog::Target;
use crate::journal;
use crate::limits::OpenFiles;
use crate::process::Program;
use crate::program::PerSlot;

/// A primary to be started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setup {
    /// With what each line on standard error begins: the name of the binary.
    pub name: &'static str,
    /// What the workers run.
    pub program: Program,
    /// The configuration of the machine; `max_held` is set from the limit on open files.
    pub config: ConfigBuilder,
    /// Where the control socket is.
    pub control: Where,
    /// Where the event log goes, if there is to be one.
    pub events: Option<Target>,
    /// Where the journal goes, if there is to be one.
    pub journal: Option<journal::Target>,
    /// Said on standard error once all wanted workers are ready for the first time; it is given
    /// the addresses of the listeners and the place of the control socket.
    pub welcome: Option<fn(&Welcome) -> String>,
    /// The codec that workers must speak; `None` lets each one choose.
    pub codec: Option<Codec>,
    /// Whether nothing is said on standard error.
    pub quiet: bool,
    /// What differs from slot to slot.
    pub(crate) per_slot: PerSlot,
    /// What is said first.
    pub(crate) notes: Vec<String>,
}

/// What can be said of a primary that has just become ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Welcome {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// The processes of its workers.
    pub pids: Vec<i32>,
    /// What the binary is called.
    pub name: &'static str,
}

/// Descriptors that the primary keeps free besides eight for each worker: its own sockets and
/// logs, and what a respawn opens for a moment.
const RESERVE: u64 = 32;

impl Setup {
    /// The checked configuration.
    ///
    /// # Errors
    /// [`StartError`] if it is not valid, or if the limit on open files leaves no room.
    pub(crate) fn config(&self, files: &OpenFiles) -> Result<Config, StartError> {
        let draft = self.config.clone().build().map_err(StartError::Config)?;
        let workers = u64::from(*draft.workers());
        let limit = files.soft();
        // Each worker's channel takes one; the rest of the reserve shrinks where it must.
        let room = limit.saturating_sub(RESERVE + 8 * workers);
        let tight = limit.saturating_sub(RESERVE / 2 + 2 * workers).min(8);
        let held = room.max(tight);
        if held == 0 {
            return Err(StartError::TooFewFiles { limit, workers });
        }
        let held = u32::try_from(held).unwrap_or(u32::MAX).min(*draft.max_held());
        self.config.clone().max_held(held).build().map_err(StartError::Config)
    }
}

/// Why a primary could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is not valid.
    Config(ConfigError),
    /// The limit on open files leaves no room for connections.
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// The wanted number of workers.
        workers: u64,
    },
    /// Signals could not be taken over.
    Signals(io::Error),
    /// The limit on open files could not be read.
    Limits(io::Error),
    /// The control socket could not be made.
    Control(ControlError),
    /// The event log could not be opened.
    Events(io::Error),
    /// The journal could not be opened.
    Journal(io::Error),
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
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::TooFewFiles { limit, workers } => write!(
                f,
                "the limit of {limit} open files is too low for {workers} workers (ulimit -n)"
            ),
            StartError::Signals(error) => write!(f, "cannot take over signals: {error}"),
            StartError::Limits(error) => write!(f, "cannot read the limit on open files: {error}"),
            StartError::Control(error) => write!(f, "--control: {error}"),
            StartError::Events(error) => write!(f, "--events: {error}"),
            StartError::Journal(error) => write!(f, "--journal: {error}"),
            StartError::SameFile { one, other, path } => {
                write!(f, "{other}: {path:?} is what {one} names as well")
            }
            StartError::Console(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
