//! The operating system: sockets, descriptors over SCM_RIGHTS, processes and their groups, signals,
//! limits, the clock.
//!
//! Nothing here knows the protocol's machines: what they decide is carried out by
//! [`primary`](crate::primary) and [`worker`](crate::worker).

pub mod channel;
pub mod clock;
pub mod group;
pub mod limits;
pub mod process;
pub(crate) mod reserve;
pub(crate) mod same_file;
pub mod signals;
pub mod sock_diag;
pub mod socket;
pub(crate) mod sys;
pub mod transmit;
pub(crate) mod unix_path;
