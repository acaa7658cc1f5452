//! A slice of the simulation, the seeds that once failed, and what the deliberate faults break.

use roundel_tests::faults::table;
use roundel_tests::sim::simulate::{Job, Size, Summary, report, run_all, run_seed};

/// As many as take about a minute on two processors.
const SEEDS: u64 = 12_000;

#[test]
fn a_slice_of_the_seeds_passes() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let job = Job { seeds: 0..seeds, progress: false, ..Job::default() };
    let summary = run_all(&job);
    if let Some((seed, fault)) = &summary.failure {
        panic!("{}", report(*seed, job.size, fault));
    }
    let gaps = summary.coverage.gaps();
    assert!(seeds < SEEDS || gaps.is_empty(), "{gaps:#?}");
}

/// Seeds that found something, with the length at which they did, and what it was. What a seed does
/// changes with what can happen: faults of the core have tests of their own (`tests/prop`) as well.
const ONCE_FAILED: &[(u64, usize, &str)] = &[
    (48_883, 320, "core: listeners lost their turn when others were served"),
    (2_476, 320, "life model: wakes that are late by less than a second put the end off"),
    (3_383, 200, "life model: a process that is let go of counted beside its replacement"),
    (5_302, 320, "life model: a slot that has ended waited for a worker"),
    (62, 320, "core: a program without cluster was ended for speaking before it listened"),
    (29_890, 320, "life model: a stop that ended late was taken for a crash loop"),
    (39_221, 320, "life model: a replacement that waits for a place waited for a delay as well"),
    (1_006_320, 320, "simulator: an honest worker babbled before it was online"),
    (40_266, 320, "simulator: many listeners under pressure were taken for too many outputs"),
    (322_752, 320, "simulator: a snapshot retried a blocked send"),
    (2_111, 320, "core: a Node worker that closed its channel early and lived on was not replaced"),
    (
        9_431,
        320,
        "core: a worker that lives on without its channel kept a listener that nobody holds",
    ),
    (711_164, 320, "core: one that failed early and ended late was replaced beyond the budget"),
    (43, 320, "core: a recycled worker that was gone had another slot"),
    (46, 320, "core: a recycled worker that died held the others up until a timeout"),
    (655, 320, "core: a reminder for the ack timeout of a failed reload put the right one off"),
    (1_460, 320, "core: the new worker of an empty slot counted without listening"),
    (7_578, 320, "core: a half-done reload left a listener that no generation had"),
    (11_634, 320, "core: a new worker that waited for long was never too old"),
    (46_264, 320, "core: of two numbers of workers the first one stood"),
    (138_303, 320, "core: one that failed early and lives on was replaced beyond the budget"),
];

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, length, what) in ONCE_FAILED {
        let (mut summary, size) = (Summary::default(), Size { length: *length, workers: None });
        if let Some(fault) = run_seed(*seed, size, &mut summary) {
            panic!("{what}: {}", report(*seed, size, &fault));
        }
    }
}

#[test]
fn each_deliberate_fault_breaks_its_guarantee() {
    let (table, missed) = table::search();
    assert!(missed.is_empty(), "{missed:#?}");
    let page = include_str!("../docs/mutants.md");
    assert!(page.contains(&table), "print it anew with `simulate --mutants`:\n{table}");
}
