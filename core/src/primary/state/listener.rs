//! What the primary knows about a listener: which workers have it, and what waits there.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Address, ConnId, ListenKey, Seq, Slot, SockName, Transport, WorkerId};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    pub(crate) key: ListenKey,
    /// Given by the operator: lives as long as the primary.
    pub(crate) operator: bool,
    /// Workers get the listener itself, not its connections.
    pub(crate) shared: bool,
    pub(crate) state: ListenerState,
    /// The workers that have asked for it and wait until it is bound.
    pub(crate) askers: Vec<Asker>,
    /// The slots whose workers it was ever given to.
    pub(crate) slots: BTreeSet<Slot>,
    /// A connection has come to it.
    pub(crate) used: bool,
    /// The operator was told that it is not what the workers ask for.
    pub(crate) told: bool,
    pub(crate) sockname: Option<SockName>,
    /// The first worker's data; all workers get it.
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) holders: BTreeSet<WorkerId>,
    /// Ordered by id.
    pub(crate) pending: VecDeque<Pending>,
    /// Accepting was resumed and not paused since.
    pub(crate) accepting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ListenerState {
    /// Will be bound, with this backlog, once those that it collides with are closed.
    Waiting {
        backlog: u32,
    },
    Binding,
    Open,
    /// Being emptied and closed.
    Closing,
    /// Closed, in a shutdown: its queue is still there.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) worker: WorkerId,
    pub(crate) seq: Seq,
}

/// A connection that waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) conn: ConnId,
    pub(crate) attempts: u8,
}

impl ListenerRecord {
    pub(crate) fn new(key: ListenKey, operator: bool, shared: bool) -> Self {
        ListenerRecord {
            key,
            operator,
            shared,
            state: ListenerState::Binding,
            askers: Vec::new(),
            slots: BTreeSet::new(),
            used: false,
            told: false,
            sockname: None,
            data: None,
            holders: BTreeSet::new(),
            pending: VecDeque::new(),
            accepting: false,
        }
    }

    /// Its key for a bind output.
    pub(crate) fn boxed_key(&self) -> Box<ListenKey> {
        Box::new(self.key.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == ListenerState::Open
    }

    /// Whether the primary accepts its connections and hands them off.
    pub(crate) fn is_handed_off(&self) -> bool {
        self.is_open() && !self.shared
    }

    /// Whether workers asked for it and none has it any more.
    pub(crate) fn is_unheld(&self) -> bool {
        self.is_open() && !self.operator && self.holders.is_empty()
    }

    /// Its address with the port that it really has.
    pub(crate) fn effective_address(&self) -> Address {
        match (&self.key.address, &self.sockname) {
            // Bound without IPv6, where the machine has none.
            (Address::Any { .. }, Some(SockName::Ip(real))) if real.is_ipv4() => Address::Ip(*real),
            (Address::Any { .. }, Some(SockName::Ip(real))) => Address::Any { port: real.port() },
            (Address::Ip(_) | Address::Fd(_), Some(SockName::Ip(real))) => Address::Ip(*real),
            (Address::Fd(_), Some(SockName::Unix(path))) => Address::Unix(path.clone()),
            (address, _) => address.clone(),
        }
    }

    /// Whether the kernel would refuse to bind `key` while this one is open.
    pub(crate) fn is_in_the_way_of(&self, key: &ListenKey) -> bool {
        // A path is taken whatever kind of socket it is; a UDP port is taken whatever its option
        // is, unless both have the option. Closing our copy of an inherited socket frees nothing.
        let alike = match (self.key.transport, key.transport) {
            (Transport::DatagramReuse, Transport::DatagramReuse) => false,
            (Transport::Stream, other) | (other, Transport::Stream) => other == Transport::Stream,
            (Transport::Datagram | Transport::DatagramReuse, _) => true,
        };
        (alike || matches!(key.address, Address::Unix(_)))
            && !matches!(self.key.address, Address::Fd(_))
            && self.effective_address().collides(self.key.v6_only, &key.address, key.v6_only)
            && key.address.port() != Some(0)
    }

    /// Puts a connection at its place in the queue.
    pub(crate) fn enqueue(&mut self, entry: Pending) {
        match self.pending.back() {
            Some(last) if last.conn > entry.conn => {
                let at = self.pending.partition_point(|other| other.conn < entry.conn);
                self.pending.insert(at, entry);
            }
            _ => self.pending.push_back(entry),
        }
    }
}
