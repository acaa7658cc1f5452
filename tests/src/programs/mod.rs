//! Real programs under test: what the worker programs share, what to look at from outside, and
//! what a machine may be without.

pub mod common;
pub mod observe;
pub mod optional;
pub mod terminal;
pub mod test_worker;
