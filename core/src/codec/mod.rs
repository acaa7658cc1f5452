//! How messages become bytes, and bytes become messages: one codec for workers that link this
//! crate, one for Node's. Nothing here knows a machine or decides what a message means to it.

pub(crate) mod inbox;
pub mod native;
pub mod node;
