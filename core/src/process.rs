//! What the primary sends to a worker's process, and how that ended.

use serde::{Deserialize, Serialize};

/// The signals that the primary sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM, to the process.
    Term,
    /// SIGINT, to the process.
    Interrupt,
    /// SIGHUP, to the process.
    Hangup,
    /// SIGUSR2, to the process.
    User2,
    /// SIGKILL, to the process group.
    Kill,
}

impl Signal {
    /// As the event log writes it: the name without its first three letters.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Interrupt => "INT",
            Signal::Hangup => "HUP",
            Signal::User2 => "USR2",
            Signal::Kill => "KILL",
        }
    }
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitClass {
    /// It had announced that it leaves, or the primary had told it to.
    Voluntary,
    /// It exited with code 0 and had not announced that.
    Clean,
    /// It exited with another code.
    Crashed,
    /// A signal ended it that the primary did not send.
    Killed,
    /// The primary killed it: it never became ready.
    NeverReady,
    /// The primary killed it: it did not answer.
    Unresponsive,
    /// The primary killed it for what it sent.
    Violations,
    /// The primary killed it: it did not leave in time.
    Overdue,
    /// It was never started.
    SpawnFailed,
}

impl ExitClass {
    /// As `status` and the event log write it.
    pub const fn name(self) -> &'static str {
        match self {
            ExitClass::Voluntary => "voluntary",
            ExitClass::Clean => "clean",
            ExitClass::Crashed => "crashed",
            ExitClass::Killed => "killed",
            ExitClass::NeverReady => "never_ready",
            ExitClass::Unresponsive => "unresponsive",
            ExitClass::Violations => "violations",
            ExitClass::Overdue => "overdue",
            ExitClass::SpawnFailed => "spawn_failed",
        }
    }
}
