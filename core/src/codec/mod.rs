//! How messages become bytes and bytes messages: one codec for workers that link this crate, one for
//! Node's. Nothing here knows a machine or decides what a message means to it.

pub(crate) mod borrowed;
pub(crate) mod inbox;
pub mod native;
#[cfg(feature = "node")]
pub mod node;
