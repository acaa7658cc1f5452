//! How each property runs.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestError, TestRunner};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use roundel_core::Config;
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};
use roundel_tests::sim::plan::{Plan, World, key, plan};

/// Cases of each property, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 1_500;

fn runs() -> Runs {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    Runs {
        cases: cases.unwrap_or(CASES),
        source_file: Some(file!()),
        // Beside the tests, committed when there is one.
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::WithSource("regressions"),
        )),
        ..Runs::default()
    }
}

/// A mutant's runs: as many as it takes within reason, and no search for the smallest.
fn mutant_runs() -> Runs {
    Runs {
        cases: runs().cases.max(CASES),
        failure_persistence: None,
        max_shrink_iters: 0,
        ..runs()
    }
}

/// Runs whole lives and fails with the first fault of these properties.
pub(crate) fn holds(properties: &[Property], mix: Mix, length: usize) {
    let result = TestRunner::new(runs()).run(&plan(mix, length), |plan| {
        let faults = Sim::life(&plan, None);
        match faults.iter().find(|fault| properties.contains(&fault.property)) {
            Some(fault) => Err(TestCaseError::fail(format!("{fault:?}"))),
            None => Ok(()),
        }
    });
    let Err(error) = result else { return };
    if let TestError::Fail(_, plan) = &error {
        eprintln!("--- the smallest run: {:?}", plan.ops);
        eprintln!("{}", Sim::traced_life(plan, None).1);
    }
    panic!("{properties:?}: {error}");
}

/// Asserts that some run under the mutant breaks the property: it can fail.
pub(crate) fn catches(property: Property, mutant: Mutant, mix: Mix) {
    let result = TestRunner::new(mutant_runs()).run(&plan(mix, 120), |plan| {
        let faults = Sim::life(&plan, Some(mutant));
        let found = faults.iter().any(|fault| fault.property == property);
        if found { Err(TestCaseError::fail("caught")) } else { Ok(()) }
    });
    assert!(
        matches!(result, Err(TestError::Fail(..))),
        "{mutant:?} went unnoticed by {property:?}"
    );
}

/// Checks something of many plans.
pub(crate) fn for_all(mix: Mix, length: usize, check: impl Fn(&Plan)) {
    let result = TestRunner::new(runs()).run(&plan(mix, length), |plan| {
        check(&plan);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Asserts that a check with a deliberate fault in it fails for some plan.
pub(crate) fn fails(mix: Mix, length: usize, check: impl Fn(&Plan)) {
    let result =
        TestRunner::new(mutant_runs()).run(&plan(mix, length), |plan| {
            match catch_unwind(AssertUnwindSafe(|| check(&plan))) {
                Ok(()) => Ok(()),
                Err(_) => Err(TestCaseError::fail("caught")),
            }
        });
    assert!(matches!(result, Err(TestError::Fail(..))), "the fault went unnoticed");
}

/// Everything but what ends a run early.
pub(crate) fn quiet() -> Mix {
    Mix { stops: false, ..Mix::ALL }
}

/// Workers with a window of one on one listener.
pub(crate) fn small_plan(workers: u32, ops: Vec<Op>) -> Plan {
    let config = Config::builder()
        .workers(workers)
        .ack_timeout(Some(Duration::from_secs(600)))
        .max_stray_acks(20)
        .build()
        .unwrap();
    Plan { config, world: World::CALM, keys: vec![key(8_000)], rivals: vec![], ops }
}
