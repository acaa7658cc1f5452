//! Runs the tests with one mutant switched on after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wait_timeout::ChildExt;

use crate::Result;
use crate::build::Tree;

/// The verdict of a mutant that no stage noticed.
pub const SURVIVES: &str = "survives";

/// A program that fails if it notices a mutant; the cheap ones come first.
pub struct Stage {
    name: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
    folder: &'static str,
    /// Cases of a property.
    cases: u32,
}

/// All stages, in their order.
pub fn stages(programs: &BTreeMap<String, PathBuf>) -> Vec<Stage> {
    let tests: &[&str] = &["-q", "--test-threads=1"];
    let few: &[&str] = &["--threads", "1", "--seeds", "0..150"];
    let many: &[&str] = &["--threads", "1", "--seeds", "150..2000"];
    [
        ("unit", "roundel_core", tests, "core", 0),
        ("seeds", "simulate", few, "tests", 0),
        ("vectors", "vectors", tests, "tests", 0),
        ("corpus", "replay", tests, "fuzz", 0),
        ("properties", "prop", tests, "tests", 16),
        ("model", "explore", tests, "tests", 0),
        ("more seeds", "simulate", many, "tests", 0),
        ("more cases", "prop", tests, "tests", 128),
    ]
    .into_iter()
    .filter_map(|(name, program, args, folder, cases)| {
        let program = programs.get(program)?.clone();
        Some(Stage { name, program, args, folder, cases })
    })
    .collect()
}

impl Stage {
    /// What notices a mutant: the stage, perhaps since it does not end. Mutant 0 is none.
    fn notices(&self, tree: &Tree, mutant: u32, limit: Duration) -> Result<Option<String>> {
        let folder = tree.folder.join("tree").join(self.folder);
        // A mutant may want all memory there is.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\""])
            .arg(&self.program)
            .args(self.args)
            .current_dir(&folder)
            .env("CARGO_MANIFEST_DIR", &folder)
            .env("MUTANT", mutant.to_string())
            .env("PROPTEST_CASES", if self.cases == 0 { 64 } else { self.cases }.to_string())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        match child.wait_timeout(limit)? {
            Some(status) if status.success() => Ok(None),
            Some(_) => Ok(Some(self.name.into())),
            None => {
                child.kill()?;
                child.wait()?;
                Ok(Some(format!("{}, in time", self.name)))
            }
        }
    }
}

/// The verdict on each of these mutants.
pub fn all(tree: &Tree, on: &BTreeSet<u32>, stages: &[Stage]) -> Result<BTreeMap<u32, String>> {
    // Without a mutant nothing is to fail; and it says how long each stage takes.
    let mut limits = Vec::new();
    for stage in stages {
        let start = Instant::now();
        if let Some(what) = stage.notices(tree, 0, Duration::from_secs(900))? {
            return Err(format!("{what} fails without any mutant").into());
        }
        let limit = start.elapsed() * 8 + Duration::from_secs(10);
        eprintln!("{:11} {:.1} s", stage.name, start.elapsed().as_secs_f64());
        limits.push(limit);
    }
    let (mut known, file) = earlier(tree)?;
    known.retain(|number, _| on.contains(number));
    let left: Vec<u32> = on.iter().filter(|n| !known.contains_key(n)).copied().collect();
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let state = Mutex::new((known, file));
    let work = || -> std::result::Result<(), String> {
        while let Some(&number) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut verdict = SURVIVES.to_string();
            for (stage, limit) in stages.iter().zip(&limits) {
                let noticed = stage.notices(tree, number, *limit).map_err(|e| e.to_string())?;
                if let Some(by) = noticed {
                    verdict = by;
                    break;
                }
            }
            let mut state = state.lock().map_err(|e| e.to_string())?;
            writeln!(state.1, "{number}\t{verdict}").map_err(|e| e.to_string())?;
            state.0.insert(number, verdict);
            let (done, minutes) = (state.0.len(), begun.elapsed().as_secs() / 60);
            if done.is_multiple_of(50) {
                eprintln!("{done} of {}, {minutes} min", on.len());
            }
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err("a thread of this program panicked".into()),
        })
    })?;
    let (verdicts, _) = state.into_inner().map_err(|error| error.to_string())?;
    Ok(verdicts)
}

/// What was found with the same sources before, and where to write what is found now.
fn earlier(tree: &Tree) -> Result<(BTreeMap<u32, String>, File)> {
    let mut hasher = DefaultHasher::new();
    for folder in ["core/src", "tests", "fuzz"] {
        hash(&tree.folder.join("tree").join(folder), &mut hasher)?;
    }
    let folder = tree.folder.join("verdicts");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{:016x}", hasher.finish()));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let known = text.lines().filter_map(|line| {
        let (number, verdict) = line.split_once('\t')?;
        Some((number.parse().ok()?, verdict.to_string()))
    });
    Ok((known.collect(), File::options().create(true).append(true).open(path)?))
}

fn hash(path: &std::path::Path, hasher: &mut DefaultHasher) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<_>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash(entry, hasher));
    }
    if path.extension().is_some_and(|e| e == "rs") {
        fs::read(path)?.hash(hasher);
    }
    Ok(())
}
