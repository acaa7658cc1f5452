//! Doubly linked lists over the indexes of a [`Slab`](crate::collections::slab::Slab): moving an
//! entry from any place to the end of any list costs the same however long the lists are.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// No entry, or no list.
const NONE: u32 = u32::MAX;

/// Several lists; each index is in at most one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LinkedLists {
    entries: Vec<Entry>,
    ends: Vec<Ends>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    before: u32,
    after: u32,
    list: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Ends {
    first: u32,
    last: u32,
}

impl Entry {
    const FREE: Entry = Entry { before: NONE, after: NONE, list: NONE };
}

impl Ends {
    const EMPTY: Ends = Ends { first: NONE, last: NONE };
}

impl LinkedLists {
    /// Puts an index at the end of a list, taking it out of the list it was in.
    #[inline(always)]
    pub(crate) fn push_back(&mut self, list: u32, index: u32) {
        self.remove(index);
        if self.ends.len() <= list as usize || self.entries.len() <= index as usize {
            self.grow(list, index);
        }
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        let before = core::mem::replace(&mut ends.last, index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            *entry = Entry { before, after: NONE, list };
        }
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.after = index,
            None => ends.first = index,
        }
    }

    #[cold]
    fn grow(&mut self, list: u32, index: u32) {
        self.ends.resize(self.ends.len().max(list as usize + 1), Ends::EMPTY);
        self.entries.resize(self.entries.len().max(index as usize + 1), Entry::FREE);
    }

    /// Takes an index out of the list it is in, if it is in one.
    #[inline(always)]
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        let Entry { before, after, list } = *entry;
        if list == NONE {
            return;
        }
        *entry = Entry::FREE;
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.after = after,
            None => ends.first = after,
        }
        match self.entries.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None => ends.last = before,
        }
    }

    /// The list an index is in.
    pub(crate) fn list_of(&self, index: u32) -> Option<u32> {
        self.entries.get(index as usize).map(|entry| entry.list).filter(|&list| list != NONE)
    }

    pub(crate) fn first(&self, list: u32) -> Option<u32> {
        self.ends.get(list as usize).map(|ends| ends.first).filter(|&first| first != NONE)
    }

    /// The index after this one in its list.
    pub(crate) fn after(&self, index: u32) -> Option<u32> {
        self.entries.get(index as usize).map(|entry| entry.after).filter(|&after| after != NONE)
    }

    /// How many lists there are; the highest ones may be empty.
    pub(crate) fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    #[cfg(feature = "inspect")]
    pub(crate) fn iter(&self, list: u32) -> impl Iterator<Item = u32> {
        // Bounded, so that entries read from a damaged snapshot can't go round for ever.
        core::iter::successors(self.first(list), |&index| self.after(index))
            .take(self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lists: &LinkedLists, list: u32) -> Vec<u32> {
        lists.iter(list).collect()
    }

    #[test]
    fn moves_between_ends_and_middles() {
        let mut lists = LinkedLists::default();
        for index in [4, 0, 2] {
            lists.push_back(0, index);
        }
        assert_eq!(all(&lists, 0), [4, 0, 2]);
        lists.push_back(1, 0);
        assert_eq!((all(&lists, 0), all(&lists, 1)), (alloc::vec![4, 2], alloc::vec![0]));
        lists.push_back(0, 4);
        assert_eq!(all(&lists, 0), [2, 4]);
        lists.remove(4);
        lists.remove(4);
        lists.remove(2);
        assert_eq!(lists.first(0), None);
        assert_eq!((lists.list_of(0), lists.list_of(2)), (Some(1), None));
        lists.push_back(0, 2);
        assert_eq!(all(&lists, 0), [2]);
    }
}
