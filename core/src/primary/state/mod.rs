//! The primary's records: what it knows of each worker, slot and listener, and what can be asked of
//! one of them alone. Nothing here decides, or sees more than one record.

mod listener;
mod slot;
mod worker;

pub(crate) use listener::{Asker, ListenerRecord, ListenerState, Pending};
pub use slot::LastExit;
pub(crate) use slot::{SlotRecord, SlotState};
pub(crate) use worker::{Cool, InFlight, Share, WorkerKind, WorkerRecord};
