//! Guarantee 5: a connection waits only while nobody is eligible for its listener.

use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;

use crate::support::{catches, holds};

#[test]
fn no_connection_waits_beside_an_eligible_worker() {
    holds(&[Property::WorkConservation], Mix::ALL, 200);
}

#[test]
fn an_idle_worker_is_noticed() {
    catches(Property::WorkConservation, Mutant::DelayAck, Mix::CALM);
}
