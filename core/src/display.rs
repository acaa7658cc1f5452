//! Types that have a `name()` are displayed by it.

use core::fmt;

use crate::node::{HandleKind, Skipped};
use crate::{Codec, ExitClass, Life, Overflow, Policy, Refusal, Respawn, Signal, StopSignal};

macro_rules! shown_by_name {
    ($($type:ty)*) => {
        $(impl fmt::Display for $type {
            /// Its `name()`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        })*
    };
}

shown_by_name! {
    Codec ExitClass HandleKind Life Overflow Policy Refusal Respawn Signal Skipped StopSignal
}
