//! What every Roundel adapter shares: sockets, channels with SCM_RIGHTS, processes, the drivers of
//! both machines. Nothing here waits; an adapter brings the event loop.

pub mod address;
pub mod exit;
pub mod observe;
pub mod outbox;
pub mod primary;
pub mod text;
pub mod unix;
pub mod worker;
