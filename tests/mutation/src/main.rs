//! Judges each mutant of the core that cargo-mutants knows: see `docs/mutation.md`.

mod build;
mod judge;
mod reasons;
mod switches;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "tests/mutation/run [OPTIONS]: judges each mutant of the core

  --only TEXT    those whose name contains this
  --list         only say which there are, and which can't be switched
  --help         this

Takes about an hour on two processors, and goes on where it was stopped as long as the sources are
the same. Needs cargo-mutants. Ends with 1 if a mutant survives without a reason in
docs/mutation.md, or does not survive although it is there.";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let (mut only, mut list) = (None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), &mut args) {
            ("--only", args) => only = args.next(),
            ("--list", _) => list = true,
            (other, _) => {
                eprintln!("{USAGE}");
                return ExitCode::from(if other == "--help" { 0 } else { 2 });
            }
        }
    }
    match run(only.as_deref(), list) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutation: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if all is as `docs/mutation.md` says.
fn run(only: Option<&str>, list: bool) -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no root")?;
    let folder = root.join("target/mutation");
    let tree = build::Tree::new(root, &folder)?;
    let mut switched = tree.switch_all()?;
    let all = tree.mutants.len();
    eprintln!(
        "{all} mutants: {} can be switched, {} compile",
        switched.possible,
        switched.on.len()
    );
    if list {
        for mutant in &tree.mutants {
            let word = if switched.on.contains(&mutant.number) { "on" } else { "off" };
            println!("{word}\t{}", mutant.name);
        }
        return Ok(true);
    }
    switched.on.retain(|number| {
        let name = tree.mutants.iter().find(|m| m.number == *number).map(|m| m.name.as_str());
        only.is_none_or(|text| name.is_some_and(|name| name.contains(text)))
    });
    let stages = judge::stages(&tree.programs()?);
    let verdicts = judge::all(&tree, &switched.on, &stages)?;
    let mut counts = BTreeMap::<&str, u32>::new();
    for verdict in verdicts.values() {
        *counts.entry(verdict).or_default() += 1;
    }
    for (verdict, count) in counts {
        println!("{verdict:12}{count:6}");
    }
    let survivors = tree
        .mutants
        .iter()
        .filter(|mutant| verdicts.get(&mutant.number).is_some_and(|v| v == judge::SURVIVES))
        .map(|mutant| mutant.name.as_str());
    let page = std::fs::read_to_string(root.join("docs/mutation.md"))?;
    let difference = reasons::difference(survivors, &page, only.is_none());
    difference.iter().for_each(|line| println!("{line}"));
    Ok(difference.is_empty())
}
