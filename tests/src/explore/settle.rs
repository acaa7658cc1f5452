//! What must happen in the end: from a state, a run in which everybody does what he should, and one
//! in which nobody does anything.
//!
//! A search for a state cannot see that something never happens, since a run may go in a circle
//! for ever. So each end is looked for along one run, whose steps are chosen here and which must
//! come to it.

use roundel_core::{Codec, ExitStatus, Time};

use super::action::Action;
use super::process::State;
use super::world::{SocketState, World};

/// No run takes as many steps: it goes round in circles.
const STEPS: usize = 1_000;

impl World {
    /// Guarantees 5, 7 and 10: from here everything that was given in is served, and then a
    /// shutdown ends.
    ///
    /// # Errors
    /// What did not happen.
    pub fn settle(&self) -> Result<(), String> {
        self.serves()?;
        self.ends_alone()
    }

    /// Whether all that is left is for workers to come and go: nothing is held, nothing can
    /// arrive, nothing more goes wrong or is wanted. One run from here is enough.
    pub fn is_spent(&self) -> bool {
        let left = self.left;
        let rest = left.connections + left.troubles + left.commands;
        self.custody.is_empty() && rest == 0 && !self.may_reload()
    }

    fn without_choices(&self) -> World {
        let mut world = self.clone();
        world.left.connections = 0;
        world.left.respawns = i8::MAX;
        world.left.troubles = 0;
        world.left.reloads = 0;
        world
    }

    fn step(&mut self, action: Action, run: &mut Vec<Action>) -> Result<bool, String> {
        let done = self.apply(action);
        if done {
            run.push(action);
        }
        match self.broken() {
            Some(what) => Err(what),
            None => Ok(done),
        }
    }

    /// With everybody healthy, all connections are served; then the cluster stops.
    ///
    /// # Errors
    /// What did not happen.
    pub fn serves(&self) -> Result<(), String> {
        let mut run = Vec::new();
        self.serves_by(&mut run).map_err(|what| after(&what, &run))
    }

    fn serves_by(&self, run: &mut Vec<Action>) -> Result<(), String> {
        let mut world = self.without_choices();
        for process in &mut world.processes {
            // One that has never spoken is reported and left alone: it may be no worker.
            if process.state == State::Hanging && !process.introduced && !process.killed {
                process.state = State::Running;
            }
            // A Node program may live on without its channel as long as it likes, and one that was
            // never ready is not replaced before it ends: healthy ones do.
            if world.codec == Codec::Node && process.shut && process.runs() {
                process.die(ExitStatus::Code(0));
            }
        }
        let stops = world.primary.stop_deadline().is_some();
        for _ in 0..STEPS {
            let next = world.progress().first().copied();
            if next.is_none() && world.custody.is_empty() && !world.may_reload() && !stops {
                break;
            }
            if world.verdict.is_some() {
                return Ok(());
            }
            let action = next.unwrap_or(Action::Tick);
            if !world.step(action, run)? {
                break;
            }
        }
        if !stops && !world.custody.is_empty() {
            let held: Vec<_> = world.custody.iter().map(|held| held.0).collect();
            let alone = !world.processes.iter().any(|process| process.lives());
            let which = if alone { "7: with nobody left" } else { "5: with everybody healthy" };
            return Err(format!("{which}, {held:?} wait for ever"));
        }
        if !stops && world.may_reload() {
            return Err("8: with everybody healthy, a reload never ends".into());
        }
        if !stops {
            world.left.commands = 1;
            world.step(Action::Stop, run)?;
        }
        for _ in 0..STEPS {
            if world.verdict.is_some() {
                return Ok(());
            }
            let next = world.progress().first().copied();
            if !world.step(next.unwrap_or(Action::Tick), run)? {
                break;
            }
        }
        Err("10: with everybody healthy, the shutdown never ends".into())
    }

    /// A shutdown ends by its deadline although no worker does anything from now on, and the
    /// listener is never empty: there are always more clients, or no descriptors to accept them.
    fn ends_alone(&self) -> Result<(), String> {
        let mut run = Vec::new();
        self.ends_alone_by(&mut run).map_err(|what| after(&what, &run))
    }

    fn ends_alone_by(&self, run: &mut Vec<Action>) -> Result<(), String> {
        let mut world = self.without_choices();
        if world.primary.stop_deadline().is_none() {
            world.left.commands = 1;
            world.step(Action::Stop, run)?;
        }
        let fence = world.primary.config().shutdown_read_timeout();
        let Some(deadline) = world.primary.stop_deadline() else {
            return Err("10: a shutdown has no deadline".into());
        };
        // A kill, and a fence if that does nothing, and the end of the wait for the process.
        let latest: Time = deadline.max(world.now) + fence * 2;
        for _ in 0..STEPS {
            if world.verdict.is_some() {
                let late = world.now > latest;
                return if late { Err("10: the shutdown ends late".into()) } else { Ok(()) };
            }
            for process in &mut world.processes {
                if process.state == State::Running {
                    process.state = State::Suspended;
                }
            }
            let mut actions = world.progress().into_iter();
            let emptying = world.socket == SocketState::Closing;
            let next = actions.find(|action| match action {
                Action::Continue(_) => false,
                Action::Unbind => !emptying,
                _ => true,
            });
            if !world.step(next.unwrap_or(Action::Tick), run)? {
                break;
            }
        }
        Err("10: with nobody doing anything, the shutdown never ends".into())
    }
}

/// What is wrong, and the run that showed it: its last steps, if it is long.
fn after(what: &str, run: &[Action]) -> String {
    let last = &run[run.len().saturating_sub(40)..];
    let steps = last.iter().map(|action| format!("\n     after: {action}"));
    what.to_owned() + &steps.collect::<String>()
}
