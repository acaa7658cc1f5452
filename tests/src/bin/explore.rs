//! `explore [--workers N] [--connections N] ...`: searches every state of a small cluster.

use std::process::ExitCode;
use std::time::Duration;

use roundel_tests::explore::bounds::Bounds;
use roundel_tests::explore::report::trace;
use roundel_tests::explore::search::Search;

const USAGE: &str = "explore [OPTIONS]: searches every state of a small cluster around the primary

  --workers N      workers that the primary keeps (2)
  --connections N  connections that arrive in a run (3)
  --window N       connections in flight at one worker (1)
  --troubles N     declines and things that go wrong in a run (2)
  --respawns N     workers started beyond the first ones (2)
  --commands N     what the operator wants in a run (1)
  --reloads N      reloads in a run (0); then workers only die, or do not become ready
  --batch N        slots that a reload replaces together (1)
  --cold           begin before the listener is bound, not when all workers are ready
  --lazy           what is to be done at once may be done at any time later
  --node           the workers are Node programs, which may hold their answers back
  --strict         refuse when one is pending; give a slot up at its second early failure
  --sample N       probe and settle one of N states (1024)
  --threads N      threads (as many as there are processors)
  --max-states N   give up after so many states
  --max-time S     give up after so many seconds
  --quiet          do not say how far it is
  --no-goals       do not fail because something never happened";

fn main() -> ExitCode {
    let mut search = Search::new(Bounds::new(2, 3));
    search.sample = 1_024;
    search.threads = std::thread::available_parallelism().map_or(1, usize::from);
    search.progress = true;
    let mut goals = true;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let bounds = &mut search.bounds;
        match arg.as_str() {
            "--cold" => bounds.cold = true,
            "--lazy" => bounds.lazy = true,
            "--node" => bounds.node = true,
            "--strict" => bounds.strict = true,
            "--quiet" => search.progress = false,
            "--no-goals" => goals = false,
            "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                let Some(n) = args.next().and_then(|n| n.parse::<u32>().ok()) else {
                    eprintln!("{arg} is unknown, or wants a number\n\n{USAGE}");
                    return ExitCode::from(2);
                };
                match arg.as_str() {
                    "--workers" => bounds.workers = n,
                    "--connections" => bounds.connections = n as u8,
                    "--window" => bounds.window = n,
                    "--troubles" => bounds.troubles = n as u8,
                    "--respawns" => bounds.respawns = n as u8,
                    "--commands" => bounds.commands = n as u8,
                    "--reloads" => bounds.reloads = n as u8,
                    "--batch" => bounds.batch = n,
                    "--sample" => search.sample = u64::from(n.max(1)),
                    "--threads" => search.threads = n as usize,
                    "--max-states" => search.max_states = n as usize,
                    "--max-time" => search.max_time = Duration::from_secs(n.into()),
                    _ => {
                        eprintln!("{arg} is unknown\n\n{USAGE}");
                        return ExitCode::from(2);
                    }
                }
            }
        }
    }
    run(&search, goals)
}

fn run(search: &Search, goals: bool) -> ExitCode {
    let report = search.run();
    println!("{:?}\n{report}", search.bounds);
    if let Some(peak) = peak_memory() {
        println!("peak memory {peak}");
    }
    if let Some(failure) = &report.failure {
        println!("\nWRONG, by a shortest way:\n{}", trace(&search.bounds, search.bug, failure));
        return ExitCode::FAILURE;
    }
    let missed = report.missed(search.bounds.goals());
    for goal in &missed {
        println!("never: {goal}");
    }
    if report.given_up || (goals && !missed.is_empty()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// As proc_pid_status(5) tells it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.trim_start_matches("VmHWM:").trim().to_owned())
}
