//! The operating system: sockets, descriptors over SCM_RIGHTS, processes and their groups, signals,
//! limits, the clock.
//!
//! Nothing here knows the protocol's machines: [`primary`](crate::primary) and
//! [`worker`](crate::worker) carry out what the machines decide.

pub mod channel;
pub mod clock;
#[cfg(feature = "primary")]
pub mod group;
#[cfg(feature = "primary")]
pub mod limits;
#[cfg(feature = "primary")]
pub mod notify;
#[cfg(feature = "primary")]
pub mod outputs;
#[cfg(feature = "primary")]
pub mod passed;
#[cfg(feature = "primary")]
pub mod process;
#[cfg(feature = "primary")]
pub(crate) mod reserve;
#[cfg(feature = "primary")]
pub mod signals;
#[cfg(feature = "primary")]
pub mod sock_diag;
#[cfg_attr(not(feature = "primary"), expect(dead_code, reason = "some of it only primaries call"))]
pub mod socket;
#[cfg_attr(not(feature = "primary"), expect(dead_code, reason = "some of it only primaries call"))]
pub(crate) mod sys;
pub mod transmit;
pub(crate) mod unix_path;
#[cfg(feature = "primary")]
pub(crate) mod usage;
#[cfg(feature = "primary")]
pub mod user;
