//! The binaries `roundel` and `roundel-smol`, apart from their event loops.

mod client;
mod command_line;
pub mod demo;
pub mod launch;
mod program;
mod replay;
mod stderr;
mod top;
