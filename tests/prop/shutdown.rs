//! Guarantee 10: a shutdown ends by its deadline, whatever workers do.

use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;

use crate::support::{catches, holds};

#[test]
fn a_shutdown_ends() {
    holds(&[Property::Shutdown], Mix::ALL, 150);
}

#[test]
fn a_missing_deadline_is_noticed() {
    catches(Property::Shutdown, Mutant::EndlessStop, Mix::ALL);
}
