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
    let report = search(&bounds, 64);
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

/// The smallest bounds at which a fault can be told from health.
fn bounds_for(bug: Bug) -> Bounds {
    let small = Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 1) };
    match bug {
        Bug::WrongTurn | Bug::ReleaseTwice => Bounds { troubles: 0, ..small },
        Bug::KeepRefused | Bug::EndlessStop => Bounds { commands: 1, ..small },
        Bug::AckByOrder => Bounds { connections: 2, window: 2, ..small },
        _ => small,
    }
}

/// How the search names what is wrong: the number of the guarantee, mostly.
fn sign_of(bug: Bug) -> &'static str {
    match bug {
        Bug::RedispatchAtExit | Bug::HideLateAck => "3: ",
        Bug::KeepRefused | Bug::ReleaseTwice => "1: ",
        Bug::WrongTurn => "4: ",
        Bug::AckByOrder => "11: ",
        Bug::SpareAll => "w1 is forgotten and has not ended",
        Bug::EndlessStop | Bug::NeverCooled => "a deadline is not later than the wake",
    }
}

#[test]
fn each_deliberate_fault_is_found() {
    for &bug in Bug::ALL {
        let bounds = bounds_for(bug);
        let mut search = Search::new(bounds.clone());
        search.bug = Some(bug);
        let report = search.run();
        let Some(failure) = report.failure else { panic!("{bug:?} went unnoticed\n{report}") };
        let trace = trace(&bounds, Some(bug), &failure);
        println!("{bug:?}:\n{trace}\n");
        assert!(failure.what.starts_with(sign_of(bug)), "{bug:?} was taken for another:\n{trace}");
        // The trace is what happens: the same steps lead to the same fault.
        let again = search.run().failure;
        assert_eq!(again.as_ref(), Some(&failure), "{bug:?} has another trace each time");

        search.bug = None;
        let healthy = search.run();
        assert_eq!(healthy.failure, None, "the primary itself fails where {bug:?} should");
    }
}

#[test]
fn threads_make_no_difference() {
    let bounds = Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 2) };
    let mut search = Search::new(bounds);
    search.sample = 64;
    let one = search.run();
    search.threads = 3;
    let three = search.run();
    let numbers = |r: &Report| (r.states, r.transitions, r.depth, r.widest, r.goals, r.settled);
    assert_eq!(numbers(&one), numbers(&three));
}

/// Whoever does things later can do them at once: the prompt world is a part of the lazy one.
#[test]
fn a_lazy_world_reaches_all_that_a_prompt_one_does() {
    let bounds = Bounds { troubles: 1, ..Bounds::new(1, 1) };
    let prompt = search(&bounds, 64);
    let lazy = search(&Bounds { lazy: true, ..bounds }, 64);
    assert!(lazy.states > prompt.states);
    let mut both = lazy.goals;
    both.join(prompt.goals);
    assert_eq!(both, lazy.goals);
}
