//! Outputs grow at most linearly in the inputs.

use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::ops::Mix;

use crate::support::{catches, holds};

#[test]
fn outputs_are_few() {
    holds(&[Property::Linear], Mix::ALL, 200);
}

#[test]
fn many_outputs_are_noticed() {
    catches(Property::Linear, Mutant::Chatter, Mix::CALM);
}
