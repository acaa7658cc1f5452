//! The exhaustive search at small bounds, and the deliberate faults that it must find.

use std::collections::HashMap;

use roundel_tests::explore::action::Action;
use roundel_tests::explore::bounds::{Bounds, Reduce};
use roundel_tests::explore::bug::Bug;
use roundel_tests::explore::fingerprint::fingerprints;
use roundel_tests::explore::goals::Goals;
use roundel_tests::explore::report::{Report, trace};
use roundel_tests::explore::search::Search;
use roundel_tests::explore::world::{Left, World};

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
    let report = search(&bounds, 16);
    assert_reached(&bounds, &[report]);
}

/// Every state is looked at closely: among other things each is written as a snapshot, read
/// back, and gone on from.
#[test]
fn two_workers_with_one_trouble_and_a_stop() {
    let bounds = Bounds { troubles: 1, ..Bounds::new(2, 1) };
    let report = search(&bounds, 1);
    assert_eq!(report.settled, report.states as u64);
}

/// Every state here, too.
#[test]
fn a_wider_window() {
    let bounds = Bounds { troubles: 1, commands: 0, window: 2, ..Bounds::new(2, 2) };
    let report = search(&bounds, 1);
    assert_eq!(report.settled, report.states as u64);
}

#[test]
fn node_workers_that_hold_answers_back() {
    let bounds = Bounds { node: true, ..Bounds::new(1, 1) };
    let report = search(&bounds, 64);
    assert_reached(&bounds, &[report]);
}

#[test]
fn a_slot_is_given_up() {
    let bounds = Bounds { strict: true, ..Bounds::new(1, 1) };
    let report = search(&bounds, 64);
    assert_reached(&bounds, &[report]);
}

/// From before the first bind, with an embedder that may do everything later, a queue of one and
/// a budget of one early failure.
#[test]
fn a_cold_start_at_the_limits() {
    let bounds = Bounds { troubles: 1, cold: true, lazy: true, ..Bounds::new(1, 1) };
    let bounds = Bounds { strict: true, ..bounds };
    search(&bounds, 4);
}

/// A reload, one slot after the other and all together: with one death, failure to become ready or
/// stop at every step. Larger ones are a command of their own: see `docs/model-check.md`.
#[test]
fn a_reload_with_one_trouble_or_a_stop() {
    for batch in [1, 2] {
        let one = Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 1) }.reloading(batch);
        let stop = Bounds { troubles: 0, commands: 1, ..Bounds::new(2, 1) }.reloading(batch);
        for bounds in [one, stop] {
            let report = search(&bounds, 4);
            assert_reached(&bounds, &[report]);
        }
    }
}

/// The smallest bounds at which a fault can be told from health.
fn bounds_for(bug: Bug) -> Bounds {
    let small = Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 1) };
    match bug {
        Bug::WrongTurn | Bug::ReleaseTwice => Bounds { troubles: 0, ..small },
        Bug::KeepRefused | Bug::EndlessStop => Bounds { commands: 1, ..small },
        Bug::AckByOrder => Bounds { connections: 2, window: 2, ..small },
        Bug::DeafToListening | Bug::NeverStopped => Bounds { troubles: 0, ..small },
        Bug::WideWindow => Bounds { connections: 2, workers: 1, troubles: 0, ..small },
        Bug::NoSuccessor => Bounds { workers: 1, ..small },
        Bug::PatientBudget | Bug::BlameProgram => {
            Bounds { workers: 1, troubles: 2, strict: true, ..small }
        }
        Bug::ForgetfulSnapshot => Bounds { connections: 3, ..small },
        Bug::HideDoubt => Bounds { node: true, troubles: 2, ..small },
        Bug::NoHold | Bug::WholeAtOnce => Bounds { troubles: 0, ..small }.reloading(1),
        Bug::EndOld => Bounds { connections: 0, ..small }.reloading(1),
        Bug::OutliveStop => Bounds { troubles: 0, commands: 1, ..small }.reloading(1),
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
        Bug::GiveUpEarly => "2: ",
        Bug::HideDoubt => "3: ",
        Bug::DeafToListening => "5: ",
        Bug::WideWindow => "6: ",
        Bug::NoSuccessor => "7: ",
        Bug::PatientBudget | Bug::BlameProgram => "9: ",
        Bug::NoHold | Bug::WholeAtOnce | Bug::EndOld | Bug::OutliveStop => "8: ",
        Bug::NeverStopped | Bug::EmptyForEver => "10: ",
        Bug::ForgetfulSnapshot => "12: ",
        Bug::SpareAll => "w1 is forgotten and has not ended",
        Bug::EndlessStop | Bug::NeverCooled => "a deadline is not later than the wake",
    }
}

/// Each fault is in the table of the docs with what it is found by, and each guarantee has one.
#[test]
fn the_docs_list_the_deliberate_faults() {
    let page = include_str!("../docs/model-check.md");
    for &bug in Bug::ALL {
        let row = format!("| `{bug:?}` | {} |", sign_of(bug).trim_end_matches(": "));
        assert!(page.contains(&row), "this is not in the docs: {row}");
    }
    for guarantee in 1..=12 {
        let sign = format!("{guarantee}: ");
        assert!(Bug::ALL.iter().any(|&bug| sign_of(bug) == sign), "{guarantee} has no fault");
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

/// An actor that may do things later can do them at once: the prompt world is a part of the lazy
/// one.
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

/// Bounds at which a search without reductions is affordable, and something of everything is in.
fn affordable() -> Vec<Bounds> {
    let one = |workers, connections| Bounds { troubles: 1, ..Bounds::new(workers, connections) };
    let node = Bounds { node: true, commands: 0, ..Bounds::new(1, 1) };
    let strict = Bounds { cold: true, lazy: true, strict: true, ..one(1, 1) };
    let two = Bounds { commands: 0, ..Bounds::new(1, 2) };
    let reload = Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 0) }.reloading(1);
    vec![two, reload, one(2, 2), Bounds { commands: 0, window: 2, ..one(2, 3) }, strict, node]
}

/// Dominance and symmetry leave out only what is like something that is searched; all reductions
/// together reach the same goals.
#[test]
fn reductions_hide_nothing() {
    let slim = Reduce { dominance: true, symmetry: true, ..Reduce::NONE };
    let several = Bounds { troubles: 1, respawns: 1, commands: 0, ..Bounds::new(3, 2) };
    let ties = Bounds { respawns: 0, commands: 0, ..Bounds::new(2, 2) };
    for bounds in affordable().into_iter().chain([several, ties]) {
        let run = |reduce| {
            let mut search = Search::new(Bounds { reduce, ..bounds.clone() });
            search.sample = u64::MAX;
            search.collect = true;
            let report = search.run();
            assert_eq!(report.failure, None, "{bounds:?}");
            report
        };
        let (plain, slim, all) = (run(Reduce::NONE), run(slim), run(Reduce::ALL));
        println!("{bounds:?}: {}, {}, {} states", plain.states, slim.states, all.states);
        assert!(plain.alike == slim.alike, "other states: {bounds:?}");
        assert!(all.alike.is_subset(&plain.alike), "states from nowhere: {bounds:?}");
        assert_eq!(plain.goals, slim.goals, "{bounds:?}");
        assert_eq!(plain.goals, all.goals, "{bounds:?}");
        assert!(all.states < slim.states && slim.states < plain.states);
    }
}

/// A next state: what it is known by, and how it comes.
type Future = (u128, Left, Action);

/// What can come next, as what the next states are known by.
fn futures(world: &World) -> Vec<Future> {
    let exchangeable = fingerprints(world).exchangeable;
    let mut next = Vec::new();
    for action in world.actions() {
        let mut after = world.clone();
        if after.apply(action) {
            let prints = fingerprints(&after);
            assert!(prints.exchangeable || !exchangeable, "a tie comes where none can");
            next.push((if exchangeable { prints.alike } else { prints.exact }, after.left, action));
        }
    }
    next.sort_unstable_by_key(|(print, left, _)| (*print, left.troubles, left.commands));
    next
}

/// Two states with one fingerprint have the same next states, by their fingerprints: so nothing
/// that a fingerprint leaves out makes a difference, in the primary's canonical view or outside.
#[test]
fn states_with_one_fingerprint_have_one_future() {
    for bounds in affordable() {
        let bounds = Bounds { reduce: Reduce { symmetry: true, ..Reduce::NONE }, ..bounds };
        let mut known: HashMap<(u128, Left), World> = HashMap::new();
        let mut waiting = vec![World::new(&bounds, None)];
        let mut met = 0_u64;
        while let Some(world) = waiting.pop() {
            let key = (fingerprints(&world).key(), world.left);
            if let Some(before) = known.get(&key) {
                let (one, other) = (futures(before), futures(&world));
                let alike = |a: &[Future], b: &[Future]| {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.0, a.1) == (b.0, b.1))
                };
                if !alike(&one, &other) {
                    let only = |these: &[Future], those: &[Future]| {
                        let there = |f: &Future| those.iter().any(|g| (f.0, f.1) == (g.0, g.1));
                        let lone = these.iter().filter(|f| !there(f));
                        lone.map(|future| future.2.to_string()).collect::<Vec<_>>()
                    };
                    let differ = (only(&one, &other), only(&other, &one));
                    panic!("two futures of one state: {differ:#?}\n{before:#?}\n{world:#?}");
                }
                met += 1;
                continue;
            }
            known.insert(key, world.clone());
            if world.left.respawns >= 0 {
                waiting.extend(world.actions().into_iter().filter_map(|action| {
                    let mut after = world.clone();
                    after.apply(action).then_some(after)
                }));
            }
        }
        println!("{bounds:?}: {} states, met again {met} times", known.len());
        assert!(met > 1_000);
    }
}

/// How many states, steps between them and levels the small worlds have. Another number is another
/// protocol, or another opinion on which states are alike, and is to be meant.
#[test]
fn small_worlds_have_their_states() {
    let one = Bounds::new(1, 1);
    let plain = |bounds| Bounds { reduce: Reduce::NONE, ..bounds };
    let mut others = Vec::new();
    for (bounds, known) in [
        (one.clone(), (12_590, 24_606, 20)),
        (plain(one.clone()), (19_147, 43_217, 21)),
        (plain(Bounds { troubles: 1, commands: 0, ..Bounds::new(2, 2) }), (1_985, 4_232, 14)),
        (plain(Bounds { node: true, commands: 0, ..one.clone() }), (4_568, 9_624, 19)),
        (
            plain(Bounds { cold: true, lazy: true, strict: true, troubles: 1, ..one }),
            (4_078, 9_625, 24),
        ),
    ] {
        let mut search = Search::new(bounds.clone());
        search.sample = u64::MAX;
        let report = search.run();
        let found = (report.states, report.transitions, report.depth);
        if found != known {
            others.push((found, known));
        }
    }
    assert!(others.is_empty(), "found, and known: {others:?}");
}
