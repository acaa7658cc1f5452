//! Programs that start Node as a process of their own. Their child does not get the channel, so the
//! command line must name the child's program instead.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::find::{Found, Kind};
use super::node::NodeArgs;
use super::words::{self, typed};
use super::{Refusal, node};

/// The purpose of a launcher, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Runs TypeScript; `node --import tsx` does that in one process.
    Types,
    /// Restarts a program when its files change.
    Watching,
    /// The same, and runs TypeScript.
    WatchingTypes,
    /// Reads variables from a file.
    EnvFile,
    /// Starts several programs.
    Several,
    /// Restarts programs, as the primary does.
    Supervising,
    /// Starts the output of `nest build`.
    Nest,
}

const LAUNCHERS: [(&str, For); 27] = [
    ("tsx", For::Types),
    ("ts-node-esm", For::Types),
    ("nodemon", For::Watching),
    ("node-dev", For::Watching),
    ("supervisor", For::Watching),
    ("tsc-watch", For::Watching),
    ("ts-node-dev", For::WatchingTypes),
    ("tsnd", For::WatchingTypes),
    ("dotenv", For::EnvFile),
    ("dotenvx", For::EnvFile),
    ("env-cmd", For::EnvFile),
    ("concurrently", For::Several),
    ("conc", For::Several),
    ("npm-run-all", For::Several),
    ("run-p", For::Several),
    ("run-s", For::Several),
    ("turbo", For::Several),
    ("nx", For::Several),
    ("lerna", For::Several),
    ("wireit", For::Several),
    ("pm2", For::Supervising),
    ("pm2-runtime", For::Supervising),
    ("pm2-dev", For::Supervising),
    ("pm2-docker", For::Supervising),
    ("forever", For::Supervising),
    ("cross-env-shell", For::Several),
    ("nest", For::Nest),
];

/// Options of launchers that take the next word as their value and that Node doesn't have.
const WITH_VALUE: [&str; 20] = [
    "--tsconfig",
    "--project",
    "-P",
    "--ignore",
    "--include",
    "--exclude",
    "--watch",
    "-w",
    "-e",
    "--ext",
    "-i",
    "--delay",
    "-d",
    "-f",
    "--file",
    "-x",
    "--exec",
    "--signal",
    "-n",
    "--name",
];

/// If a program only sets variables before it runs another, sets them and drops that program.
///
/// # Errors
/// If they can't be set here.
pub(super) fn step(draft: &mut Draft) -> Result<bool, Refusal> {
    let Some(name) = draft.name() else { return Ok(false) };
    let is_env = ["env", "/bin/env", "/usr/bin/env"].map(OsString::from);
    if name != "cross-env" && !draft.words.first().is_some_and(|word| is_env.contains(word)) {
        return Ok(false);
    }
    let Some(args) = draft.args() else { return Ok(false) };
    let assignment = |word: &String| {
        let (name, value) = word.split_once('=')?;
        words::is_name(name).then(|| (name.to_owned(), value.to_owned()))
    };
    let variables: Vec<_> = args.iter().map_while(assignment).collect();
    let rest: Vec<OsString> = args.iter().skip(variables.len()).map(OsString::from).collect();
    // env(1) is replaced by the program it runs, so it may stay if it is used with options.
    let plain = rest.first().is_some_and(|word| !word.as_encoded_bytes().starts_with(b"-"));
    if name == "env" && !plain {
        return Ok(false);
    }
    if !plain {
        return Err(Refusal::usage(format!("{name}: the program is missing")));
    }
    for (variable, value) in variables {
        if name == "cross-env" && value.contains('$') {
            return Err(Refusal::usage(format!(
                "{name}: {variable}={value}: the value needs a shell; set {variable} in the shell before roundel run"
            )));
        }
        draft.set(variable, value);
    }
    if name == "cross-env" {
        draft.notes.push(format!("{name}: its variables are set and the rest is run directly"));
    }
    draft.words = rest;
    Ok(true)
}

/// Refuses a launcher that was found under this name, if it is a script that a package has
/// installed. Other programs with that name are the operator's own.
///
/// # Errors
/// The line names the form that works.
pub(super) fn refuse_if_launcher(
    name: &OsStr,
    found: &Found,
    draft: &Draft,
) -> Result<(), Refusal> {
    let file = Path::new(name).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let args = draft.args().unwrap_or_default();
    let is_installed = |path: &Path| path.iter().any(|part| part == "node_modules");
    let target = found.path.canonicalize().unwrap_or_default();
    let installed = is_installed(&found.path) || is_installed(&target);
    if installed && matches!(found.kind, Kind::Script(_)) {
        refuse(file, &args)?;
    }
    Ok(())
}

/// The options that give Node code instead of a script.
const CODE: [&str; 5] = ["-e", "--eval", "-p", "-pe", "--print"];

/// Refuses Node if it would start another Node, or a launcher of a package.
///
/// # Errors
/// The line names the form that works.
pub(super) fn refuse_in_node(
    args: &[OsString],
    read: &NodeArgs,
    cwd: &Path,
) -> Result<(), Refusal> {
    let text: Vec<String> = args.iter().map(|it| it.to_string_lossy().into()).collect();
    if read.has(&["--watch", "--watch-path", "--watch-preserve-output", "--watch-kill-signal"]) {
        let mut rest = text.clone();
        let mut from = 0;
        let mut kept = Vec::new();
        for (name, _, end) in &read.options {
            let option = rest.get(from..*end).unwrap_or_default().to_vec();
            if !name.starts_with("--watch") {
                kept.extend(option);
            }
            from = *end;
        }
        kept.extend(rest.drain(from.min(text.len())..));
        return Err(Refusal::usage(format!(
            "node --watch: starts the script in a separate process that does not get the channel; run: roundel run node {}",
            typed(kept.iter().map(String::as_str))
        )));
    }
    // Node makes a process a cluster worker only if the process has an argument (process.argv[1]).
    let behind = read.options.last().map_or(0, |(_, _, end)| *end);
    let mut arguments = text.iter().skip(behind).skip_while(|word| *word == "--");
    let is_alone = arguments.next().is_none();
    if read.has(&CODE) && is_alone {
        let mut given = read.options.iter().map(|(name, ..)| name.as_str());
        let name = given.find(|name| CODE.contains(name)).unwrap_or_default();
        return Err(Refusal::usage(format!(
            "node {name}: Node runs code as a cluster worker only if an argument follows it; run: roundel run node {}",
            typed(text.iter().map(String::as_str).chain(["worker"]))
        )));
    }
    let Some(script) = read.script else { return Ok(()) };
    let Some((script, behind)) = text.get(script..).and_then(<[String]>::split_first) else {
        return Ok(());
    };
    if script == "inspect" && !cwd.join(script).exists() {
        return Err(Refusal::usage(format!(
            "node inspect: starts the script in a separate process that does not get the channel; run: roundel run node --inspect {}",
            typed(behind.iter().map(String::as_str))
        )));
    }
    match package_of(Path::new(script)) {
        Some(name) => refuse(&name, behind),
        None => Ok(()),
    }
}

/// The launcher to which this file in `node_modules` belongs.
fn package_of(script: &Path) -> Option<String> {
    let script: PathBuf = if script.to_str()?.contains(".bin") {
        return Some(script.file_name()?.to_str()?.to_owned());
    } else {
        script.to_owned()
    };
    let mut parts = script.iter().skip_while(|part| *part != "node_modules").skip(1);
    let package = parts.next()?.to_str()?;
    Some(match package {
        "dotenv-cli" => "dotenv".into(),
        other => other.to_owned(),
    })
}

fn refuse(name: &str, args: &[String]) -> Result<(), Refusal> {
    let esm = name.starts_with("ts-node") && args.iter().any(|arg| arg == "--esm");
    let name = if esm { "ts-node-esm" } else { name };
    let Some((_, purpose)) = LAUNCHERS.iter().find(|(other, _)| *other == name) else {
        return Ok(());
    };
    let program = program_in(args);
    let run = |before: &str| {
        let words = before.split_whitespace().chain(program.iter().map(String::as_str));
        format!("run: roundel run {}", typed(words))
    };
    let starts_node = program.first().is_some_and(|word| node::is_node(OsStr::new(word)));
    let by_node = if starts_node { "" } else { "node" };
    let others = "starts the program in a separate process that does not get the channel";
    let line = match purpose {
        For::Types | For::WatchingTypes => format!("{others}; {}", run("node --import tsx")),
        For::Watching => format!("{others}; {}", run(by_node)),
        For::EnvFile => {
            let file = value_of(args, &["-e", "-f", "--file", "-p"]).unwrap_or(".env");
            let words: Vec<&str> = program.iter().map(String::as_str).collect();
            let rest = words.get(usize::from(starts_node)..).unwrap_or_default();
            let file = format!("--env-file={file}");
            let words = ["node", &file].into_iter().chain(rest.iter().copied());
            format!("{others}; run: roundel run {}", typed(words))
        }
        For::Several => {
            format!("{others}; start each server under its own primary: roundel run node SCRIPT")
        }
        For::Supervising => {
            format!("restarts the program, which roundel already does; {}", run(by_node))
        }
        For::Nest => format!("{others}; run: roundel run node dist/main.js"),
    };
    Err(Refusal::usage(format!("{name}: {line}")))
}

fn value_of<'a>(args: &'a [String], names: &[&str]) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(at, arg)| match arg.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value),
        None if names.contains(&arg.as_str()) => args.get(at + 1).map(String::as_str),
        _ => None,
    })
}

/// The program that a launcher runs, after the options of Node that precede it; `SCRIPT` if it
/// can't be determined.
fn program_in(args: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        at += 1;
        if arg == "--" {
            break;
        }
        if WITH_VALUE.contains(&arg.as_str()) {
            at += 1;
        } else if arg.starts_with('-') {
            let nodes = ["--inspect", "--max-", "--env-file", "--import", "--require", "--enable-"];
            if nodes.iter().any(|it| arg.starts_with(it)) {
                kept.push(arg.clone());
            }
        } else if !(kept.is_empty() && matches!(arg.as_str(), "watch" | "run" | "start")) {
            at -= 1;
            break;
        }
    }
    kept.extend(args.get(at..).unwrap_or_default().iter().cloned());
    if kept.is_empty() {
        kept.push("SCRIPT".into());
    }
    kept
}
