//! After a wake the next deadline is later: nobody spins.

use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;

use crate::support::{catches, holds};

#[test]
fn a_wake_leaves_only_later_deadlines() {
    holds(&[Property::Timeouts], Mix::ALL, 150);
}

#[test]
fn a_stale_deadline_is_noticed() {
    catches(Property::Timeouts, Mutant::StaleDeadline, Mix::CALM);
}
