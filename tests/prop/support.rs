//! How each property runs.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestError, TestRunner};

use roundel_tests::fault::Property;
use roundel_tests::mutants::Mutant;
use roundel_tests::ops::{Mix, plan};
use roundel_tests::sim::Sim;

/// Cases of each property, unless `PROPTEST_CASES` says otherwise.
pub(crate) const CASES: u32 = 300;

/// How many cases to run.
pub(crate) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES)
}

/// Runs whole lives and fails with the first fault of these properties.
pub(crate) fn holds(properties: &[Property], mix: Mix, length: usize) {
    let mut runner =
        TestRunner::new(Runs { cases: cases(), failure_persistence: None, ..Runs::default() });
    let result = runner.run(&plan(mix, length), |plan| {
        let faults = Sim::life(&plan, None);
        match faults.iter().find(|fault| properties.contains(&fault.property)) {
            Some(fault) => Err(TestCaseError::fail(format!("{fault:?}"))),
            None => Ok(()),
        }
    });
    let Err(error) = result else { return };
    if let TestError::Fail(_, plan) = &error {
        eprintln!("--- the smallest run: {:?}", plan.ops);
        Sim::traced_life(plan);
    }
    panic!("{properties:?}: {error}");
}

/// Asserts that some run under the mutant breaks the property: it can fail.
pub(crate) fn catches(property: Property, mutant: Mutant, mix: Mix) {
    let runs = Runs { cases: cases().max(CASES), failure_persistence: None, ..Runs::default() };
    let runs = Runs { max_shrink_iters: 0, ..runs };
    let mut runner = TestRunner::new(runs);
    let result = runner.run(&plan(mix, 120), |plan| {
        let faults = Sim::life(&plan, Some(mutant));
        let found = faults.iter().any(|fault| fault.property == property);
        if found { Err(TestCaseError::fail("caught")) } else { Ok(()) }
    });
    assert!(
        matches!(result, Err(TestError::Fail(..))),
        "{mutant:?} went unnoticed by {property:?}"
    );
}
