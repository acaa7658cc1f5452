//! What a search found, for people.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use roundel_core::{ConnEnd, Output, ToWorker};

use super::action::Action;
use super::bounds::Bounds;
use super::bug::Bug;
use super::goals::{Goal, Goals};
use super::world::World;

/// Something wrong, and a shortest way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The steps from the first state.
    pub path: Vec<Action>,
    /// What is wrong after them. Begins with the number of the guarantee.
    pub what: String,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps tried.
    pub transitions: u64,
    /// States in which nothing goes on by itself.
    pub quiet: u64,
    /// States that were probed and settled.
    pub settled: u64,
    /// States that were not gone on from, because more workers were started than the bounds allow.
    pub cut: u64,
    /// States that were not gone on from, because only workers come and go after them.
    pub spent: u64,
    /// Steps to the farthest state.
    pub depth: usize,
    /// The most states at one depth.
    pub widest: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// A limit was reached before everything was known.
    pub given_up: bool,
    /// What was reached.
    pub goals: Goals,
    /// The states, but for what was left to happen and which slot is which, if they were collected.
    pub alike: HashSet<u128>,
    /// What went wrong.
    pub failure: Option<Failure>,
}

impl Report {
    /// Those of these goals that no run reached.
    pub fn missed(&self, goals: impl IntoIterator<Item = Goal>) -> Vec<Goal> {
        goals.into_iter().filter(|&goal| !self.goals.has(goal)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "{} states, {} steps, depth {}, at most {} states at one depth",
            self.states, self.transitions, self.depth, self.widest
        )?;
        writeln!(
            f,
            "{} states at rest; {} spent; {} at the limit of respawns; {} probed and settled",
            self.quiet, self.spent, self.cut, self.settled
        )?;
        write!(f, "{seconds:.1} s, {:.0} states a second", self.states as f64 / seconds)?;
        if self.given_up {
            f.write_str("\nNOT EXHAUSTIVE: a limit was reached")?;
        }
        Ok(())
    }
}

impl Bounds {
    /// The goals that a search of these bounds must reach, if it has two troubles to
    /// spend, a command, and a connection.
    pub fn goals(&self) -> impl Iterator<Item = Goal> {
        let (strict, cold, lazy, node) = (self.strict, self.cold, self.lazy, self.node);
        let alone = self.workers == 1;
        let (several, wide) = (self.workers > 1 && self.connections > 1, self.window > 1);
        let (stops, troubles) = (self.commands > 0, self.troubles > 0);
        let reloads = move |goal: &Goal| match goal {
            Goal::ReloadDone => true,
            Goal::ReloadFailed | Goal::ReloadLate => troubles,
            Goal::ReloadStopped => stops,
            _ => false,
        };
        if self.reloads > 0 {
            return Goal::ALL.iter().copied().filter(reloads).collect::<Vec<_>>().into_iter();
        }
        let all = Goal::ALL.iter().copied().filter(move |goal| match goal {
            Goal::ReloadDone | Goal::ReloadFailed | Goal::ReloadLate | Goal::ReloadStopped => false,
            Goal::RefusedOverflow => strict && several,
            Goal::GivenUp => strict,
            // Each slot must be given up, and each time takes two faults.
            Goal::CrashLoop => strict && alone,
            Goal::Unknown => node,
            Goal::Reported => lazy,
            Goal::CannotBind => cold,
            Goal::OutOfOrder => wide && several,
            _ => true,
        });
        all.collect::<Vec<_>>().into_iter()
    }
}

/// The trace of a failure: one line for each step, with what the primary said.
pub fn trace(bounds: &Bounds, bug: Option<Bug>, failure: &Failure) -> String {
    let mut world = World::new(bounds, bug);
    world.said = Some(Vec::new());
    let mut text = String::new();
    for (at, action) in failure.path.iter().enumerate() {
        world.apply(*action);
        let said: Vec<String> = world.said.iter().flatten().filter_map(say).collect();
        let arrow = if said.is_empty() { "" } else { "  =>  " };
        text += &format!("{:3}. {action}{arrow}{}\n", at + 1, said.join("; "));
    }
    text + "     " + &failure.what
}

fn say(output: &Output) -> Option<String> {
    Some(match output {
        Output::Send { worker, msg: ToWorker::NewConn { first_seq, .. }, attach } => {
            format!("handoff {first_seq} {attach:?} to {worker}")
        }
        Output::Send { worker, msg, .. } => format!("{msg:?} to {worker}"),
        Output::Release { conn, end: ConnEnd::AcceptedBy(worker) } => {
            format!("release {conn}, accepted by {worker}")
        }
        Output::Release { conn, end } => format!("release {conn}: {end:?}"),
        Output::Event(_) => return None,
        other => format!("{other:?}"),
    })
}
