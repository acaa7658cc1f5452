//! What is in flight at one worker.

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{ConnId, ListenerId, Seq};

/// A connection that was handed off and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct InFlight {
    pub(crate) seq: Seq,
    pub(crate) conn: ConnId,
    pub(crate) listener: ListenerId,
    pub(crate) attempts: u8,
}

/// Connections in flight in the order of their numbers, which is the order of handoff. The first
/// one stands apart: with a window of 1 there is no other, and the queue is never touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Flights {
    first: Option<InFlight>,
    rest: VecDeque<InFlight>,
}

impl Flights {
    #[inline(always)]
    pub(crate) fn push(&mut self, entry: InFlight) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest.push_back(entry);
        }
    }

    /// Takes out what a number stands for. Answers mostly come in order.
    #[inline(always)]
    pub(crate) fn answered(&mut self, seq: Seq) -> Option<InFlight> {
        let first = self.first?;
        if first.seq == seq {
            self.first = if self.rest.is_empty() { None } else { self.rest.pop_front() };
            return Some(first);
        }
        let at = self.rest.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.rest.remove(at)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        u32::from(self.first.is_some()) + self.rest.len() as u32
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.first.iter().chain(&self.rest)
    }
}
