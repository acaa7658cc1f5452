//! Roundel on mio.

pub mod reactor;
