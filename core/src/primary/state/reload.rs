//! What the primary knows about a reload.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Address, Config, Errno, ExitClass, ExitStatus, ListenerId, Slot, SpawnError, Time, WorkerId,
};

/// A reload that is under way, or the recycling of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Reload {
    pub(crate) generation: u32,
    /// The worker that is recycled, and its slot: the new one is of the same generation.
    pub(crate) recycled: Option<(WorkerId, Slot)>,
    /// The slots that come later, the next ones first.
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) batch: Vec<Replacement>,
    /// How many slots were replaced.
    pub(crate) done: u32,
    /// How many slots there were at the start.
    pub(crate) total: u32,
    /// When the batch must count.
    pub(crate) deadline: Option<Time>,
    /// How many workers were ready when the batch began.
    pub(crate) ready_before: u32,
    pub(crate) failure: Option<ReloadFailure>,
    /// The configuration to go back to if no batch counts.
    pub(crate) before: Option<Box<Config>>,
    /// The operator has chosen a number of workers since it was asked for.
    pub(crate) scaled: bool,
    /// New listeners of the operator that are not bound yet.
    pub(crate) binding: BTreeSet<ListenerId>,
}

/// A slot of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Replacement {
    pub(crate) slot: Slot,
    /// The old worker, which must end before the new one starts.
    pub(crate) ends_first: Option<WorkerId>,
    /// The listeners that the new worker must share.
    pub(crate) needs: BTreeSet<ListenerId>,
    /// The old worker's program said that it is ready.
    pub(crate) says_ready: bool,
    /// Since when the new worker is as ready as the old one was.
    pub(crate) since: Option<Time>,
}

/// A reload that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct NextReload {
    pub(crate) generation: u32,
    pub(crate) config: Option<Box<Config>>,
    /// The operator has chosen a number of workers since it was asked for.
    pub(crate) scaled: bool,
}

/// One of the last reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReloadRecord {
    /// The generation that it was to make.
    pub generation: u32,
    /// When it began.
    pub began: Time,
    /// When it ended, if it has.
    pub ended: Option<Time>,
    /// Why it failed, if it did.
    pub failure: Option<ReloadFailure>,
}

/// Why a reload failed: the first cause.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReloadFailure {
    /// A new worker ended.
    Ended {
        /// Its slot.
        slot: Slot,
        /// How the process ended; `None` if it is stuck in the kernel.
        status: Option<ExitStatus>,
        /// What that means.
        class: ExitClass,
    },
    /// A new worker could not be started.
    NotStarted {
        /// Its slot.
        slot: Slot,
        /// Why.
        cause: SpawnError,
    },
    /// A new worker announced that it leaves, or that it fails.
    Left {
        /// Its slot.
        slot: Slot,
    },
    /// A new worker did not get as ready as its predecessor within the ready timeout.
    NotReady {
        /// Its slot.
        slot: Slot,
        /// A listener that its predecessor has and it does not listen on.
        missing: Option<Address>,
    },
    /// The new workers were ready in time, but so many others had failed that the old ones could
    /// not be spared.
    TooFewReady,
    /// A new listener could not be bound.
    CannotBind {
        /// Where.
        address: Address,
        /// Why.
        errno: Errno,
    },
    /// The new configuration changes what can't change while the primary runs.
    Fixed {
        /// The field.
        field: FixedField,
    },
    /// A shutdown came.
    Stopped,
    /// A later reload took its place before it began.
    Superseded,
}

/// What a reload can't change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FixedField {
    /// [`Config::policy`].
    Policy,
    /// [`Config::pass_listeners`].
    PassListeners,
}

impl fmt::Display for FixedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FixedField::Policy => "policy",
            FixedField::PassListeners => "pass_listeners",
        })
    }
}

impl fmt::Display for ReloadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadFailure::Ended { slot, status, class } => {
                write!(f, "the new worker of slot {slot} ended ({}", class.name())?;
                match status {
                    Some(status) => write!(f, ", {status})"),
                    None => f.write_str(")"),
                }
            }
            ReloadFailure::NotStarted { slot, cause } => {
                write!(f, "the new worker of slot {slot} could not be started: {cause}")
            }
            ReloadFailure::Left { slot } => {
                write!(f, "the new worker of slot {slot} announced that it leaves")
            }
            ReloadFailure::NotReady { slot, missing: None } => {
                write!(f, "the new worker of slot {slot} was not ready in time")
            }
            ReloadFailure::NotReady { slot, missing: Some(address) } => {
                write!(f, "the new worker of slot {slot} did not listen on {address} in time")
            }
            ReloadFailure::TooFewReady => {
                f.write_str("too few other workers were ready to let the old ones go")
            }
            ReloadFailure::CannotBind { address, errno } => {
                write!(f, "cannot bind {address}: {errno}")
            }
            ReloadFailure::Fixed { field } => {
                write!(f, "{field} can't change while the primary runs")
            }
            ReloadFailure::Stopped => f.write_str("the primary is stopping"),
            ReloadFailure::Superseded => f.write_str("a later reload took its place"),
        }
    }
}

impl core::error::Error for ReloadFailure {}
