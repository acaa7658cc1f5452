//! What differs on purpose.

use std::collections::BTreeSet;

/// A difference: the side it is on, its name, the captures it is in (by the beginning of their
/// names; empty for all), and its reason.
pub(crate) type Difference = (&'static str, &'static str, &'static [&'static str], &'static str);

/// Node's own primary and workers do otherwise here.
pub(crate) const DIFFERENCES: &[Difference] = &[
    (
        "primary",
        "shared-listens",
        &["sched-none"],
        "a shared listener listens already when it is passed on: so clients are never refused \
         between the bind and the first worker's listen, and a worker's own listen does no harm",
    ),
    (
        "primary",
        "key-of-a-refusal",
        &["address-in-use", "two-servers-one-port"],
        "a refused query has no listener to name; Node's key may be that of another query there, \
         and workers do not look at it",
    ),
    (
        "primary",
        "socket-bookkeeping",
        &["user-messages"],
        "Node tells the receiver of a net.Socket when the sender forgets it, under a key in the \
         wrapper: a count of its own, for server.getConnections in the sender",
    ),
    (
        "worker",
        "leave-is-announced",
        &[],
        "told to disconnect, our worker announces that it leaves and waits for the answer: behind \
         it no connection can come that nobody would answer",
    ),
    (
        "worker",
        "closes-first",
        &["worker-kill-method"],
        "our worker closes its listeners before it leaves, so that Node's primary hands it nothing \
         that it would have to decline",
    ),
    (
        "worker",
        "sockets-end-at-once",
        &["user-messages"],
        "a connection that the primary's program sends is closed by our worker at once, so it says \
         that none is left as soon as it is asked; Node's program still has it there",
    ),
    (
        "worker",
        "no-address",
        &["user-messages.node18"],
        "given a listening socket by its primary, Node 18 asks for a path that is none, and its \
         own primary dies of it; ours answers EINVAL, and our worker has nothing like it to ask",
    ),
    (
        "worker",
        "no-flags",
        &[],
        "from version 22 on Node says `flags: 0` for any address; absent means the same",
    ),
];

/// Captures that a side is not held against, each with its reason.
const LEFT_OUT: &[Difference] = &[(
    "worker",
    "fork-model",
    &["fork-model"],
    "there the worker is a program without cluster; ours ask for their listeners",
)];

/// The rows of one side, and which of them were of use.
#[derive(Debug)]
pub(crate) struct Table {
    side: &'static str,
    used: BTreeSet<&'static str>,
}

impl Table {
    pub(crate) fn new(side: &'static str) -> Self {
        Table { side, used: BTreeSet::new() }
    }

    /// Whether a difference stands in the table for this capture.
    pub(crate) fn allows(&mut self, name: &'static str, capture: &str) -> bool {
        self.has(DIFFERENCES, Some(name), capture)
    }

    pub(crate) fn is_left_out(&mut self, capture: &str) -> bool {
        self.has(LEFT_OUT, None, capture)
    }

    fn has(&mut self, rows: &[Difference], name: Option<&str>, capture: &str) -> bool {
        let row = rows.iter().find(|(side, row, captures, _)| {
            *side == self.side
                && name.is_none_or(|name| name == *row)
                && (captures.is_empty() || captures.iter().any(|begin| capture.starts_with(begin)))
        });
        self.used.extend(row.map(|row| row.1));
        row.is_some()
    }

    /// A row that is not needed any more is to go.
    pub(crate) fn assert_all_used(&self) {
        for (side, name, _, reason) in DIFFERENCES.iter().chain(LEFT_OUT) {
            if *side == self.side {
                assert!(self.used.contains(name), "{name} is no difference any more: {reason}");
            }
        }
    }
}
