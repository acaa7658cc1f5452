//! What every Roundel adapter shares: sockets, channels with SCM_RIGHTS, processes, the drivers of both machines.
//! Nothing here waits; an adapter brings the event loop.

pub mod address;
pub mod channel;
pub mod clock;
pub mod console;
pub mod control;
pub mod demo;
pub mod eventlog;
pub mod exit;
pub mod group;
mod host;
pub mod journal;
pub mod limits;
mod lines;
pub mod link;
pub mod outbox;
pub mod primary;
pub mod process;
mod reserve;
mod same_file;
pub mod setup;
pub mod shell;
pub mod signals;
pub mod sock_diag;
pub mod socket;
pub mod status;
mod sys;
pub mod text;
mod unix_path;
pub mod worker;
