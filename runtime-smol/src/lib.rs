//! Roundel on smol: the primary's event loop on async-io.

mod alarm;
pub mod reactor;
mod watch;
