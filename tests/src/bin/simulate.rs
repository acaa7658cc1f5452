//! `simulate [--seeds A..B] [--length N] [--workers N]`: runs simulated lives and says what
//! happened in them.

use std::ops::Range;
use std::process::ExitCode;

use roundel_tests::sim::simulate::{Job, run};

const USAGE: &str = "simulate [OPTIONS]: simulated lives of a cluster

  --seeds A..B  one life for each seed from A up to, not including, B (0..1000)
  --length N    at most so many things happen in a life before it is brought to its end (320)
  --workers N   so many workers, 1 to 64 (1 to 4, as the seed says)
  --threads N   threads (as many as there are processors)
  --fairness    instead, print how evenly a million connections spread
  --mutants     instead, search for what deliberate faults break: the table of docs/mutants.md";

fn main() -> ExitCode {
    let mut job = Job::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--mutants" {
            return mutants();
        }
        if arg == "--fairness" {
            roundel_tests::sim::spread::print(1_000_000);
            return ExitCode::SUCCESS;
        }
        let value = args.next().unwrap_or_default();
        let understood = match arg.as_str() {
            "--seeds" => range(&value).map(|seeds| job.seeds = seeds),
            "--length" => value.parse().ok().map(|n| job.size.length = n),
            "--workers" => value
                .parse()
                .ok()
                .filter(|n| (1..=64).contains(n))
                .map(|n| job.size.workers = Some(n)),
            "--threads" => value.parse().ok().map(|n| job.threads = n),
            _ => None,
        };
        if understood.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(if arg == "--help" { 0 } else { 2 });
        }
    }
    run(&job)
}

/// Prints the table of `docs/mutants.md`.
fn mutants() -> ExitCode {
    let (table, missed) = roundel_tests::faults::table::search();
    print!("{table}");
    missed.iter().for_each(|what| eprintln!("{what}"));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}
