//! What a primary reports about itself: standard error, the event log, the journal, the control
//! socket and the status.
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
pub(crate) mod same_file;
pub mod status;
