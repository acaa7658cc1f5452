//! Holds the connections themselves, while the machines move only their ids.

use alloc::vec::Vec;
use core::fmt;

use crate::ConnId;
use crate::collections::slab::IdMap;
use crate::id::Id;

/// Holds the payload of each connection (an adapter's descriptor, a test's token) from the moment
/// it is admitted until the machine releases it.
///
/// Ids are minted here, rise strictly, and are never reused. Dropping a custody drops what it
/// holds; [`finish`](Custody::finish) fails if something is left.
#[derive(Debug)]
pub struct Custody<T> {
    held: IdMap<T>,
    next: ConnId,
}

impl<T> Custody<T> {
    /// An empty custody.
    pub const fn new() -> Self {
        Custody { held: IdMap::new(), next: ConnId::FIRST }
    }

    /// Takes a payload in and mints its id. Feed it to the machine before admitting many more:
    /// the machine wants to see ids in rising order.
    pub fn admit(&mut self, payload: T) -> ConnId {
        let id = self.next;
        self.next = id.next();
        self.held.insert(id.raw(), payload);
        id
    }

    /// Takes several payloads in, under ids that follow one another.
    pub fn admit_all(&mut self, payloads: impl IntoIterator<Item = T>) -> ConnRange {
        let first = self.next;
        for payload in payloads {
            self.admit(payload);
        }
        ConnRange { next: first, end: self.next }
    }

    /// Lends a payload, for handing its descriptor on. `None` if it was released.
    pub fn get(&self, conn: ConnId) -> Option<&T> {
        self.held.get(conn.raw())
    }

    /// Lends a payload for a change, such as a note of when it was sent. `None` if it was released.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        self.held.get_mut(conn.raw())
    }

    /// Gives a payload back for good: the caller then closes it or passes it to the program,
    /// explicitly. Call it for the outputs that end a connection and nowhere else. `None` if it was
    /// released before.
    #[must_use]
    pub fn release(&mut self, conn: ConnId) -> Option<T> {
        self.held.remove(conn.raw())
    }

    /// How many payloads are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.len() == 0
    }

    /// Ends the custody.
    ///
    /// # Errors
    /// [`Leftover`], which has what was never released.
    pub fn finish(self) -> Result<(), Leftover<T>> {
        if self.is_empty() {
            return Ok(());
        }
        let left = self.held.into_sorted().into_iter();
        Err(Leftover(left.map(|(raw, payload)| (ConnId::from(raw), payload)).collect()))
    }
}

impl<T> Default for Custody<T> {
    fn default() -> Self {
        Custody::new()
    }
}

/// Connections under consecutive ids, as they arrived together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ConnRange {
    next: ConnId,
    end: ConnId,
}

impl ConnRange {
    /// No connection.
    pub const EMPTY: ConnRange = ConnRange { next: ConnId::FIRST, end: ConnId::FIRST };

    /// How many.
    pub fn len(&self) -> usize {
        usize::try_from(self.end.get().saturating_sub(self.next.get())).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.next >= self.end
    }

    /// The number of the last one.
    pub(crate) fn last_raw(&self) -> Option<u64> {
        if self.is_empty() { None } else { self.end.get().checked_sub(1) }
    }
}

impl Iterator for ConnRange {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        if self.is_empty() {
            return None;
        }
        let conn = self.next;
        self.next = conn.next();
        Some(conn)
    }
}

impl fmt::Debug for ConnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.next, self.end)
    }
}

/// What a custody still held when it was ended, in the order of the ids.
#[derive(Debug)]
pub struct Leftover<T>(pub Vec<(ConnId, T)>);

impl<T> fmt::Display for Leftover<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections were never released", self.0.len())
    }
}

impl<T: fmt::Debug> core::error::Error for Leftover<T> {}
