//! Many seeds: progress, what was reached, and what to read when one fails.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roundel_core::Time;

use crate::faults::fault::Fault;
use crate::faults::mutants::Mutant;
use crate::sim::Sim;
use crate::sim::coverage::Coverage;
use crate::sim::ops::Op;
use crate::sim::plan::Plan;

/// One seed of so many is run three times: as it is, again, and with all machines written down and
/// read back in the middle.
const SAMPLE: u64 = 64;

/// From so many seeds on everything that can happen should have happened.
const ENOUGH: u64 = 10_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How large runs are.
    pub size: Size,
    /// On so many threads.
    pub threads: usize,
    /// Tell how far it is.
    pub progress: bool,
}

impl Default for Job {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let size = Size { length: 320, workers: None };
        Job { seeds: 0..1_000, size, threads, progress: true }
    }
}

/// How large runs are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At most so many operations.
    pub length: usize,
    /// So many workers; as many as the seed says, if it is not given.
    pub workers: Option<u32>,
}

impl Size {
    /// The run of a seed.
    fn plan(self, seed: u64) -> Plan {
        let mut plan = Plan::of_seed(seed, self.length);
        if let Some(workers) = self.workers {
            plan = plan.with_workers(workers);
        }
        plan
    }

    /// The options that lead to the same runs.
    fn options(self) -> String {
        let workers = self.workers.map(|n| format!(" --workers {n}"));
        format!("--length {}{}", self.length, workers.unwrap_or_default())
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Inputs of all of them.
    pub inputs: u64,
    /// Connections of all of them.
    pub connections: u64,
    /// What happened.
    pub coverage: Coverage,
    /// The lowest seed that failed, and what.
    pub failure: Option<(u64, Fault)>,
}

/// Runs one seed; adds to a summary and returns what went wrong.
pub fn run_seed(seed: u64, size: Size, summary: &mut Summary) -> Option<Fault> {
    let plan = size.plan(seed);
    let mut sim = whole(&plan, None, false);
    sim.close_books();
    summary.runs += 1;
    summary.inputs += sim.inputs() as u64;
    summary.connections += sim.connections() as u64;
    let digest = sim.digest();
    summary.coverage.join(&sim.coverage);
    let mut faults = sim.finish();
    if seed.is_multiple_of(SAMPLE) && faults.is_empty() {
        for (again, what) in [(&plan, "again"), (&restored(&plan), "from a snapshot")] {
            let sim = whole(again, None, false);
            summary.coverage.join(&sim.coverage);
            if sim.digest() != digest {
                let difference = difference(&whole(&plan, None, true), &whole(again, None, true));
                faults.push(Fault::determinism(format!("run {what}, {difference}")));
            }
        }
    }
    faults.into_iter().next()
}

/// The same run, with all machines written down and read back in the middle.
fn restored(plan: &Plan) -> Plan {
    let mut restored = plan.clone();
    restored.ops.insert(plan.ops.len() / 2, Op::Restore);
    restored
}

fn whole(plan: &Plan, mutant: Option<Mutant>, recorded: bool) -> Sim {
    let mut sim = Sim::new(plan, Time::from_millis(5), mutant);
    sim.recorded = recorded;
    sim.live(plan);
    sim
}

/// Whether a run with a deliberate fault goes another way once it was written down and read back.
pub fn parts_when_restored(plan: &Plan, mutant: Mutant) -> bool {
    let mutant = Some(mutant);
    whole(plan, mutant, false).digest() != whole(&restored(plan), mutant, false).digest()
}

/// Where two runs part.
fn difference(one: &Sim, other: &Sim) -> String {
    let inputs = one.transcript.iter().zip(&other.transcript).position(|(a, b)| a != b);
    let outputs = one.outputs.iter().zip(&other.outputs).position(|(a, b)| a != b);
    let input = inputs.map(|at| (at, one.transcript.get(at), other.transcript.get(at)));
    let output = outputs.map(|at| (at, one.outputs.get(at), other.outputs.get(at)));
    format!("the inputs part at {input:?}, the outputs at {output:?}")
}

/// Runs all seeds.
pub fn run_all(job: &Job) -> Summary {
    let next = AtomicU64::new(job.seeds.start);
    let failed = AtomicBool::new(false);
    let total = Mutex::new(Summary::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..job.threads.max(1) {
            let (next, failed, total) = (&next, &failed, &total);
            scope.spawn(move || {
                let mut mine = Summary::default();
                let mut said = start;
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= job.seeds.end {
                        break;
                    }
                    if let Some(fault) = run_seed(seed, job.size, &mut mine) {
                        failed.store(true, Ordering::Relaxed);
                        mine.failure = Some((seed, fault));
                    }
                    if job.progress && thread == 0 && said.elapsed() > Duration::from_secs(2) {
                        said = Instant::now();
                        let done = seed - job.seeds.start;
                        let rate = done as f64 / start.elapsed().as_secs_f64() * 60.0;
                        eprintln!(
                            "seed {seed} of {}..{}, {rate:.0} a minute",
                            job.seeds.start, job.seeds.end
                        );
                    }
                }
                if let Ok(mut total) = total.lock() {
                    total.add(mine);
                }
            });
        }
    });
    total.into_inner().unwrap_or_default()
}

impl Summary {
    fn add(&mut self, other: Summary) {
        self.runs += other.runs;
        self.inputs += other.inputs;
        self.connections += other.connections;
        self.coverage.join(&other.coverage);
        let lowest = [self.failure.take(), other.failure].into_iter().flatten();
        self.failure = lowest.min_by_key(|(seed, _)| *seed);
    }
}

/// What to read of a seed that failed.
pub fn report(seed: u64, size: Size, fault: &Fault) -> String {
    let plan = size.plan(seed);
    let (_, trace) = Sim::traced_life(&plan, None);
    let (from, to, options) = (seed, seed + 1, size.options());
    format!(
        "{plan:?}\n\n{trace}\n\nseed {seed} breaks {:?}: {}\nrun it again with\n  cargo run --release -p roundel-tests --bin simulate -- --seeds {from}..{to} {options}",
        fault.property, fault.what
    )
}

/// Runs all seeds and says what came of it.
pub fn run(job: &Job) -> ExitCode {
    let start = Instant::now();
    let summary = run_all(job);
    let seconds = start.elapsed().as_secs_f64();
    print!("{}", summary.coverage);
    println!(
        "{} runs, {} inputs, {} connections, {seconds:.1} s, {:.0} runs a minute",
        summary.runs,
        summary.inputs,
        summary.connections,
        summary.runs as f64 / seconds * 60.0
    );
    if let Some((seed, fault)) = &summary.failure {
        println!("\n{}", report(*seed, job.size, fault));
        return ExitCode::FAILURE;
    }
    let gaps = summary.coverage.gaps();
    gaps.iter().for_each(|gap| println!("{gap}"));
    if summary.runs >= ENOUGH && !gaps.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
