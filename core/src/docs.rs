//! Pages on what lies between the machines and the system.

#[doc = include_str!("../docs/starting-workers.md")]
pub mod starting_workers {}

#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}
