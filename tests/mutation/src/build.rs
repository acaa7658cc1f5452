//! The sources with all mutants in them, and the programs that judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::switches::{Mutant, SWITCH, with_switches};

/// A copy of the workspace.
pub struct Tree {
    root: PathBuf,
    pub folder: PathBuf,
    pub mutants: Vec<Mutant>,
}

/// Which mutants are behind switches.
pub struct Switched {
    pub on: BTreeSet<u32>,
    /// How many there were before those that do not compile were left out.
    pub possible: usize,
}

impl Tree {
    /// Copies what git knows, and asks cargo-mutants what there is.
    pub fn new(root: &Path, folder: &Path) -> Result<Tree> {
        let list = output(Command::new("cargo").current_dir(root).args([
            "mutants",
            "--list",
            "--json",
            "-p",
            "roundel-core",
        ]))?;
        let mut mutants: Vec<Mutant> = serde_json::from_slice(&list)?;
        for (number, mutant) in (1..).zip(&mut mutants) {
            mutant.number = number;
        }
        let folder = folder.to_path_buf();
        let files = output(Command::new("git").current_dir(root).args(["ls-files", "-z"]))?;
        for file in String::from_utf8(files)?.split_terminator('\0') {
            // What is written here with switches is not to be written twice.
            if !file.starts_with("core/src/")
                && let Ok(text) = fs::read(root.join(file))
            {
                write(&folder.join("tree").join(file), &text)?;
            }
        }
        Ok(Tree { root: root.to_path_buf(), folder, mutants })
    }

    /// Puts all mutants in that compile.
    pub fn switch_all(&self) -> Result<Switched> {
        let mut broken = BTreeSet::new();
        let mut possible = None;
        loop {
            let on = self.switch(&broken)?;
            let possible = *possible.get_or_insert(on.len());
            let errors = self.errors()?;
            if errors.is_empty() {
                return Ok(Switched { on, possible });
            }
            let before = broken.len();
            for (file, lines) in errors {
                broken.extend(blamed(&fs::read_to_string(file)?, lines));
            }
            if broken.len() == before {
                return Err("the sources do not compile, whatever is left out".into());
            }
        }
    }

    fn switch(&self, broken: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
        let mut on = BTreeSet::new();
        let sources = output(
            Command::new("git").current_dir(&self.root).args(["ls-files", "-z", "core/src"]),
        )?;
        for file in String::from_utf8(sources)?.split_terminator('\0') {
            let mut text = fs::read_to_string(self.root.join(file))?;
            let there = |m: &&Mutant| m.file == file && !broken.contains(&m.number);
            let mutants: Vec<Mutant> = self.mutants.iter().filter(there).cloned().collect();
            if !mutants.is_empty() {
                let (switched, done) =
                    with_switches(&text, &mutants).map_err(|error| format!("{file}: {error}"))?;
                text = switched;
                on.extend(done);
            }
            if file == "core/src/lib.rs" {
                text.push_str(SWITCH);
            }
            write(&self.folder.join("tree").join(file), text.as_bytes())?;
        }
        Ok(on)
    }

    /// Where the core does not compile: file, first and last line, and whether arms are missing.
    fn errors(&self) -> Result<Vec<(PathBuf, Blame)>> {
        let said = self.cargo(&["check", "-p", "roundel-core", "--all-features"])?;
        let mut errors = Vec::new();
        for message in said.iter().filter(|m| m["message"]["level"] == "error") {
            let text = message["message"]["message"].as_str().unwrap_or_default();
            let spans = message["message"]["spans"].as_array().into_iter().flatten();
            for span in spans.filter(|span| span["is_primary"] == true) {
                let line = |name: &str| span[name].as_u64().unwrap_or(1) as usize;
                let file = self.folder.join("tree").join(span["file_name"].as_str().unwrap_or(""));
                let (first, last) = (line("line_start"), line("line_end"));
                errors
                    .push((file, Blame { first, last, arms: text.starts_with("non-exhaustive") }));
            }
        }
        Ok(errors)
    }

    /// The test programs by name, and the simulator.
    pub fn programs(&self) -> Result<BTreeMap<String, PathBuf>> {
        let tests = ["prop", "vectors", "explore"].iter().flat_map(|test| ["--test", test]);
        let test = ["test", "--release", "--no-run"];
        let core = [&test[..], &["-p", "roundel-core", "--lib"]].concat();
        let fuzz = [&test[..], &["-p", "roundel-fuzz", "--test", "replay"]].concat();
        let whole: Vec<&str> =
            [&test[..], &["-p", "roundel-tests"]].concat().into_iter().chain(tests).collect();
        let bin = ["build", "--release", "-p", "roundel-tests", "--bin", "simulate"];
        let mut programs = BTreeMap::new();
        for args in [&core[..], &fuzz, &whole, &bin] {
            for message in self.cargo(args)? {
                if let (Some(name), Some(program)) =
                    (message["target"]["name"].as_str(), message["executable"].as_str())
                {
                    programs.insert(name.to_string(), PathBuf::from(program));
                }
                if message["message"]["level"] == "error" {
                    return Err(message["message"]["rendered"].as_str().unwrap_or("").into());
                }
            }
        }
        Ok(programs)
    }

    fn cargo(&self, args: &[&str]) -> Result<Vec<Value>> {
        let run = Command::new("cargo")
            .current_dir(self.folder.join("tree"))
            .args(args)
            .args(["--message-format", "json"])
            .env("CARGO_TARGET_DIR", self.folder.join("build"))
            // As tests are built, but faster: the link-time optimisation takes minutes.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("RUSTFLAGS", "--cap-lints=warn -Awarnings")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .output()?;
        Ok(run
            .stdout
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

/// Where an error is.
#[derive(Clone, Copy)]
struct Blame {
    first: usize,
    last: usize,
    arms: bool,
}

/// How far from an error its mutant may begin, in lines as prettyplease breaks them.
const NEAR: usize = 14;

/// The mutants that an error comes from: the last one that is switched before the error's end, or
/// all arms of a match of which some are missing.
fn blamed(text: &str, at: Blame) -> Vec<u32> {
    let lines: Vec<&str> = text.lines().collect();
    if at.arms {
        let mut depth = 0;
        let arms = lines.iter().skip(at.first - 1).take_while(|line| {
            let before = depth;
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
            before > 0 || depth > 0
        });
        return arms.flat_map(|line| numbers(line, "if !crate::mutant(")).collect();
    }
    let from = at.first.saturating_sub(NEAR);
    let near = lines.iter().take(at.last).skip(from).rev();
    near.map(|line| numbers(line, "crate::mutant("))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn numbers(line: &str, behind: &str) -> Vec<u32> {
    let digits = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().map(str::parse);
    line.split(behind).skip(1).filter_map(|rest| digits(rest)?.ok()).collect()
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{command:?} failed").into())
    }
}

/// Leaves alone what is the same, so that cargo does not build it anew.
fn write(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, text)?)
}
