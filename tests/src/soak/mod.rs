//! Long runs of a real primary under load: the clients, what is looked at, and what the event log
//! must show.

pub mod cells;
pub mod clients;
pub mod primary;
pub mod readiness;
