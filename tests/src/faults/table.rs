//! Which deliberate fault breaks which guarantee: searched for, and told as a table.

use std::fmt::Write;

use crate::faults::fault::Property;
use crate::faults::mutants::Mutant;
use crate::sim::Sim;
use crate::sim::ops::Mix;
use crate::sim::plan::Plan;

/// A deliberate fault, what it breaks, and in runs of which mix that shows.
struct Row {
    guarantee: &'static str,
    mutant: Mutant,
    property: Property,
    mix: Mix,
}

const fn row(guarantee: &'static str, mutant: Mutant, property: Property, mix: Mix) -> Row {
    Row { guarantee, mutant, property, mix }
}

/// Seeds until a fault must have shown.
const SEEDS: u64 = 3_000;
/// Operations in a run.
const LENGTH: usize = 160;

/// Everything but what ends a run early.
const QUIET: Mix = Mix { stops: false, ..Mix::ALL };

const ROWS: &[Row] = &[
    row("1 conservation", Mutant::SwallowRelease, Property::Conservation, Mix::CALM),
    row("1 conservation", Mutant::RepeatRelease, Property::Conservation, Mix::CALM),
    row("2 no loss", Mutant::LoseRedispatch, Property::NoLoss, QUIET),
    row("2 no loss", Mutant::ForgetAttempts, Property::NoLoss, QUIET),
    row("2 no loss", Mutant::Reorder, Property::NoLoss, QUIET),
    row("2 no loss", Mutant::NoShutdownRead, Property::NoLoss, QUIET),
    row("2 no loss", Mutant::CountAckAgain, Property::NoLoss, QUIET),
    row("2 no loss", Mutant::SwapHandles, Property::NoLoss, QUIET),
    row("3 no double delivery", Mutant::HideAck, Property::NoDouble, Mix::ALL),
    row("3 no double delivery", Mutant::HandOutAgain, Property::NoDouble, Mix::CALM),
    row("3 no double delivery", Mutant::RedispatchAtExit, Property::NoDouble, Mix::ALL),
    row("3 no double delivery", Mutant::DropDoubt, Property::NoDouble, QUIET),
    row("4 fairness", Mutant::SkipWorker, Property::Fairness, Mix::CALM),
    row("5 work conservation", Mutant::DelayAck, Property::WorkConservation, Mix::CALM),
    row("5 work conservation", Mutant::ForgetListener, Property::WorkConservation, QUIET),
    row("6 a stuck worker", Mutant::SpareStuck, Property::Stuck, QUIET),
    row("6 a stuck worker", Mutant::WrongWindow, Property::Stuck, QUIET),
    row("6 a stuck worker", Mutant::NoHeartbeat, Property::Stuck, QUIET),
    row("pause", Mutant::IgnorePause, Property::Fairness, QUIET),
    row("7 listeners", Mutant::CloseWithWorker, Property::Listeners, Mix::ALL),
    row("7 listeners", Mutant::HurryUnbound, Property::Listeners, Mix::ALL),
    row("8 a batch", Mutant::NoHold, Property::Readiness, QUIET),
    row("8 a batch", Mutant::CountUnready, Property::Readiness, QUIET),
    row("8 a batch", Mutant::WholeAtOnce, Property::Readiness, QUIET),
    row("8 ready workers", Mutant::TakeTooMany, Property::Readiness, QUIET),
    row("8 a failed reload", Mutant::EndOld, Property::Readiness, QUIET),
    row("8 a failed reload", Mutant::SpareNew, Property::Readiness, QUIET),
    row("8 new workers", Mutant::HandToNew, Property::Readiness, QUIET),
    row("8 generations", Mutant::KeepGenerations, Property::Readiness, QUIET),
    row("8 generations", Mutant::FollowByNew, Property::Readiness, QUIET),
    row("8 one at a time", Mutant::StartTwice, Property::Readiness, QUIET),
    row("8 one at a time", Mutant::ForgetReload, Property::Readiness, QUIET),
    row("8 a stop", Mutant::OutliveStop, Property::Readiness, Mix::ALL),
    row("8 a stop", Mutant::SpareUnready, Property::Readiness, Mix::ALL),
    row("8 a stop", Mutant::LeaveEmpty, Property::Readiness, Mix::ALL),
    row("8 slots", Mutant::SkipGivenUp, Property::Readiness, QUIET),
    row("8 slots", Mutant::ReviveEnded, Property::Readiness, QUIET),
    row("8 scaling", Mutant::ScaleAtOnce, Property::Readiness, QUIET),
    row("8 scaling", Mutant::ForgetScale, Property::Readiness, QUIET),
    row("8 recycling", Mutant::RecycleTwo, Property::Readiness, QUIET),
    row("8 recycling", Mutant::ForgetRecycling, Property::Readiness, QUIET),
    row("8 recycling", Mutant::RecycleAgain, Property::Readiness, QUIET),
    row("9 restarts", Mutant::HurryRespawn, Property::Restarts, Mix::ALL),
    row("9 restarts", Mutant::BlameProgram, Property::Restarts, QUIET),
    row("9 restarts", Mutant::NoRetry, Property::Restarts, QUIET),
    row("leaving", Mutant::HideConnections, Property::Leaving, QUIET),
    row("10 shutdown", Mutant::EndlessStop, Property::Shutdown, Mix::ALL),
    row("10 shutdown", Mutant::HurryStop, Property::Shutdown, Mix::ALL),
    row("11 hostile workers", Mutant::BlameNeighbour, Property::Harmless, QUIET),
    row("12 determinism", Mutant::LoseTimer, Property::Determinism, QUIET),
    row("deadlines rise", Mutant::StaleDeadline, Property::Timeouts, Mix::CALM),
    row("outputs are linear", Mutant::Chatter, Property::Linear, Mix::CALM),
];

/// Whether some run under this fault breaks what it should.
fn is_caught(row: &Row) -> bool {
    (0..SEEDS).any(|seed| {
        let plan = Plan::of_seed_in(row.mix, seed, LENGTH);
        if row.property == Property::Determinism {
            return crate::sim::simulate::parts_when_restored(&plan, row.mutant);
        }
        Sim::life(&plan, Some(row.mutant)).iter().any(|fault| fault.property == row.property)
    })
}

/// The table, and the faults that went unnoticed.
pub fn search() -> (String, Vec<String>) {
    let mut table = String::from("| guarantee | mutant | property that failed |\n|---|---|---|\n");
    let mut missed = Vec::new();
    for row in ROWS {
        let Row { guarantee, mutant, property, .. } = row;
        if is_caught(row) {
            let _ = writeln!(table, "| {guarantee} | {mutant:?} | {property:?} |");
        } else {
            missed.push(format!("{mutant:?} went unnoticed by {property:?}"));
        }
    }
    (table, missed)
}
