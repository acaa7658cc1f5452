//! Scenarios over the real binary: real processes, real sockets, real kills.

mod control;
mod harness;
mod hostile;
mod life;
mod limits;
mod program;
mod serving;
mod shutdown;
