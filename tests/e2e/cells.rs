//! The tests of a scenario, one for each pair: its cells in the table of results. A cell is run, or
//! ignored for a reason that the table shows.
//!
//! The full matrix takes long. Without `ROUNDEL_MATRIX=full` a scenario runs on two columns only:
//! with one listener where primary and workers are of one adapter, with two where they are not. Which
//! ones is chosen by the scenario's name, so that each column has its share.

use std::cell::Cell;

use roundel_tests::programs::optional::{self, remember_skip};

use crate::pair::{Adapter, Pair, in_a_namespace};

/// Scenarios that take the machine, or many seconds. Of these one column runs, with two listeners
/// and with one in turns.
const LONG: [&str; 20] = [
    "every_crash_is_replaced_before_the_worker_is_gone",
    "a_client_that_waits_before_it_speaks_is_answered",
    "ab_sees_no_failure",
    "a_blocked_worker_holds_up_one_connection_at_most",
    "connections_that_come_while_no_worker_lives_are_served",
    "scrapes_and_floods_hold_up_nobody",
    "a_flood_that_nobody_reads_holds_up_nothing",
    "half_a_message_then_silence",
    "the_limit_on_open_files_is_no_spin",
    "workers_at_their_own_limit_cost_no_spin_either",
    "a_primary_that_was_stopped_reads_answers_before_the_clock",
    "a_stopped_worker_that_is_killed_loses_nothing",
    "under_load_the_death_of_all_workers_refuses_nobody",
    "without_its_default_place_the_primary_serves_on",
    "with_all_workers_killed_connections_wait",
    "a_thousand_connections_spread_exactly",
    "a_flood_of_valid_messages_is_only_slowed",
    "one_that_keeps_a_client_is_not",
    "descriptors_that_nobody_asked_for_are_discarded",
    "a_grandchild_that_holds_the_channel_does_not_hold_up_redispatch",
];

thread_local! {
    /// The test that runs on this thread.
    static TEST: Cell<&'static str> = const { Cell::new("") };
}

/// Runs a scenario on a pair, as the test of this name, or says why it is skipped.
pub(crate) fn run(test: &'static str, on: Pair, scenario: fn(Pair)) {
    // As the test harness knows it: without the name of the crate.
    let test = test.split_once("::").map_or(test, |(_, rest)| rest);
    TEST.set(test);
    remember_skip(test, None);
    let name = test.split("::").nth(1).unwrap_or_default();
    if !optional::full_matrix() && !runs_always(name, on) {
        return pass_over(optional::NOT_ON_DIAGONAL);
    }
    if on.worker == Adapter::Node && optional::node().is_none() {
        return skip("no node");
    }
    scenario(on);
}

/// Runs a scenario with the primary as process 1, as the test of this name, or says why it is
/// skipped. It runs only in the full matrix: the scenarios of `process_one` always do.
pub(crate) fn run_as_process_one(test: &'static str, on: Pair, scenario: fn(Pair)) {
    let test = test.split_once("::").map_or(test, |(_, rest)| rest);
    TEST.set(test);
    remember_skip(test, None);
    if !optional::full_matrix() {
        return pass_over(optional::NOT_ON_DIAGONAL);
    }
    if let Err(why) = can_be_process_one() {
        return if may_make_namespaces() { skip(&why) } else { pass_over(&why) };
    }
    scenario(on.as_process_one());
}

/// Whether unshare(1) makes a PID namespace here, and if not, what it says.
fn can_be_process_one() -> Result<(), String> {
    let output = in_a_namespace("true").output().map_err(|error| format!("unshare: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Whether the test has the right to make namespaces (`CAP_SYS_ADMIN`, bit 21 of capabilities(7)).
pub(crate) fn may_make_namespaces() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << 21 != 0)
}

/// Whether a cell runs without the full matrix too.
fn runs_always(scenario: &str, on: Pair) -> bool {
    is_on_diagonal(scenario, on) && is_its_turn(scenario, on)
}

/// Whether a cell is one of the two that a scenario has without the full matrix.
fn is_on_diagonal(scenario: &str, on: Pair) -> bool {
    let primary = [Adapter::Mio, Adapter::Smol][scenario.len() % 2];
    match on.listeners {
        1 => on.primary == on.worker && on.primary == primary,
        // A scenario has two listeners on every second column, so one of these is among them.
        _ => match on.worker {
            Adapter::Node => on.primary == Adapter::Mio,
            Adapter::Mio => on.primary == Adapter::Smol,
            Adapter::Smol => false,
        },
    }
}

/// Whether a cell of a scenario that takes long is the one of the two that runs.
fn is_its_turn(scenario: &str, on: Pair) -> bool {
    match LONG.iter().position(|name| *name == scenario) {
        Some(place) => (place % 2 == 0) == (on.listeners == 2),
        None => true,
    }
}

/// Says that the scenario is skipped. With `ROUNDEL_NO_SKIP` set that is a failure.
pub(crate) fn skip(why: &str) {
    remember_skip(TEST.get(), Some(why));
    optional::skip(why);
}

/// The same where that is nobody's fault, and never a failure.
pub(crate) fn pass_over(why: &str) {
    remember_skip(TEST.get(), Some(why));
    println!("skipped: {why}");
}

/// Scenarios that run on all pairs, `scenario::primary::worker` by name, and again on half of the
/// pairs with two listeners, `scenario::two::primary::worker`: the pairs of this half and of that
/// half in turns. Where one makes no sense for Node programs, or for two listeners, it says why:
/// `scenario: not Node "it has no such thing"`, `scenario: one listener "it counts them"`.
macro_rules! on_all {
    ($($name:ident $(: $(not Node $node:literal)? $(one listener $one:literal)?)?),+ $(,)?) => {
        crate::cells::scenarios! { this $($name [$($($node)?)?] [$($($one)?)?])+ }
    };
}

/// Scenarios whose workers are none of an adapter, with the reason: each primary runs them once.
/// One of the primaries, in turns, runs them with two listeners too, unless there is a reason.
macro_rules! on_both {
    ($why:literal $(, one listener $one:literal)?: $($name:ident),+ $(,)?) => {
        crate::cells::by_primary! { this $why [$($one)?] $($name)+ }
    };
}

/// Scenarios that run once more with the primary as process 1 of a PID namespace.
macro_rules! as_process_one {
    ($($name:ident),+ $(,)?) => {
        mod as_process_one {
            $(
                mod $name {
                    use crate::cells::run_as_process_one as run;
                    use crate::pair::{Adapter, Pair};
                    use super::super::$name as scenario;

                    #[test]
                    fn under_roundel() {
                        let name = concat!(module_path!(), "::under_roundel");
                        run(name, Pair::new(Adapter::Mio, Adapter::Mio), scenario);
                    }

                    #[test]
                    fn under_roundel_smol() {
                        let name = concat!(module_path!(), "::under_roundel_smol");
                        run(name, Pair::new(Adapter::Smol, Adapter::Smol), scenario);
                    }
                }
            )+
        }
    };
}

/// [`on_all`], one scenario after the other.
macro_rules! scenarios {
    ($half:ident) => {};
    (this $name:ident $node:tt $one:tt $($rest:tt)*) => {
        crate::cells::scenario! { this $name $node $one }
        crate::cells::scenarios! { that $($rest)* }
    };
    (that $name:ident $node:tt $one:tt $($rest:tt)*) => {
        crate::cells::scenario! { that $name $node $one }
        crate::cells::scenarios! { this $($rest)* }
    };
}

macro_rules! scenario {
    ($half:ident $name:ident [$($node:literal)?] $one:tt) => {
        mod $name {
            crate::cells::cells! { one (super::super::$name), roundel, Mio,
                mio Mio [], smol Smol [], node Node [$($node)?] }
            crate::cells::cells! { one (super::super::$name), roundel_smol, Smol,
                mio Mio [], smol Smol [], node Node [$($node)?] }
            mod two {
                crate::cells::again! { $half $name [$($node)?] $one }
            }
        }
    };
}

/// The cells of a scenario that has two listeners.
macro_rules! again {
    ($half:ident $name:ident $node:tt [$one:literal]) => {
        crate::cells::cells! { two (super::super::super::$name), roundel, Mio, mio Mio [$one] }
    };
    (this $name:ident [$($node:literal)?] []) => {
        crate::cells::cells! { two (super::super::super::$name), roundel, Mio,
            mio Mio [], node Node [$($node)?] }
        crate::cells::cells! { two (super::super::super::$name), roundel_smol, Smol,
            smol Smol [] }
    };
    (that $name:ident [$($node:literal)?] []) => {
        crate::cells::cells! { two (super::super::super::$name), roundel, Mio, smol Smol [] }
        crate::cells::cells! { two (super::super::super::$name), roundel_smol, Smol,
            mio Mio [], node Node [$($node)?] }
    };
}

/// [`on_both`], one scenario after the other.
macro_rules! by_primary {
    ($half:ident $why:literal $one:tt) => {};
    (this $why:literal $one:tt $name:ident $($rest:ident)*) => {
        crate::cells::by_each! { $name $why [roundel Mio mio] $one }
        crate::cells::by_primary! { that $why $one $($rest)* }
    };
    (that $why:literal $one:tt $name:ident $($rest:ident)*) => {
        crate::cells::by_each! { $name $why [roundel_smol Smol smol] $one }
        crate::cells::by_primary! { this $why $one $($rest)* }
    };
}

macro_rules! by_each {
    ($name:ident $why:literal [$primary:ident $adapter:ident $worker:ident] [$($one:literal)?]) => {
        mod $name {
            crate::cells::cells! { one (super::super::$name), roundel, Mio,
                mio Mio [], smol Smol [$why], node Node [$why] }
            crate::cells::cells! { one (super::super::$name), roundel_smol, Smol,
                mio Mio [$why], smol Smol [], node Node [$why] }
            mod two {
                crate::cells::cells! { two (super::super::super::$name), $primary, $adapter,
                    $worker $adapter [$($one)?] }
            }
        }
    };
}

/// The cells of a scenario under one primary.
macro_rules! cells {
    ($listeners:ident ($($scenario:tt)+), $module:ident, $primary:ident,
        $($cell:ident $worker:ident [$($why:literal)?]),+) => {
        mod $module {
            use crate::cells::run;
            use crate::pair::{Adapter, Pair};
            use $($scenario)+ as scenario;
            $(
                #[test]
                $(#[ignore = $why])?
                fn $cell() {
                    let name = concat!(module_path!(), "::", stringify!($cell));
                    let pair = Pair::new(Adapter::$primary, Adapter::$worker);
                    run(name, pair.$listeners(), scenario);
                }
            )+
        }
    };
}

pub(crate) use {
    again, as_process_one, by_each, by_primary, cells, on_all, on_both, scenario, scenarios,
};
