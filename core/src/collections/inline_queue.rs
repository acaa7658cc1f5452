//! A queue that is usually empty or holds one thing.

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// First in, first out. The first entry is stored apart: as long as there is no other, the ring
/// buffer behind it is never touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct InlineQueue<T> {
    first: Option<T>,
    /// Empty if there is no first.
    rest: VecDeque<T>,
}

impl<T> Default for InlineQueue<T> {
    fn default() -> Self {
        InlineQueue { first: None, rest: VecDeque::new() }
    }
}

impl<T> InlineQueue<T> {
    #[inline(always)]
    pub(crate) fn push_back(&mut self, entry: T) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest.push_back(entry);
        }
    }

    #[inline(always)]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.first.take();
        if !self.rest.is_empty() {
            self.refill();
        }
        first
    }

    #[inline(never)]
    fn refill(&mut self) {
        self.first = self.rest.pop_front();
    }

    /// Takes out the entry with this key; the entries are sorted by it.
    #[inline(always)]
    pub(crate) fn remove_by<K: Ord>(&mut self, key: &K, of: impl Fn(&T) -> K) -> Option<T> {
        if of(self.first.as_ref()?) == *key {
            return self.pop_front();
        }
        let at = self.rest.binary_search_by_key(key, of).ok()?;
        self.rest.remove(at)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    /// For changes that leave the order as it is.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn keeps_order_and_finds_by_key() {
        let mut fifo = InlineQueue::default();
        assert_eq!((fifo.pop_front(), fifo.len()), (None, 0));
        for entry in 1..=5 {
            fifo.push_back(entry);
        }
        assert_eq!(fifo.remove_by(&3, |&entry| entry), Some(3));
        assert_eq!(fifo.remove_by(&1, |&entry| entry), Some(1));
        assert_eq!(fifo.remove_by(&1, |&entry| entry), None);
        assert_eq!(fifo.iter().copied().collect::<Vec<_>>(), [2, 4, 5]);
        fifo.push_back(6);
        assert_eq!(fifo.len(), 4);
        let rest: Vec<_> = core::iter::from_fn(|| fifo.pop_front()).collect();
        assert_eq!(rest, [2, 4, 5, 6]);
        assert!(fifo.is_empty());
    }
}
