//! `simulate [--seeds A..B] [--length N]`: runs simulated lives and says what happened in them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use roundel_tests::coverage::Coverage;
use roundel_tests::ops::{Mix, Plan, plan};
use roundel_tests::sim::Sim;

use roundel_core::Time;

const USAGE: &str = "simulate [--seeds A..B] [--length N]: simulated lives of a cluster

  --seeds A..B  one life for each seed from A up to, not including, B (0..1000)
  --length N    at most so many things happen in a life before it is brought to its end (160)";

fn main() -> ExitCode {
    let (mut seeds, mut length) = (0..1_000_u64, 160_usize);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let understood = match arg.as_str() {
            "--seeds" => value
                .split_once("..")
                .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?))
                .map(|range| seeds = range),
            "--length" => value.parse().ok().map(|n| length = n),
            _ => None,
        };
        if understood.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(if arg == "--help" { 0 } else { 2 });
        }
    }
    run(seeds, length)
}

fn run(seeds: std::ops::Range<u64>, length: usize) -> ExitCode {
    let mut coverage = Coverage::default();
    let start = Instant::now();
    let mut said = start;
    let mut inputs = 0;
    for (done, seed) in seeds.clone().enumerate() {
        let plan = plan_of(seed, length);
        let mut sim = Sim::after(&plan, Time::from_millis(5), None);
        sim.recover();
        sim.stop();
        inputs += sim.transcript.len();
        coverage.add_run(&plan.config, &sim.transcript);
        let faults = sim.finish();
        if let Some(fault) = faults.first() {
            eprintln!("{plan:?}\n");
            Sim::traced_life(&plan);
            println!("\nseed {seed}, length {length}: {fault:?}");
            return ExitCode::FAILURE;
        }
        if said.elapsed() > Duration::from_secs(2) {
            said = Instant::now();
            let rate = inputs as f64 / start.elapsed().as_secs_f64();
            let lives = seeds.end.saturating_sub(seeds.start);
            eprintln!("{} of {lives} lives, {inputs} inputs, {rate:.0} inputs a second", done + 1);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    print!("{coverage}");
    for what in coverage.never() {
        println!("never: {what}");
    }
    let lives = seeds.end.saturating_sub(seeds.start);
    println!(
        "{lives} lives, {inputs} inputs, {seconds:.1} s, {:.0} a second",
        inputs as f64 / seconds
    );
    ExitCode::SUCCESS
}

/// The same plan for the same seed, with this version of proptest.
fn plan_of(seed: u64, length: usize) -> Plan {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Runs::default(), rng);
    // A stop ends most of a life: every other one goes without.
    let mix = if seed.is_multiple_of(2) { Mix::ALL } else { Mix { stops: false, ..Mix::ALL } };
    match plan(mix, length).new_tree(&mut runner) {
        Ok(tree) => tree.current(),
        Err(reason) => unreachable!("no plan is ever refused: {reason}"),
    }
}
