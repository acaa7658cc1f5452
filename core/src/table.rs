//! A table that finds things by id in constant time and keeps each at one index while it lives.
//!
//! An ordered map costs more with each tenfold of entries; the path of a connection must cost the
//! same with one connection pending as with a million. Ids are spread by multiplication
//! (Fibonacci hashing) over an open-addressed index that is at most half full; removal shifts
//! entries back, so there are no tombstones and the cost of a step does not depend on history.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// Values by id. The index of a value stays the same until it is removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    try_from = "Parts<K, T>",
    bound(
        serialize = "K: Serialize, T: Serialize",
        deserialize = "K: Id + Deserialize<'de>, T: Deserialize<'de>"
    )
)]
pub(crate) struct Table<K, T> {
    entries: Vec<Option<(K, T)>>,
    free: Vec<u32>,
    #[serde(skip)]
    index: Index,
}

/// What is stored of a table; the index follows from it.
#[derive(Deserialize)]
struct Parts<K, T> {
    entries: Vec<Option<(K, T)>>,
    free: Vec<u32>,
}

impl<K: Id, T> TryFrom<Parts<K, T>> for Table<K, T> {
    type Error = &'static str;

    fn try_from(parts: Parts<K, T>) -> Result<Self, Self::Error> {
        let Parts { entries, free } = parts;
        let mut index = Index::default();
        let mut vacant = 0;
        for (at, entry) in entries.iter().enumerate() {
            let Some((key, _)) = entry else {
                vacant += 1;
                continue;
            };
            let at = u32::try_from(at).map_err(|_| "table too large")?;
            if index.find(key.raw()).is_some() {
                return Err("an id stands twice in a table");
            }
            index.insert(key.raw(), at);
        }
        let mut sorted = free.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let all_vacant = free.iter().all(|&at| matches!(entries.get(at as usize), Some(None)));
        if sorted.len() != vacant || free.len() != vacant || !all_vacant {
            return Err("a table's free list is wrong");
        }
        Ok(Table { entries, free, index })
    }
}

impl<K: Id, T> Table<K, T> {
    pub(crate) const fn new() -> Self {
        Table { entries: Vec::new(), free: Vec::new(), index: Index::EMPTY }
    }

    /// Puts a value in and tells its index. The id must be new.
    pub(crate) fn insert(&mut self, key: K, value: T) -> u32 {
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(entry) = self.entries.get_mut(at as usize) {
                    *entry = Some((key, value));
                }
                at
            }
            None => {
                let at = self.entries.len() as u32;
                self.entries.push(Some((key, value)));
                at
            }
        };
        self.index.insert(key.raw(), at);
        at
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let at = self.index.remove(key.raw())?;
        let (_, value) = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(value)
    }

    /// The index of a value, for [`at`](Self::at) and for lists of indexes.
    pub(crate) fn position(&self, key: K) -> Option<u32> {
        self.index.get(key.raw())
    }

    pub(crate) fn at(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn at_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)?.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn key_at(&self, at: u32) -> Option<K> {
        self.entries.get(at as usize)?.as_ref().map(|(key, _)| *key)
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.at(self.position(key)?)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.position(key)?;
        self.at_mut(at)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.position(key).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.len == 0
    }

    /// The values in the order of their index, which is no order of meaning.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().flatten().map(|(key, value)| (*key, value))
    }

    /// The ids in rising order. Costs a sort: not for the path of a connection.
    pub(crate) fn keys_sorted(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Takes everything out, in rising order of id.
    pub(crate) fn into_sorted(self) -> Vec<(K, T)> {
        let mut all: Vec<(K, T)> = self.entries.into_iter().flatten().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

// The layout of the index depends on history; what a table holds does not.
impl<K: PartialEq, T: PartialEq> PartialEq for Table<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.free == other.free
    }
}

impl<K: Eq, T: Eq> Eq for Table<K, T> {}

impl<K: Hash, T: Hash> Hash for Table<K, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
        self.free.hash(state);
    }
}

/// Open addressing with linear probing; key 0 marks an empty place.
#[derive(Clone, Debug, Default)]
struct Index {
    places: Vec<(u64, u32)>,
    len: usize,
}

impl Index {
    const EMPTY: Index = Index { places: Vec::new(), len: 0 };

    /// Where the search for a key begins. The length is a power of two.
    fn home(&self, key: u64) -> usize {
        let bits = self.places.len().trailing_zeros();
        // The high bits of the product are the well mixed ones; a shift by 64 would overflow.
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15).checked_shr(64 - bits)).unwrap_or(0) as usize
    }

    fn find(&self, key: u64) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = self.home(key);
        loop {
            match self.places.get(at) {
                Some(&(found, _)) if found == key => return Some(at),
                Some(&(0, _)) | None => return None,
                Some(_) => at = (at + 1) & mask,
            }
        }
    }

    fn get(&self, key: u64) -> Option<u32> {
        self.places.get(self.find(key)?).map(|&(_, value)| value)
    }

    fn insert(&mut self, key: u64, value: u32) {
        if (self.len + 1) * 2 > self.places.len() {
            self.grow();
        }
        self.place(key, value);
        self.len += 1;
    }

    fn place(&mut self, key: u64, value: u32) {
        let mask = self.places.len().saturating_sub(1);
        let mut at = self.home(key);
        while let Some(place) = self.places.get_mut(at) {
            if place.0 == 0 {
                *place = (key, value);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let wanted = (self.places.len() * 2).max(8);
        let old = core::mem::replace(&mut self.places, alloc::vec![(0, 0); wanted]);
        for (key, value) in old {
            if key != 0 {
                self.place(key, value);
            }
        }
    }

    fn remove(&mut self, key: u64) -> Option<u32> {
        let mut hole = self.find(key)?;
        let mask = self.places.len() - 1;
        let value = self.places.get(hole).map(|&(_, value)| value);
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(&(next, next_value)) = self.places.get(at) else { break };
            if next == 0 {
                break;
            }
            // An entry may move back only if its home is not inside (hole, at].
            let from_home = at.wrapping_sub(self.home(next)) & mask;
            if from_home >= (at.wrapping_sub(hole) & mask) {
                if let Some(place) = self.places.get_mut(hole) {
                    *place = (next, next_value);
                }
                hole = at;
            }
        }
        if let Some(place) = self.places.get_mut(hole) {
            *place = (0, 0);
        }
        self.len -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::ConnId;

    fn id(n: u64) -> ConnId {
        ConnId::from_raw(n).unwrap()
    }

    /// The same walk over a table and over a map; a small random walk without a generator.
    #[test]
    fn agrees_with_an_ordered_map() {
        let mut table = Table::new();
        let mut map = BTreeMap::new();
        let mut random = 1_u64;
        for step in 1..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (random >> 33) % 200;
            if (random >> 20) % 3 != 0 && map.len() < 150 {
                table.insert(id(step), step);
                map.insert(step, step);
            } else if let Some(&key) = map.keys().nth(pick as usize % map.len().max(1)) {
                assert_eq!(table.remove(id(key)), map.remove(&key));
                assert_eq!(table.remove(id(key)), None);
            }
            assert_eq!(table.len(), map.len());
            let probe = step.saturating_sub(pick).max(1);
            assert_eq!(table.get(id(probe)), map.get(&probe));
        }
        for (key, value) in &map {
            assert_eq!(table.get(id(*key)), Some(value));
        }
        let sorted: Vec<u64> = table.keys_sorted().into_iter().map(ConnId::get).collect();
        assert_eq!(sorted, map.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn an_index_stays_until_removal() {
        let mut table = Table::new();
        let first = table.insert(id(1), 'a');
        let second = table.insert(id(2), 'b');
        table.remove(id(1));
        let third = table.insert(id(3), 'c');
        assert_eq!(first, third);
        assert_eq!(table.position(id(2)), Some(second));
        assert_eq!(table.key_at(third), Some(id(3)));
    }
}
