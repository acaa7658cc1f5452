//! Scenarios over the real binaries: real processes, real sockets, real kills.

mod addresses;
mod cells;
mod cli;
mod configuration;
mod console;
mod control;
mod harness;
mod hostile;
mod journal;
mod leaving;
mod life;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod operate;
mod pair;
mod place;
mod program;
mod reload;
mod resources;
mod serving;
mod shutdown;
mod signals;
mod starting;
mod systemd;
