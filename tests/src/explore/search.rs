//! Breadth first through all states, with as many threads as wanted and always the same result.
//!
//! A chunk of the frontier is expanded by all threads against the states known before it; then the
//! new states are entered in the order of their parents. So nobody waits for a lock, and numbers,
//! depths and traces do not depend on the threads.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::action::Action;
use super::bounds::Bounds;
use super::bug::Bug;
use super::fingerprint::{Prints, fingerprints};
use super::goals::Goals;
use super::known::Known;
use super::report::{Failure, Report};
use super::world::World;

/// How many states are expanded between two entries of new ones.
const CHUNK: usize = 16_384;

/// What to search, and how.
#[derive(Clone, Debug)]
pub struct Search {
    /// How large the world is.
    pub bounds: Bounds,
    /// What is wrong on purpose.
    pub bug: Option<Bug>,
    /// How many threads.
    pub threads: usize,
    /// One of so many states is probed and settled, by its fingerprint, and 16 times as many of
    /// those in which nothing goes on by itself, or only workers come and go. 1 means every state.
    pub sample: u64,
    /// Give up after so many states.
    pub max_states: usize,
    /// Give up after so long.
    pub max_time: Duration,
    /// Say how far it is at each depth.
    pub progress: bool,
    /// Collect the fingerprints of all states: see [`Report::alike`].
    pub collect: bool,
}

/// A state of the frontier.
struct Waiting {
    index: u32,
    key: u128,
    world: World,
}

/// A state that was not known before its chunk.
struct Found {
    prints: Prints,
    parent: u32,
    action: Action,
    world: World,
}

/// What a thread brings back from its part of a chunk.
#[derive(Default)]
struct Harvest {
    found: Vec<Found>,
    transitions: u64,
    quiet: u64,
    settled: u64,
    cut: u64,
    spent: u64,
    goals: Goals,
    failure: Option<(u32, Option<Action>, String)>,
}

impl Search {
    /// A search of these bounds that looks at everything.
    pub fn new(bounds: Bounds) -> Self {
        Search {
            bounds,
            bug: None,
            threads: 1,
            sample: 1,
            max_states: usize::MAX,
            max_time: Duration::MAX,
            progress: false,
            collect: false,
        }
    }

    /// Searches until everything is known, something is wrong, or a limit is reached.
    pub fn run(&self) -> Report {
        let start = Instant::now();
        let mut report = Report::default();
        let first = World::new(&self.bounds, self.bug);
        let mut known = Known::new(self.bounds.reduce.dominance);
        let prints = fingerprints(&first);
        enter(&mut known, prints, &first);
        if self.collect {
            report.alike.insert(prints.alike);
        }
        report.goals.join(first.goals);
        // How each state was first reached; the first one by nothing.
        let mut links: Vec<(u32, Action)> = vec![(0, Action::Tick)];
        let mut frontier = vec![Waiting { index: 0, key: prints.key(), world: first }];
        let mut failure = None;
        'search: while !frontier.is_empty() {
            let mut next = Vec::new();
            for chunk in frontier.chunks(CHUNK) {
                for harvest in self.expand_all(chunk, &known) {
                    report.transitions += harvest.transitions;
                    report.quiet += harvest.quiet;
                    report.settled += harvest.settled;
                    report.cut += harvest.cut;
                    report.spent += harvest.spent;
                    report.goals.join(harvest.goals);
                    if failure.is_none() {
                        failure = harvest.failure;
                    }
                    for found in harvest.found {
                        if enter(&mut known, found.prints, &found.world) {
                            let index = links.len() as u32;
                            let key = found.prints.key();
                            links.push((found.parent, found.action));
                            if self.collect {
                                report.alike.insert(found.prints.alike);
                            }
                            next.push(Waiting { index, key, world: found.world });
                        }
                    }
                }
                if failure.is_some() {
                    break 'search;
                }
                if links.len() > self.max_states || start.elapsed() > self.max_time {
                    report.given_up = true;
                    break 'search;
                }
            }
            report.widest = report.widest.max(next.len());
            frontier = next;
            if !frontier.is_empty() {
                report.depth += 1;
            }
            if self.progress {
                let rate = links.len() as f64 / start.elapsed().as_secs_f64();
                eprintln!(
                    "depth {:3}: {:9} states, {:8} at this depth, {rate:7.0} a second",
                    report.depth,
                    links.len(),
                    frontier.len()
                );
            }
        }
        report.states = links.len();
        report.elapsed = start.elapsed();
        report.failure = failure.map(|(parent, action, what)| Failure {
            path: path_to(&links, parent).into_iter().chain(action).collect(),
            what,
        });
        report
    }

    fn expand_all(&self, chunk: &[Waiting], known: &Known) -> Vec<Harvest> {
        let part = chunk.len().div_ceil(self.threads.max(1)).max(1);
        if chunk.len() <= part {
            return vec![self.expand(chunk, known)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = chunk
                .chunks(part)
                .map(|part| scope.spawn(move || self.expand(part, known)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap_or_default()).collect()
        })
    }

    fn expand(&self, part: &[Waiting], known: &Known) -> Harvest {
        let mut harvest = Harvest::default();
        let mut here = HashSet::new();
        for Waiting { index, key, world } in part {
            if let Err(what) = self.look_closer(world, *key, &mut harvest) {
                harvest.failure = Some((*index, None, what));
                return harvest;
            }
            if world.left.respawns < 0 {
                harvest.cut += 1;
                continue;
            }
            if self.bounds.reduce.spent && world.is_spent() {
                harvest.spent += 1;
                continue;
            }
            for action in world.actions() {
                let mut next = world.clone();
                if !next.apply(action) {
                    continue;
                }
                harvest.transitions += 1;
                harvest.goals.join(next.goals);
                let prints = fingerprints(&next);
                let key = prints.key();
                let seen = known.covers(key, next.left) || !here.insert((key, next.left));
                if seen && next.fault.is_none() {
                    continue;
                }
                if let Some(what) = next.broken() {
                    harvest.failure = Some((*index, Some(action), what));
                    return harvest;
                }
                harvest.found.push(Found { prints, parent: *index, action, world: next });
            }
        }
        harvest
    }

    /// What is too dear to be done in each of millions of states.
    fn look_closer(&self, world: &World, print: u128, harvest: &mut Harvest) -> Result<(), String> {
        let quiet = world.verdict.is_none() && world.progress().is_empty();
        harvest.quiet += u64::from(quiet);
        let often = if quiet || world.is_spent() { self.sample.div_ceil(16) } else { self.sample };
        if !(print as u64).is_multiple_of(often) {
            return Ok(());
        }
        harvest.settled += 1;
        world.probe()?;
        world.settle()
    }
}

/// Enters a state; false if it is known. One that is not exchangeable covers those that are and are
/// equal to it but for an exchange.
fn enter(known: &mut Known, prints: Prints, world: &World) -> bool {
    let new = known.enter(prints.key(), world.left);
    if new && world.reduce.symmetry && !prints.exchangeable {
        known.enter(prints.alike, world.left);
    }
    new
}

fn path_to(links: &[(u32, Action)], mut index: u32) -> Vec<Action> {
    let mut path = Vec::new();
    while index != 0 {
        let (parent, action) = links[index as usize];
        path.push(action);
        index = parent;
    }
    path.reverse();
    path
}
