//! Views of a primary: what operators see of it, which states behave alike, and what must hold
//! after every input. Nothing here changes it.

#[cfg(feature = "inspect")]
mod canonical;
#[cfg(feature = "inspect")]
mod check;
mod slots;
mod status;

#[cfg(feature = "inspect")]
pub use canonical::{Canonical, CanonicalView};
#[cfg(feature = "inspect")]
pub use check::Broken;
pub use slots::{SlotStage, SlotStatus};
pub use status::{ListenerStatus, Totals, WorkerStatus};
