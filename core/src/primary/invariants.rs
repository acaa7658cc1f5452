//! Names of what always holds inside the machine. If a fault of this crate breaks one, nothing
//! happens in a release build: a primary that goes on serves more clients than one that has
//! panicked.

/// A position in a table that was just looked up, or that the ready queue has.
pub(super) const POSITION: &str = "a position is that of an entry";

/// A listener's turn.
pub(super) const TURN: &str = "a listener with a turn has a pending connection";

/// A worker's slot.
pub(super) const SLOT: &str = "a slot that a worker or timer names is there";

/// A worker that was just looked at.
pub(super) const WORKER: &str = "a worker with a channel is in the table";

/// Notes that an invariant does not hold. A late report about a worker or listener that is gone is
/// not such a case.
#[cold]
#[inline(never)]
#[track_caller]
pub(super) fn broken(invariant: &'static str) {
    debug_assert!(false, "broken invariant: {invariant}");
}
