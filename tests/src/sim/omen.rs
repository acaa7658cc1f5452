//! How a program that starts is not as it should be.

/// What becomes of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omen {
    /// It ends before it says anything.
    Crashes,
    /// It ends soon after it listens.
    CrashesSoon,
    /// It asks for no listener.
    AsksNothing,
    /// It listens somewhere else.
    Elsewhere,
    /// It listens on the first of its listeners only.
    OnOne,
    /// It says soon that it leaves.
    Leaves,
    /// It says soon that it fails.
    Fails,
}

impl Omen {
    /// One of them.
    pub fn of(pick: u8) -> Omen {
        use Omen::*;
        let all = [Crashes, CrashesSoon, AsksNothing, Elsewhere, OnOne, Leaves, Fails];
        all.get(usize::from(pick) % all.len()).copied().unwrap_or(Crashes)
    }
}
