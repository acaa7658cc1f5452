//! The tests of a scenario, one for each pair: its cells in the table of results. A cell is run, or
//! ignored for a reason that the table shows.

use std::cell::Cell;

use roundel_tests::optional::{self, remember_skip};

use crate::pair::{Adapter, Pair};

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
    if on.worker == Adapter::Node && optional::node().is_none() {
        return skip("no node");
    }
    scenario(on);
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

/// Scenarios that run on all pairs, `scenario::primary::worker` by name. Where one makes no sense
/// for Node programs, it says why: `scenario: not Node "it has no such thing"`.
macro_rules! on_all {
    ($($name:ident $(: not Node $why:literal)?),+ $(,)?) => {$(
        mod $name {
            crate::cells::cells! { $name, roundel, Mio,
                mio Mio [], smol Smol [], node Node [$($why)?] }
            crate::cells::cells! { $name, roundel_smol, Smol,
                mio Mio [], smol Smol [], node Node [$($why)?] }
        }
    )+};
}

/// Scenarios whose workers are none of an adapter, with the reason: each primary runs them once.
macro_rules! on_both {
    ($why:literal: $($name:ident),+ $(,)?) => {$(
        mod $name {
            crate::cells::cells! { $name, roundel, Mio,
                mio Mio [], smol Smol [$why], node Node [$why] }
            crate::cells::cells! { $name, roundel_smol, Smol,
                mio Mio [$why], smol Smol [], node Node [$why] }
        }
    )+};
}

/// The cells of a scenario under one primary.
macro_rules! cells {
    ($name:ident, $module:ident, $primary:ident, $($cell:ident $worker:ident [$($why:literal)?]),+) => {
        mod $module {
            use crate::cells::run;
            use crate::pair::{Adapter, Pair};
            $(
                #[test]
                $(#[ignore = $why])?
                fn $cell() {
                    let name = concat!(module_path!(), "::", stringify!($cell));
                    run(name, Pair::new(Adapter::$primary, Adapter::$worker), super::super::$name);
                }
            )+
        }
    };
}

pub(crate) use {cells, on_all, on_both};
