//! Doubly linked lists over the indexes of a [`Slab`](crate::slab::Slab): moving an entry from
//! any place to the end of any list costs the same however long the lists are.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// No entry, or no list.
const NONE: u32 = u32::MAX;

/// Several lists; each index is in at most one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LinkedLists {
    links: Vec<Link>,
    ends: Vec<Ends>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Link {
    before: u32,
    after: u32,
    list: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Ends {
    first: u32,
    last: u32,
}

impl Link {
    const FREE: Link = Link { before: NONE, after: NONE, list: NONE };
}

impl Ends {
    const EMPTY: Ends = Ends { first: NONE, last: NONE };
}

impl LinkedLists {
    /// Puts an index at the end of a list, taking it out of the list it was in.
    #[inline(always)]
    pub(crate) fn push_back(&mut self, list: u32, index: u32) {
        self.remove(index);
        if self.ends.len() <= list as usize || self.links.len() <= index as usize {
            self.grow(list, index);
        }
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        let before = core::mem::replace(&mut ends.last, index);
        if let Some(link) = self.links.get_mut(index as usize) {
            *link = Link { before, after: NONE, list };
        }
        match self.links.get_mut(before as usize) {
            Some(link) => link.after = index,
            None => ends.first = index,
        }
    }

    #[cold]
    fn grow(&mut self, list: u32, index: u32) {
        self.ends.resize(self.ends.len().max(list as usize + 1), Ends::EMPTY);
        self.links.resize(self.links.len().max(index as usize + 1), Link::FREE);
    }

    /// Takes an index out of the list it is in, if it is in one.
    #[inline(always)]
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else { return };
        let Link { before, after, list } = *link;
        if list == NONE {
            return;
        }
        *link = Link::FREE;
        let Some(ends) = self.ends.get_mut(list as usize) else { return };
        match self.links.get_mut(before as usize) {
            Some(link) => link.after = after,
            None => ends.first = after,
        }
        match self.links.get_mut(after as usize) {
            Some(link) => link.before = before,
            None => ends.last = before,
        }
    }

    /// The list an index is in.
    pub(crate) fn list_of(&self, index: u32) -> Option<u32> {
        self.links.get(index as usize).map(|link| link.list).filter(|&list| list != NONE)
    }

    pub(crate) fn first(&self, list: u32) -> Option<u32> {
        self.ends.get(list as usize).map(|ends| ends.first).filter(|&first| first != NONE)
    }

    /// The index after this one in its list.
    pub(crate) fn after(&self, index: u32) -> Option<u32> {
        self.links.get(index as usize).map(|link| link.after).filter(|&after| after != NONE)
    }

    /// How many lists there are; the highest ones may be empty.
    pub(crate) fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    pub(crate) fn iter(&self, list: u32) -> impl Iterator<Item = u32> {
        // Bounded, so that links read from a damaged snapshot can't go round for ever.
        core::iter::successors(self.first(list), |&index| self.after(index)).take(self.links.len())
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
