//! Guarantee 4: each handoff goes to the eligible worker with the fewest in flight, among equals
//! to the one longest there; and the even spread that follows.

use std::collections::BTreeMap;

use roundel_core::{Output, Time, ToWorker, WorkerId};
use roundel_tests::fault::Property;
use roundel_tests::mutants::Mutant;
use roundel_tests::ops::{Mix, Op};
use roundel_tests::sim::Sim;

use crate::support::{catches, holds, small_plan};

#[test]
fn the_rule_of_the_reference_is_kept() {
    holds(&[Property::Fairness], Mix { stops: false, ..Mix::ALL }, 250);
}

#[test]
fn the_rule_is_kept_by_traffic_alone() {
    holds(&[Property::Fairness], Mix { declines: true, ..Mix::CALM }, 250);
}

#[test]
fn a_skipped_worker_is_noticed() {
    catches(Property::Fairness, Mutant::SkipWorker, Mix::CALM);
}

#[test]
fn equal_workers_get_equal_numbers() {
    for workers in 1..5 {
        let mut ops = vec![Op::Round, Op::Round];
        for _ in 0..100 {
            ops.extend([Op::Connect(0, 1), Op::Accept(0, 1), Op::Round]);
        }
        let sim = Sim::after(&small_plan(workers, ops), Time::from_millis(5), None);
        let mut counts: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for output in &sim.outputs {
            if let Output::Send { worker, msg: ToWorker::NewConn { .. }, .. } = output {
                *counts.entry(*worker).or_default() += 1;
            }
        }
        let (least, most) = (counts.values().min(), counts.values().max());
        assert_eq!(counts.len(), workers as usize);
        assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
    }
}
