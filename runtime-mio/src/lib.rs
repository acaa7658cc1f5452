//! Roundel on mio.

pub mod demo;
pub mod reactor;
mod worker;

pub use worker::Worker;
