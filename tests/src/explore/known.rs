//! The states that a search has seen.

use super::world::Left;

/// Fingerprints, each with what was left to happen in the run that reached it.
///
/// A state with more left can do all that it can do with less. So a fingerprint that is known with
/// at least as much left is known, and of two entries of one fingerprint neither covers the other.
///
/// A fingerprint is its own hash: open addressing, at most three quarters full, 20 bytes an entry.
#[derive(Debug)]
pub struct Known {
    /// 0 is an empty place.
    prints: Vec<u128>,
    lefts: Vec<Left>,
    taken: usize,
    /// Whether more left covers less, or only the same.
    dominance: bool,
}

/// What a fingerprint finds.
enum Place {
    /// It is known with as much left.
    Covered,
    /// A place for it, and whether something with less left is there.
    At(usize, bool),
}

impl Known {
    /// Nothing is known yet.
    pub fn new(dominance: bool) -> Self {
        let size = 1 << 10;
        Known { prints: vec![0; size], lefts: vec![Left::default(); size], taken: 0, dominance }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Whether a state is known with at least as much left.
    pub fn covers(&self, print: u128, left: Left) -> bool {
        matches!(self.find(print.max(1), left), Place::Covered)
    }

    /// Enters a state; false if it is covered.
    pub fn enter(&mut self, print: u128, left: Left) -> bool {
        let print = print.max(1);
        let Place::At(at, replaces) = self.find(print, left) else { return false };
        self.prints[at] = print;
        self.lefts[at] = left;
        if !replaces {
            self.taken += 1;
            if self.taken * 4 > self.prints.len() * 3 {
                self.grow();
            }
        }
        true
    }

    fn find(&self, print: u128, left: Left) -> Place {
        let mask = self.prints.len() - 1;
        let mut at = print as usize & mask;
        let mut lesser = None;
        loop {
            match self.prints[at] {
                0 => return Place::At(lesser.unwrap_or(at), lesser.is_some()),
                there if there == print => {
                    let known = self.lefts[at];
                    if known == left || (self.dominance && known.covers(left)) {
                        return Place::Covered;
                    }
                    if self.dominance && left.covers(known) {
                        lesser.get_or_insert(at);
                    }
                }
                _ => {}
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = self.prints.len() * 2;
        let prints = std::mem::replace(&mut self.prints, vec![0; size]);
        let lefts = std::mem::replace(&mut self.lefts, vec![Left::default(); size]);
        for (print, left) in prints.into_iter().zip(lefts).filter(|entry| entry.0 != 0) {
            let mut at = print as usize & (size - 1);
            while self.prints[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            self.prints[at] = print;
            self.lefts[at] = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(troubles: u8, commands: u8) -> Left {
        Left { connections: 1, troubles, respawns: 0, commands, reloads: 0 }
    }

    #[test]
    fn more_left_covers_less_and_nothing_else() {
        let mut known = Known::new(true);
        assert!(known.enter(7, left(1, 0)));
        assert!(!known.enter(7, left(0, 0)));
        assert!(known.enter(7, left(0, 1)));
        assert!(known.enter(7, left(2, 0)));
        assert_eq!(known.len(), 2, "the lesser one is replaced");
        assert!(known.covers(7, left(1, 0)) && !known.covers(7, left(1, 1)));
        let mut plain = Known::new(false);
        assert!(plain.enter(7, left(1, 0)) && plain.enter(7, left(0, 0)));
        assert!(!plain.enter(7, left(0, 0)));
    }

    #[test]
    fn remembers_all_when_it_grows() {
        let mut known = Known::new(true);
        let print = |n: u128| n << 64 | (n % 97);
        for n in 0..5_000 {
            assert!(known.enter(print(n), left(1, 1)));
        }
        assert_eq!(known.len(), 5_000);
        assert!((0..5_000).all(|n| known.covers(print(n), left(1, 0))));
        assert!(!known.covers(print(5_000), left(0, 0)));
    }
}
