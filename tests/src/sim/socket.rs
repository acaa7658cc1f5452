//! What stands for a descriptor: every copy of it counts, as in the kernel.

use std::rc::Rc;

use roundel_core::{ConnId, ListenerId};

/// One copy of a connection's descriptor. Dropping it closes this copy; the connection is closed
/// when the last one is.
#[derive(Clone, Debug)]
pub struct Socket(Rc<ConnId>);

impl Socket {
    /// A connection with this name, in its first copy.
    pub fn new(name: ConnId) -> Socket {
        Socket(Rc::new(name))
    }

    /// Which connection it is, whatever anybody calls it.
    pub fn name(&self) -> ConnId {
        *self.0
    }

    /// Sees whether it is open without holding it open.
    pub fn watch(&self) -> std::rc::Weak<ConnId> {
        Rc::downgrade(&self.0)
    }
}

/// What travels on a channel.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A connection.
    Conn(Socket),
    /// A listener.
    Listener(ListenerId),
    /// A descriptor of a worker's own.
    Other,
}
