//! Ids of workers, listeners, connections and messages. The part that creates a thing mints its id;
//! ids rise strictly and are never reused.

use core::fmt;
use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// What the id tables need to know about an id.
pub(crate) trait Id: Copy + Eq + Ord {
    /// The number behind the id.
    fn raw(self) -> NonZeroU64;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The first id of its kind.
            pub(crate) const FIRST: Self = $name(NonZeroU64::MIN);

            /// The id minted after this one.
            pub(crate) const fn next(self) -> Self {
                $name(self.0.saturating_add(1))
            }

            /// The number behind the id, for tables, logs and the wire. Counts from 1.
            pub const fn get(self) -> u64 {
                self.0.get()
            }

            /// The id with this number, for traces and tests; `None` for zero. The machine answers
            /// an id that it did not mint with [`Misuse`](crate::Misuse), or counts it if it came
            /// over the wire.
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match NonZeroU64::new(raw) {
                    Some(raw) => Some($name(raw)),
                    None => None,
                }
            }
        }

        impl From<NonZeroU64> for $name {
            fn from(raw: NonZeroU64) -> Self {
                $name(raw)
            }
        }

        impl Id for $name {
            fn raw(self) -> NonZeroU64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// A worker process; its replacement gets a new id. Minted by the primary. Shown as `w7`.
    WorkerId = "w";
    /// A listener. Minted by the primary; workers echo it. Shown as `l1`.
    ListenerId = "l";
    /// A connection. Minted by [`Custody`](crate::Custody). Shown as `c42`.
    ConnId = "c";
    /// The number of a message that wants an answer; counts per channel and direction. Shown as
    /// `#9`.
    Seq = "#";
}

impl Seq {
    /// The `n`th number after this one.
    pub(crate) const fn plus(self, n: u32) -> Self {
        Seq(self.0.saturating_add(n as u64))
    }

    /// This number and the ones after it, `count` in all: those of a handoff of several
    /// connections.
    pub fn following(self, count: u32) -> impl Iterator<Item = Seq> {
        (0..count).map(move |n| self.plus(n))
    }
}

/// A place for a worker, from 0 up to the wanted number of workers. A respawn fills the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
