//! The exhaustive search at small bounds, and the deliberate faults that it must find.
