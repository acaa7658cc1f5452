//! What can be found wrong, deliberate faults, and which of them breaks which guarantee.

pub mod fault;
pub mod mutants;
mod reloads;
pub mod table;
