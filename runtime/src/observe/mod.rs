//! What a primary reports: of itself on standard error, in the event log, the journal, the control
//! socket and the status; of its workers what they print.
//!
//! Nothing here decides anything about workers or connections, and no reader or disk, however slow,
//! holds up serving.

pub mod console;
pub mod control;
pub mod eventlog;
#[cfg(feature = "primary")]
pub mod journal;
mod lines;
#[cfg(feature = "primary")]
pub(crate) mod metrics;
pub mod output;
#[cfg(feature = "primary")]
pub(crate) mod same_file;
pub mod status;
