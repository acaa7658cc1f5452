//! Reloads under load, for long: `reload_soak [--quick] [--reloads N] [--column NAME]...
//! [--only WHAT]... [-- OPTIONS]`, where OPTIONS are more ones for `roundel run`.
//!
//! `roundel` and `roundel-smol` are taken from the directory of this program, Node's versions from
//! the cache that `tests/node/cache/fetch` makes. See docs/testing.md.

use std::ffi::OsString;
use std::io::{self, Error};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roundel_tests::soak::cells::{Column, Outcome, Size};

const COLUMNS: [&str; 4] = ["mio", "smol", "node-20", "node-26"];
const CELLS: [&str; 3] = ["reloads", "slow-boot", "kills"];
const USAGE: &str = "reload_soak [--quick] [--reloads N] [--column mio|smol|node-20|node-26]... \
                     [--only reloads|slow-boot|kills]... [--seed N] [-- OPTIONS]";

#[derive(Default)]
struct Args {
    quick: bool,
    reloads: Option<u32>,
    seed: u64,
    columns: Vec<String>,
    cells: Vec<String>,
    options: Vec<OsString>,
}

fn parse() -> Option<Args> {
    let mut args = Args { seed: u64::from(std::process::id()), ..Args::default() };
    let mut words = std::env::args();
    words.next();
    let known = |word: Option<String>, all: &[&str]| word.filter(|it| all.contains(&it.as_str()));
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => args.quick = true,
            "--reloads" => args.reloads = Some(words.next()?.parse().ok().filter(|n| *n > 1)?),
            "--seed" => args.seed = words.next()?.parse().ok()?,
            "--column" => args.columns.push(known(words.next(), &COLUMNS)?),
            "--only" => args.cells.push(known(words.next(), &CELLS)?),
            "--" => args.options.extend(words.by_ref().map(OsString::from)),
            _ => return None,
        }
    }
    if args.columns.is_empty() {
        let all = if args.quick { &COLUMNS[..1] } else { &COLUMNS };
        args.columns = all.iter().map(ToString::to_string).collect();
    }
    if args.cells.is_empty() {
        args.cells = CELLS.map(str::to_owned).into();
    }
    Some(args)
}

fn column(name: &str, options: &[OsString]) -> io::Result<Column> {
    let program = std::env::current_exe()?;
    let dir = program.parent().unwrap_or(Path::new("."));
    let found = |path: PathBuf, how: &str| match path.exists() {
        true => Ok(path),
        false => Err(Error::other(format!("{} is missing: {how}", path.display()))),
    };
    let primary = if name == "smol" { "roundel-smol" } else { "roundel" };
    let binary = found(dir.join(primary), "build it")?;
    let node = match name.strip_prefix("node-") {
        None => None,
        Some(version) => {
            let path = format!("../node-cache/versions/node_modules/node-{version}/bin/node");
            Some(found(dir.join(path), "run tests/node/cache/fetch")?)
        }
    };
    let assisted = options.iter().any(|it| it == "--node-assist");
    let keeps_reused = node.is_none() || assisted;
    let program = match node {
        None => vec![binary.clone().into(), "demo-worker".into(), "1".into()],
        Some(node) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures/demo.js");
            vec![node.into(), script.into()]
        }
    };
    let (name, options) = (name.to_owned(), options.to_vec());
    Ok(Column { name, binary, program, options, keeps_reused })
}

fn run(column: &Column, cell: &str, args: &Args) -> io::Result<Outcome> {
    let is_native = !column.name.starts_with("node");
    let reloads = match (cell, args.quick) {
        (_, true) => 3,
        ("kills", _) => 50,
        _ if is_native => 100,
        _ => 20,
    };
    let size = Size { quick: args.quick, reloads: args.reloads.unwrap_or(reloads) };
    match cell {
        "reloads" => column.reloads(size),
        "slow-boot" => column.slow_boot(size),
        _ => column.kills(size, args.seed),
    }
}

fn row(column: &str, it: &Outcome) -> String {
    let reloads = match it.failed {
        0 => it.done.to_string(),
        failed => format!("{} ({failed} failed)", it.done + failed),
    };
    let failed: Vec<String> =
        it.tally.failed.iter().map(|(how, count)| format!("{how} {count}")).collect();
    let failed = if failed.is_empty() { "0".to_owned() } else { failed.join(", ") };
    let requests = it.tally.answered + it.tally.failures();
    let (rate, reused) = (it.rate(), it.tally.reused_closed);
    let slowest = it.tally.slowest.as_millis();
    let held = it.held.map_or_else(String::new, |(base, end)| {
        format!("{} -> {} | {} -> {} KiB", base.fds, end.fds, base.rss_kib, end.rss_kib)
    });
    let held = if held.is_empty() { " | ".to_owned() } else { held };
    let verdict = if it.wrong.is_empty() { "ok" } else { "FAILED" };
    format!(
        "| {column} | {} | {reloads} | {requests} | {rate} | {failed} | {reused} | {slowest} ms \
         | {held} | {verdict} |",
        it.what
    )
}

fn main() -> io::Result<ExitCode> {
    let Some(args) = parse() else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    println!("seed {}", args.seed);
    println!(
        "| column | what | reloads | requests | requests/s | failed | reused-closed | slowest \
         | descriptors | memory | |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut is_good = true;
    for name in &args.columns {
        let column = column(name, &args.options)?;
        for cell in &args.cells {
            let outcome = run(&column, cell, &args)?;
            println!("{}", row(name, &outcome));
            is_good &= outcome.wrong.is_empty();
            for what in &outcome.wrong {
                eprintln!("{name}, {}: {what}", outcome.what);
            }
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
