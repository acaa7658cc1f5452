//! Options with a few possible values.

use serde::{Deserialize, Serialize};

use crate::Signal;

/// How connections are accepted and distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Policy {
    /// The primary accepts, and hands off to the worker with the fewest in flight; among equals, to
    /// the one that has had that number longest.
    #[default]
    RoundRobin,
    /// Workers accept on one shared listener; the kernel chooses which one it wakes.
    Shared,
}

impl Policy {
    /// All there are.
    pub const ALL: [Policy; 2] = [Policy::RoundRobin, Policy::Shared];

    /// Whether workers accept themselves: then the primary sees no connections.
    pub const fn workers_accept(self) -> bool {
        match self {
            Policy::RoundRobin => false,
            Policy::Shared => true,
        }
    }

    /// As the command line and `status` write it.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::RoundRobin => "round-robin",
            Policy::Shared => "shared",
        }
    }
}

/// What happens to a connection when a listener has as many pending as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Overflow {
    /// Stop accepting: the kernel's backlog takes over.
    #[default]
    Wait,
    /// Accept and close, counted.
    Refuse,
}

impl Overflow {
    /// All there are.
    pub const ALL: [Overflow; 2] = [Overflow::Wait, Overflow::Refuse];

    /// As the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Overflow::Wait => "wait",
            Overflow::Refuse => "refuse",
        }
    }
}

/// Which exits are followed by a new worker in the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Respawn {
    /// Every exit that the primary did not ask for.
    #[default]
    Always,
    /// Not a voluntary leave, nor exit code 0.
    OnFailure,
    /// No exit.
    Never,
}

impl Respawn {
    /// All there are.
    pub const ALL: [Respawn; 3] = [Respawn::Always, Respawn::OnFailure, Respawn::Never];

    /// As the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Respawn::Always => "always",
            Respawn::OnFailure => "on-failure",
            Respawn::Never => "never",
        }
    }
}

/// How to tell a Node worker to leave if its program expects a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StopSignal {
    /// By a signal; workers that have not spoken yet get it too.
    Signal(Signal),
    /// By the message `'shutdown'`, as under PM2.
    Message,
}

impl StopSignal {
    /// As the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            StopSignal::Signal(signal) => signal.name(),
            StopSignal::Message => "message",
        }
    }
}
