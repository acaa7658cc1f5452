//! The exhaustive search at small bounds, and the deliberate faults that it must find.

use roundel_tests::explore::bounds::Bounds;
use roundel_tests::explore::bug::Bug;
use roundel_tests::explore::goals::Goals;
use roundel_tests::explore::report::{Report, trace};
use roundel_tests::explore::search::Search;

/// Searches everything, and looks closely at each state.
fn search(bounds: &Bounds, sample: u64) -> Report {
    let mut search = Search::new(bounds.clone());
    search.sample = sample;
    let report = search.run();
    println!("{bounds:?}\n{report}");
    if let Some(failure) = &report.failure {
        panic!("by a shortest way:\n{}", trace(bounds, None, failure));
    }
    assert!(!report.given_up, "it had no limit");
    report
}

fn assert_reached(bounds: &Bounds, reports: &[Report]) {
    let mut reached = Goals::default();
    reports.iter().for_each(|report| reached.join(report.goals));
    let all = Report { goals: reached, ..Report::default() };
    let missed: Vec<String> = all.missed(bounds.goals()).iter().map(ToString::to_string).collect();
    assert!(missed.is_empty(), "never: {missed:?}");
}

#[test]
fn one_worker_and_a_connection_with_two_troubles() {
    let bounds = Bounds::new(1, 1);
    let report = search(&bounds, 8);
    assert_reached(&bounds, &[report]);
}

#[test]
fn two_workers_with_one_trouble_and_a_stop() {
    let bounds = Bounds { troubles: 1, ..Bounds::new(2, 1) };
    search(&bounds, 4);
}

#[test]
fn a_wider_window() {
    let bounds = Bounds { troubles: 1, commands: 0, window: 2, ..Bounds::new(2, 2) };
    search(&bounds, 4);
}

/// From before the first bind, with an embedder that may do everything later, a queue of one and
/// a budget of one early failure.
#[test]
fn a_cold_start_at_the_limits() {
    let bounds = Bounds { troubles: 1, cold: true, lazy: true, ..Bounds::new(1, 1) };
    let bounds = Bounds { strict: true, ..bounds };
    search(&bounds, 4);
}
