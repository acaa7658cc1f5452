//! Views of a primary: what operators see of it, which states behave alike, and what must hold
//! after every input. Nothing here changes it.

#[cfg(feature = "inspect")]
mod canonical;
#[cfg(feature = "inspect")]
mod check;
mod status;

#[cfg(feature = "inspect")]
pub use canonical::{Canonical, CanonicalView};
#[cfg(feature = "inspect")]
pub use check::Broken;
pub use status::{ListenerStatus, Totals, WorkerStatus};
