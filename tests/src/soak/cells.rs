//! What is tried: reloads under load, workers that boot slowly, and workers that are killed.

use std::ffi::OsString;
use std::fs;
use std::io::Result;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clients::{Clients, Group, LOAD, PROBE, SMALL_LOAD, Tally};
use super::primary::{Held, Primary};
use super::readiness;
use crate::sim::rng::Rng;

/// Workers of each primary.
const WORKERS: usize = 2;

/// How much more memory a primary may have than after its first reload, in KiB. Its queues grow to
/// what the busiest moment needs, and the allocator keeps it.
const GROWTH_KIB: u64 = 1024;

/// The longest that a probe may take while new workers boot.
const PROBE_MAX: Duration = Duration::from_millis(250);

/// The requests a second that the load must come to.
const RATE_MIN: u64 = 1_000;

/// A primary and its workers.
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// The primary.
    pub binary: PathBuf,
    /// The worker program.
    pub program: Vec<OsString>,
    /// More options for `roundel run`.
    pub options: Vec<OsString>,
    /// Whether workers answer once more on a connection that clients use again, so that none of
    /// these closes under a request.
    pub keeps_reused: bool,
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// For machines that do other things too: a small load, and no least number of requests.
    pub quick: bool,
    /// How many reloads.
    pub reloads: u32,
}

/// A row of the table, and what is wrong.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was tried, in a word.
    pub what: &'static str,
    /// Reloads that were done.
    pub done: u32,
    /// Reloads that failed.
    pub failed: u32,
    /// What became of the clients' requests.
    pub tally: Tally,
    /// How long clients asked.
    pub time: Duration,
    /// What the primary held after the first reload and at the end.
    pub held: Option<(Held, Held)>,
    /// What should not be so.
    pub wrong: Vec<String>,
}

impl Outcome {
    fn new(what: &'static str) -> Outcome {
        Outcome { what, ..Outcome::default() }
    }

    /// Requests in a second.
    pub fn rate(&self) -> u64 {
        let count = (self.tally.answered + self.tally.failures()) as f64;
        (count / self.time.as_secs_f64().max(0.001)) as u64
    }

    fn clients_end(&mut self, clients: Clients) -> Result<()> {
        (self.tally, self.time) = clients.finish()?;
        Ok(())
    }

    fn expect_served(&mut self, keeps_reused: bool) {
        if self.tally.failures() > 0 {
            self.wrong.push(format!("requests failed: {:?}", self.tally.failed));
        }
        if keeps_reused && self.tally.reused_closed > 0 {
            let count = self.tally.reused_closed;
            self.wrong.push(format!("{count} reused connections were closed under a request"));
        }
    }

    fn expect_log(&mut self, primary: &Primary, hold: Duration) -> Result<()> {
        let events = primary.events()?;
        let faults = readiness::faults(&events, hold);
        let more = faults.len().saturating_sub(10);
        self.wrong.extend(faults.into_iter().take(10).map(|it| format!("event log: {it}")));
        if more > 0 {
            self.wrong.push(format!("event log: {more} more"));
        }
        let open = readiness::unanswered(&events);
        if !open.is_empty() {
            self.wrong.push(format!("no worker accepted the connections {open:?}"));
        }
        let forgotten = events.iter().filter(|it| it["event"] == "stalled").count();
        if forgotten > 0 {
            self.wrong.push(format!("{forgotten} connections stalled"));
        }
        Ok(())
    }

    /// The end of every cell.
    fn expect_clean_end(&mut self, mut primary: Primary) -> Result<()> {
        self.wrong.extend(primary.left_over());
        self.wrong.extend(primary.stop()?);
        if !self.wrong.is_empty() {
            let log = primary.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(10));
            self.wrong.extend(last.map(|line| format!("log: {line}")));
        }
        Ok(())
    }

    fn count(&mut self, succeeded: bool) {
        *(if succeeded { &mut self.done } else { &mut self.failed }) += 1;
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

impl Column {
    fn start(&self, size: Size, options: &[&str], program: &[OsString]) -> Result<Primary> {
        let sooner: &[&str] = if size.quick { &["--drain-settle", "300ms"] } else { &[] };
        let options = words(options).into_iter().chain(words(sooner)).chain(self.options.clone());
        let options: Vec<OsString> = options.collect();
        Primary::start(&self.binary, &options, program, WORKERS)
    }

    fn hold(size: Size) -> (&'static str, Duration) {
        if size.quick {
            ("200ms", Duration::from_millis(200))
        } else {
            ("1s", Duration::from_secs(1))
        }
    }

    fn load(size: Size) -> &'static [Group] {
        if size.quick { &SMALL_LOAD } else { &LOAD }
    }

    /// Reloads back to back under load: nobody is lost, and the primary is as before.
    ///
    /// # Errors
    /// If it can't be tried.
    pub fn reloads(&self, size: Size) -> Result<Outcome> {
        let mut outcome = Outcome::new("reloads");
        let (option, hold) = Column::hold(size);
        let primary = self.start(size, &["--ready-hold", option], &self.program)?;
        let clients = Clients::start(primary.addr, Column::load(size));
        let (first, _, said) = primary.command(&["reload"])?;
        outcome.count(first);
        outcome.wrong.extend((!first).then_some(said));
        // What the first one leaves behind is the measure for the others.
        let (mut all, mut time) = clients.finish()?;
        let base = primary.settle(WORKERS)?;
        let clients = Clients::start(primary.addr, Column::load(size));
        for _ in 1..size.reloads {
            let (succeeded, _, said) = primary.command(&["reload"])?;
            outcome.count(succeeded);
            outcome.wrong.extend((!succeeded).then_some(said));
        }
        let (rest, more) = clients.finish()?;
        all.add(&rest);
        time += more;
        (outcome.tally, outcome.time) = (all, time);
        let end = primary.settle(WORKERS)?;
        outcome.held = Some((base, end));
        outcome.expect_served(self.keeps_reused);
        if end.fds != base.fds {
            outcome.wrong.push(format!("{} descriptors, {} before", end.fds, base.fds));
        }
        if end.rss_kib > base.rss_kib + GROWTH_KIB {
            outcome.wrong.push(format!("{} KiB, {} before", end.rss_kib, base.rss_kib));
        }
        if !size.quick && outcome.rate() < RATE_MIN {
            outcome.wrong.push(format!("fewer than {RATE_MIN} requests a second"));
        }
        outcome.expect_log(&primary, hold)?;
        outcome.expect_clean_end(primary)?;
        Ok(outcome)
    }

    /// A reload whose workers take long to boot, and one whose workers take too long: nobody waits.
    ///
    /// # Errors
    /// If it can't be tried.
    pub fn slow_boot(&self, size: Size) -> Result<Outcome> {
        let mut outcome = Outcome::new("slow boot");
        let (boot, timeout) = if size.quick { ("0.5", "1500ms") } else { ("10", "15s") };
        let dir = crate::programs::observe::scratch("roundel-soak-boot");
        let file = dir.join("seconds");
        fs::write(&file, "0")?;
        let script = r#"sleep "$(cat "$1")"; shift; exec "$@""#;
        let mut program = words(&["sh", "-c", script, "sh"]);
        program.push(file.clone().into());
        program.extend(self.program.iter().cloned());
        let (option, hold) = Column::hold(size);
        let options = ["--ready-hold", option, "--ready-timeout", timeout, "--reload-batch", "all"];
        let primary = self.start(size, &options, &program)?;
        let clients = Clients::start(primary.addr, &PROBE);
        fs::write(&file, boot)?;
        let (succeeded, _, said) = primary.command(&["reload"])?;
        outcome.count(succeeded);
        if !succeeded {
            outcome.wrong.push(format!("workers that boot in {boot} s: {said}"));
        }
        fs::write(&file, "1000")?;
        let (succeeded, _, said) = primary.command(&["reload"])?;
        outcome.count(succeeded);
        if succeeded || !said.contains("in time") {
            outcome.wrong.push(format!("workers that do not boot: {succeeded}, {said}"));
        }
        outcome.clients_end(clients)?;
        outcome.expect_served(self.keeps_reused);
        if outcome.tally.slowest > PROBE_MAX {
            outcome.wrong.push(format!("a probe took {:?}", outcome.tally.slowest));
        }
        primary.settle(WORKERS)?;
        outcome.expect_log(&primary, hold)?;
        outcome.expect_clean_end(primary)?;
        fs::remove_dir_all(dir)?;
        Ok(outcome)
    }

    /// Reloads while workers of all generations are killed at random: only what they had accepted
    /// is lost.
    ///
    /// # Errors
    /// If it can't be tried.
    pub fn kills(&self, size: Size, seed: u64) -> Result<Outcome> {
        let mut outcome = Outcome::new("kills");
        let (option, hold) = Column::hold(size);
        // These are no crashes of the program.
        let options = ["--ready-hold", option, "--restart-intensity", "10000/10"];
        let primary = self.start(size, &options, &self.program)?;
        let clients = Clients::start(primary.addr, Column::load(size));
        let over = AtomicBool::new(false);
        let longest = if size.quick { 300 } else { 1_000 };
        let killed = thread::scope(|scope| -> Result<u64> {
            let killer = scope.spawn(|| kill_at_random(&primary, seed, longest, &over));
            for _ in 0..size.reloads {
                let attempt = primary.command(&["reload"]);
                outcome.count(attempt.inspect_err(|_| over.store(true, Ordering::Relaxed))?.0);
            }
            over.store(true, Ordering::Relaxed);
            Ok(killer.join().unwrap_or_default())
        })?;
        // The next one is as good as any.
        let (succeeded, _, said) = primary.command(&["reload"])?;
        outcome.count(succeeded);
        outcome.wrong.extend((!succeeded).then_some(said));
        outcome.clients_end(clients)?;
        primary.settle(WORKERS)?;
        if killed == 0 || !size.quick && killed < u64::from(size.reloads) {
            outcome.wrong.push(format!("only {killed} workers were killed"));
        }
        // As it looks when the process that has the connection ends.
        let is_cut = |how: &str| ["closed", "reset", "cut off"].contains(&how);
        let others: Vec<_> = outcome.tally.failed.keys().filter(|how| !is_cut(how)).collect();
        if !others.is_empty() {
            outcome.wrong.push(format!("requests failed: {:?}", outcome.tally.failed));
        }
        outcome.expect_log(&primary, hold)?;
        outcome.expect_clean_end(primary)?;
        Ok(outcome)
    }
}

/// Kills one worker after the other, of whatever generation, with pauses of at most so many
/// milliseconds; how many.
fn kill_at_random(primary: &Primary, seed: u64, longest: u64, over: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut killed = 0;
    while !over.load(Ordering::Relaxed) {
        let until = Instant::now() + Duration::from_millis(rng.below(longest));
        while Instant::now() < until && !over.load(Ordering::Relaxed) {
            thread::park_timeout(Duration::from_millis(20));
        }
        let workers = primary.workers();
        let nth = rng.below(workers.len().max(1) as u64) as usize;
        let pid = workers.get(nth).and_then(|it| it["pid"].as_i64());
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            killed += u64::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
        }
    }
    killed
}
