//! Collections that the machines need and `alloc` does not have, each for a reason that its file
//! gives. They know nothing about workers and connections.

pub(crate) mod inline_queue;
pub(crate) mod linked_lists;
pub(crate) mod ready_queue;
pub(crate) mod slab;
