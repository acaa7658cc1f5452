//! Guarantee 1: every connection is in one place, and is released exactly once.

use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;

use crate::support::{catches, holds};

#[test]
fn every_connection_is_released_once() {
    holds(&[Property::Conservation], Mix::ALL, 200);
}

#[test]
fn a_lost_release_is_noticed() {
    catches(Property::Conservation, Mutant::SwallowRelease, Mix::CALM);
}

#[test]
fn a_repeated_release_is_noticed() {
    catches(Property::Conservation, Mutant::RepeatRelease, Mix::CALM);
}
