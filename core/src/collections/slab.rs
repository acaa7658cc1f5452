//! A table that finds things by id in constant time and keeps each at one index while it lives.
//!
//! An ordered map costs more with each tenfold of entries; the path of a connection must cost the
//! same with one connection pending as with a million. Ids are spread by multiplication
//! (Fibonacci hashing) over an open-addressed index that is at most half full; removal shifts
//! entries back, so there are no tombstones and the cost of a step does not depend on history.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::num::NonZeroU64;

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
pub(crate) struct Slab<K, T> {
    entries: Vec<Option<(K, T)>>,
    free: Vec<u32>,
    #[serde(skip)]
    index: IdMap<u32>,
}

/// The part of a table that is stored; the index follows from it.
#[derive(Deserialize)]
struct Parts<K, T> {
    entries: Vec<Option<(K, T)>>,
    free: Vec<u32>,
}

impl<K: Id, T> TryFrom<Parts<K, T>> for Slab<K, T> {
    type Error = &'static str;

    fn try_from(parts: Parts<K, T>) -> Result<Self, Self::Error> {
        let Parts { entries, free } = parts;
        let mut index = IdMap::new();
        let mut vacant = 0;
        for (at, entry) in entries.iter().enumerate() {
            let Some((key, _)) = entry else {
                vacant += 1;
                continue;
            };
            let at = u32::try_from(at).map_err(|_| "table too large")?;
            if index.get(key.raw()).is_some() {
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
        Ok(Slab { entries, free, index })
    }
}

impl<K: Id, T> Slab<K, T> {
    pub(crate) const fn new() -> Self {
        Slab { entries: Vec::new(), free: Vec::new(), index: IdMap::new() }
    }

    /// Puts a value in and returns its index. The id must be new.
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
        self.index.get(key.raw()).copied()
    }

    pub(crate) fn at(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn at_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)?.as_mut().map(|(_, value)| value)
    }

    #[cfg(feature = "inspect")]
    pub(crate) fn key_at(&self, at: u32) -> Option<K> {
        self.entries.get(at as usize)?.as_ref().map(|(key, _)| *key)
    }

    pub(crate) fn entry_mut(&mut self, at: u32) -> Option<(K, &mut T)> {
        self.entries.get_mut(at as usize)?.as_mut().map(|(key, value)| (*key, value))
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.at(self.position(key)?)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.position(key)?;
        self.at_mut(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// The values in the order of their index, which has no meaning.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().flatten().map(|(key, value)| (*key, value))
    }

    /// The ids in rising order. Costs a sort: not for the path of a connection.
    pub(crate) fn keys_sorted(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }
}

// The layout of the index depends on history; what a table holds does not.
impl<K: PartialEq, T: PartialEq> PartialEq for Slab<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.free == other.free
    }
}

impl<K: Eq, T: Eq> Eq for Slab<K, T> {}

impl<K: Hash, T: Hash> Hash for Slab<K, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
        self.free.hash(state);
    }
}

/// Values by number, which is never zero: open addressing with linear probing.
///
/// A table of our own because it is on the path of every connection: with `hashbrown::HashTable`
/// 0.16 and the same hash, a connection takes 562 instructions instead of 486, and 966 instead of
/// 885 if one is pending (`tests/bench/core-instructions`).
#[derive(Clone, Debug)]
pub(crate) struct IdMap<V> {
    /// A power of two, at most half of them taken.
    places: Vec<Option<(NonZeroU64, V)>>,
    len: usize,
    /// 64 less the bits of an index into `places`.
    shift: u32,
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        IdMap::new()
    }
}

impl<V> IdMap<V> {
    pub(crate) const fn new() -> Self {
        IdMap { places: Vec::new(), len: 0, shift: 0 }
    }

    /// Where the search for a key begins: the high bits of the product are the well mixed ones.
    #[inline(always)]
    fn home(&self, key: NonZeroU64) -> usize {
        (key.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (self.shift & 63)) as usize
    }

    #[inline(always)]
    fn find(&self, key: NonZeroU64) -> Option<usize> {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = self.home(key);
        loop {
            match self.places.get(at) {
                Some(Some((found, _))) if *found == key => return Some(at),
                Some(None) | None => return None,
                Some(Some(_)) => at = (at + 1) & mask,
            }
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, key: NonZeroU64) -> Option<&V> {
        self.places.get(self.find(key)?)?.as_ref().map(|(_, value)| value)
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, key: NonZeroU64) -> Option<&mut V> {
        let at = self.find(key)?;
        self.places.get_mut(at)?.as_mut().map(|(_, value)| value)
    }

    /// Puts a value in. The key must be new.
    #[inline(always)]
    pub(crate) fn insert(&mut self, key: NonZeroU64, value: V) {
        if (self.len + 1) * 2 > self.places.len() {
            self.grow();
        }
        self.place(key, value);
        self.len += 1;
    }

    #[inline(always)]
    fn place(&mut self, key: NonZeroU64, value: V) {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = self.home(key);
        while let Some(place) = self.places.get_mut(at) {
            if place.is_none() {
                *place = Some((key, value));
                return;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let wanted = (self.places.len() * 2).max(8);
        self.shift = 64 - wanted.trailing_zeros();
        let empty = core::iter::repeat_with(|| None).take(wanted).collect();
        for (key, value) in core::mem::replace(&mut self.places, empty).into_iter().flatten() {
            self.place(key, value);
        }
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, key: NonZeroU64) -> Option<V> {
        let mask = self.places.len().wrapping_sub(1);
        let mut hole = self.find(key)?;
        let (_, value) = self.places.get_mut(hole)?.take()?;
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(Some((next, _))) = self.places.get(at) else { return Some(value) };
            // An entry may move back only if its home is not inside (hole, at].
            let from_home = at.wrapping_sub(self.home(*next)) & mask;
            if from_home >= (at.wrapping_sub(hole) & mask) {
                self.places.swap(hole, at);
                hole = at;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes everything out, in rising order of the keys.
    pub(crate) fn into_sorted(self) -> Vec<(NonZeroU64, V)> {
        let mut all: Vec<(NonZeroU64, V)> = self.places.into_iter().flatten().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
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
        let mut table = Slab::new();
        let mut map = BTreeMap::new();
        let mut random = 1_u64;
        for step in 1..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (random >> 33) % 200;
            if !(random >> 20).is_multiple_of(3) && map.len() < 150 {
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
        let mut table = Slab::new();
        let first = table.insert(id(1), 'a');
        let second = table.insert(id(2), 'b');
        table.remove(id(1));
        let third = table.insert(id(3), 'c');
        assert_eq!(first, third);
        assert_eq!(table.position(id(2)), Some(second));
        assert_eq!(table.key_at(third), Some(id(3)));
    }

    fn table(
        entries: Vec<Option<(ConnId, char)>>,
        free: Vec<u32>,
    ) -> Result<Slab<ConnId, char>, &'static str> {
        Slab::try_from(Parts { entries, free })
    }

    #[test]
    fn deserialized_tables_are_valid() {
        let entries = || alloc::vec![Some((id(1), 'a')), None, Some((id(2), 'b')), None];
        let whole = table(entries(), [3, 1].into()).unwrap();
        assert_eq!((whole.len(), whole.get(id(2)), whole.get(id(3))), (2, Some(&'b'), None));
        assert_eq!(
            table([Some((id(1), 'a')); 2].into(), [].into()),
            Err("an id stands twice in a table")
        );
        // Too few, one twice, one twice and one not at all, one that is taken, one that is not
        // there.
        for free in [&[1][..], &[1, 3, 1], &[1, 1], &[1, 2], &[1, 4], &[1, 3, 2]] {
            assert_eq!(
                table(entries(), free.into()),
                Err("a table's free list is wrong"),
                "{free:?}"
            );
        }
    }

    /// As snapshots are compared, and states of a search hashed.
    #[test]
    fn tables_that_behave_differently_are_not_equal() {
        let hash = |table: &Slab<ConnId, char>| {
            let mut hasher = Fnv(0);
            table.hash(&mut hasher);
            hasher.0
        };
        let all = [
            table([Some((id(1), 'a'))].into(), [].into()),
            table([Some((id(1), 'b'))].into(), [].into()),
            table([Some((id(2), 'a'))].into(), [].into()),
            table([Some((id(1), 'a')), None, None].into(), [1, 2].into()),
            table([Some((id(1), 'a')), None, None].into(), [2, 1].into()),
            table([].into(), [].into()),
        ];
        for (at, one) in all.iter().flatten().enumerate() {
            for (other, two) in all.iter().flatten().enumerate() {
                assert_eq!((one == two, hash(one) == hash(two)), (at == other, at == other));
            }
        }
    }

    struct Fnv(u64);

    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }

    /// Else a search takes as long as there are entries.
    #[test]
    fn searches_are_short() {
        let mut map = IdMap::new();
        for raw in 1..=512_u64 {
            map.insert(NonZeroU64::new(raw).unwrap(), ());
            assert!(map.len * 2 <= map.places.len(), "at most half of the places are taken");
            assert!(map.len * 4 >= map.places.len() || map.len < 4, "no more than there need be");
        }
        let mut homes: Vec<usize> =
            (1..=512).map(|raw| map.home(NonZeroU64::new(raw).unwrap())).collect();
        assert!(homes.iter().all(|home| *home < map.places.len()));
        homes.sort_unstable();
        homes.dedup();
        assert!(homes.len() > 400, "{} places for 512 numbers in a row", homes.len());
    }
}
