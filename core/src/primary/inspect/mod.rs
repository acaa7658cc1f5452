//! Views of a primary: what operators see of it, which states behave alike, and what must hold
//! after every input. Nothing here changes it.

mod canonical;
mod check;
mod status;

pub use canonical::{Canonical, CanonicalView};
pub use check::Broken;
pub use status::{ListenerStatus, Totals, WorkerStatus};
