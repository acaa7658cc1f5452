//! How evenly connections spread over workers: figures, not a check.

use std::time::Duration;

use roundel_core::{Config, Policy, Time};

use crate::sim::Sim;
use crate::sim::ops::Op;
use crate::sim::plan::{Codecs, Plan, World, key};

/// Workers of a run.
const WORKERS: u32 = 4;

/// What goes on in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// All workers are alike.
    Equal,
    /// One takes a connection in the time in which the others take all they have.
    OneSlow,
    /// Again and again one leaves, and its slot has another one.
    Changing,
}

/// How many connections the workers of each slot were given.
fn counts(scene: Scene, codecs: Codecs, window: u32, connections: u64) -> Vec<u64> {
    let config = Config::builder()
        .workers(WORKERS)
        .window(window)
        .node_window(window)
        .ack_timeout(Some(Duration::from_secs(600)))
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let world = World { codecs, ..World::CALM };
    let plan = Plan { config, world, keys: vec![key(80)], rivals: Vec::new(), ops: Vec::new() };
    let mut sim = Sim::new(&plan, Time::from_millis(5), None);
    (sim.recorded, sim.checked) = (false, false);
    (0..3).for_each(|_| sim.apply(&Op::Round));
    if scene == Scene::OneSlow {
        sim.apply(&Op::Slow(0, true));
    }
    let mut step: u64 = 0;
    while (sim.connections() as u64) < connections {
        // Not a multiple of the workers, so that the turn matters.
        sim.apply(&Op::Connect(0, 7));
        sim.apply(&Op::Accept(0, 7));
        sim.apply(&Op::Round);
        step += 1;
        if scene == Scene::Changing && step.is_multiple_of(100) {
            sim.apply(&Op::Leave((step / 100 % u64::from(WORKERS)) as u8));
            sim.apply(&Op::Round);
            sim.apply(&Op::Pass(2_000));
            (0..3).for_each(|_| sim.apply(&Op::Round));
        }
    }
    sim.served_by_slot.clone()
}

/// Prints a table of so many connections a row, for every policy there is.
pub fn print(connections: u64) {
    println!("{connections} connections a row, {WORKERS} workers\n");
    println!("| policy | codec, window | workers | per slot | max - min | standard deviation |");
    println!("|---|---|---|---|---|---|");
    for policy in [Policy::RoundRobin, Policy::Shared] {
        let name = policy.name();
        if policy != Policy::RoundRobin {
            println!("| {name} | | | the workers accept: the kernel decides | | |");
            continue;
        }
        for scene in [Scene::Equal, Scene::OneSlow, Scene::Changing] {
            for (codecs, window) in [(Codecs::Native, 1), (Codecs::Native, 4), (Codecs::Node, 4)] {
                let counts = counts(scene, codecs, window, connections);
                let (min, max) = (counts.iter().min(), counts.iter().max());
                let range = max.zip(min).map_or(0, |(max, min)| max - min);
                let deviation = deviation(&counts);
                println!(
                    "| {name} | {codecs:?}, {window} | {scene:?} | {counts:?} | {range} | {deviation:.1} |"
                );
            }
        }
    }
}

fn deviation(counts: &[u64]) -> f64 {
    let n = counts.len().max(1) as f64;
    let mean = counts.iter().sum::<u64>() as f64 / n;
    let squares: f64 = counts.iter().map(|&count| (count as f64 - mean).powi(2)).sum();
    (squares / n).sqrt()
}
