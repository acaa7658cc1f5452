//! An exhaustive search: every state that a small cluster around the real primary can reach.
//!
//! `docs/model-check.md` says what is searched, what is looked at, and what that proves.

pub mod act;
pub mod action;
pub mod bounds;
pub mod bug;
pub mod enabled;
pub mod execute;
pub mod fingerprint;
pub mod goals;
pub mod known;
pub mod probe;
pub mod process;
pub mod reference;
pub mod report;
pub mod restarts;
pub mod search;
pub mod settle;
pub mod world;
