//! The primary's records: what it knows about each worker, slot and listener, and the questions
//! that one record alone can answer. Nothing here decides anything, or sees more than one record.

mod listener;
mod reload;
mod slot;
mod worker;

pub(crate) use listener::{Asker, ListenerRecord, ListenerState, Pending};
pub use reload::{FixedField, ReloadFailure, ReloadRecord};
pub(crate) use reload::{NextReload, Reload, Replacement};
pub use slot::LastExit;
pub(crate) use slot::{SlotRecord, SlotState};
pub(crate) use worker::{Cool, InFlight, Share, WorkerKind, WorkerRecord};
