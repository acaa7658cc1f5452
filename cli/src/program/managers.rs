//! Package managers: the program that they would start is started without them.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Refusal;
use super::draft::Draft;
use super::package::{self, Package, Script};

/// Options that do not affect what is run.
const SILENT: [&str; 8] =
    ["-s", "--silent", "-q", "--quiet", "-y", "--yes", "--no-install", "--if-present"];

const NOT_FOLLOWED: &str = "is not supported here; run the program itself, in its directory";

/// Options of npm that name the directory of the package.
const NPM_DIRS: [&str; 2] = ["--prefix", "-C"];

/// Commands that are short forms of scripts.
const SCRIPTS: [&str; 4] = ["start", "test", "stop", "restart"];

/// If a package manager, or Node in its place, is asked to run something, puts that in its place.
///
/// # Errors
/// If it can't be run without the package manager.
pub(super) fn step(draft: &mut Draft) -> Result<bool, Refusal> {
    let Some(name) = draft.name() else { return Ok(false) };
    let command = match name.as_str() {
        "npm" => npm,
        "npx" | "pnpx" => npx,
        "pnpm" => pnpm,
        "yarn" | "yarnpkg" => yarn,
        "node" | "nodejs" => node_run,
        "corepack" => corepack,
        _ => return Ok(false),
    };
    // Words that are not text can't name a script.
    let Some(args) = draft.args() else { return Ok(false) };
    command(draft, Call { who: name, args: args.into(), dir: None, advice: NOT_FOLLOWED })
}

/// The command line of a package manager, while it is being read.
struct Call {
    /// The name used in errors: the manager and its command.
    who: String,
    args: std::collections::VecDeque<String>,
    /// The directory in which to look, if not the working directory.
    dir: Option<PathBuf>,
    /// The advice for an option that is not known here.
    advice: &'static str,
}

impl Call {
    fn refuse<T>(&self, why: &str) -> Result<T, Refusal> {
        Err(Refusal::usage(format!("{}: {why}", self.who)))
    }

    /// Skips options up to the next word; `dirs` are the options that name a directory.
    fn word(&mut self, draft: &Draft, dirs: &[&str]) -> Result<Option<String>, Refusal> {
        while let Some(arg) = self.args.pop_front() {
            if !arg.starts_with('-') {
                return Ok(Some(arg));
            }
            if arg == "--" {
                self.args.push_front(arg);
                return Ok(None);
            }
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            if dirs.contains(&name) {
                let Some(value) = value.or_else(|| self.args.pop_front()) else {
                    return self.refuse(&format!("{name}: a directory is missing"));
                };
                self.dir = Some(draft.cwd.join(value));
            } else if !SILENT.contains(&arg.as_str()) {
                return self.refuse(&format!("{arg} {}", self.advice));
            }
        }
        Ok(None)
    }

    /// The package that the command line refers to.
    fn package(&self, draft: &Draft) -> Result<Package, Refusal> {
        match &self.dir {
            Some(dir) => Package::read(&self.who, dir),
            None => Package::find(&self.who, &draft.cwd),
        }
    }

    fn script(mut self, draft: &mut Draft, name: String, rest: Rest) -> Result<bool, Refusal> {
        if matches!(rest, Rest::BehindDashes) {
            // npm takes options before two dashes as its own.
            self.advice = "is an option for npm; put the script's own options after --";
            let mut own = Vec::new();
            while let Some(word) = self.word(draft, &NPM_DIRS)? {
                own.push(word);
            }
            let behind = self.args.drain(..).skip_while(|arg| arg == "--");
            self.args = own.into_iter().chain(behind.collect::<Vec<_>>()).collect();
        } else if self.args.front().is_some_and(|arg| arg == "--") {
            self.args.pop_front();
        }
        let package = self.package(draft)?;
        if package.dir.join(".pnp.cjs").exists() {
            return self.refuse(
                "the package uses .pnp.cjs, not node_modules; run: roundel run node -r ./.pnp.cjs \
                 SCRIPT",
            );
        }
        let hooks = !matches!(rest, Rest::None) && !package.is_modern_yarn();
        let script = Script { who: self.who, name, args: self.args.into(), hooks };
        package::run(draft, &package, &script)?;
        Ok(true)
    }

    /// Runs a command of an installed package.
    fn bin(mut self, draft: &mut Draft, name: String) -> Result<bool, Refusal> {
        let versioned = name.get(1..).is_some_and(|rest| rest.contains('@'));
        if versioned {
            return self.refuse(&format!(
                "{name} would be downloaded; install it and leave out the version"
            ));
        }
        let from = self.dir.take().unwrap_or_else(|| draft.cwd.clone());
        draft.use_bins_of(&from);
        let is_link = |dir: &std::path::Path| dir.join("node_modules/.bin").join(&name).exists();
        let program: OsString = if from.ancestors().any(is_link) {
            name.clone().into()
        } else {
            package::bin_of(&name, &from).map_or_else(|| name.clone().into(), OsString::from)
        };
        draft.missing_hint =
            Some(format!("{} would download it; install it first (npm install {name})", self.who));
        draft.notes.push(format!("{}: runs {name} directly", self.who));
        if self.args.front().is_some_and(|arg| arg == "--") {
            self.args.pop_front();
        }
        draft.words =
            std::iter::once(program).chain(self.args.into_iter().map(OsString::from)).collect();
        draft.move_to(from);
        Ok(true)
    }
}

/// Which of the words after a script's name belong to the script.
#[derive(Clone, Copy)]
enum Rest {
    /// All of them; and no `pre` script is run.
    None,
    All,
    BehindDashes,
}

fn npm(draft: &mut Draft, mut call: Call) -> Result<bool, Refusal> {
    let command = call.word(draft, &NPM_DIRS)?;
    match command.as_deref() {
        Some(name) if SCRIPTS.contains(&name) => {
            call.who = format!("npm {name}");
            call.script(draft, name.into(), Rest::BehindDashes)
        }
        Some("run" | "run-script" | "rum" | "urn") => {
            call.who = "npm run".into();
            let Some(name) = call.word(draft, &NPM_DIRS)? else {
                return call.refuse("the name of a script is missing");
            };
            call.who = format!("npm run {name}");
            call.script(draft, name, Rest::BehindDashes)
        }
        Some("exec" | "x") => {
            call.who = "npm exec".into();
            npx(draft, call)
        }
        _ => call.refuse("does not start a program; use npm start, npm run NAME or npm exec NAME"),
    }
}

fn npx(draft: &mut Draft, mut call: Call) -> Result<bool, Refusal> {
    let name = match call.word(draft, &["--prefix"])? {
        None if call.args.pop_front().is_some() => call.word(draft, &[])?,
        other => other,
    };
    match name {
        Some(name) => call.bin(draft, name),
        None => call.refuse("the name of a program is missing"),
    }
}

fn pnpm(draft: &mut Draft, mut call: Call) -> Result<bool, Refusal> {
    let dirs = ["--dir", "-C", "--prefix"];
    let command = call.word(draft, &dirs)?;
    named(draft, call, command, &dirs)
}

fn yarn(draft: &mut Draft, mut call: Call) -> Result<bool, Refusal> {
    let dirs = ["--cwd"];
    let command = call.word(draft, &dirs)?;
    named(draft, call, command, &dirs)
}

/// `pnpm` and `yarn` also accept scripts and commands by their bare names.
fn named(
    draft: &mut Draft,
    mut call: Call,
    command: Option<String>,
    dirs: &[&str],
) -> Result<bool, Refusal> {
    let manager = call.who.clone();
    match command.as_deref() {
        Some("run" | "run-script") => {
            call.who = format!("{manager} run");
            let Some(name) = call.word(draft, dirs)? else {
                return call.refuse("the name of a script is missing");
            };
            call.who = format!("{manager} run {name}");
            script_or_bin(draft, call, name)
        }
        Some("exec") => {
            call.who = format!("{manager} exec");
            npx(draft, call)
        }
        Some("node") => {
            let node = call.args.drain(..).map(OsString::from);
            draft.words = std::iter::once("node".into()).chain(node).collect();
            Ok(true)
        }
        Some(name @ ("dlx" | "workspace" | "workspaces")) => {
            call.refuse(&format!("{name} {NOT_FOLLOWED}"))
        }
        None => call.refuse("the name of a script is missing"),
        Some(name) => {
            call.who = format!("{manager} {name}");
            let name = name.to_owned();
            script_or_bin(draft, call, name)
        }
    }
}

fn script_or_bin(draft: &mut Draft, mut call: Call, name: String) -> Result<bool, Refusal> {
    let package = call.package(draft)?;
    let installed = package.dir.join("node_modules/.bin").join(&name).exists();
    if package.script(&name).is_none() && installed {
        call.dir = Some(package.dir);
        return call.bin(draft, name);
    }
    call.script(draft, name, Rest::All)
}

/// `node --run NAME`: no script runs before or after it.
fn node_run(draft: &mut Draft, mut call: Call) -> Result<bool, Refusal> {
    let first = call.args.pop_front().unwrap_or_default();
    let name = match first.split_once('=') {
        Some(("--run", name)) => name.to_owned(),
        None if first == "--run" => match call.args.pop_front() {
            Some(name) => name,
            None => return call.refuse("--run: the name of a script is missing"),
        },
        _ => return Ok(false),
    };
    call.who = format!("node --run {name}");
    call.script(draft, name, Rest::None)
}

/// corepack fetches a package manager and starts it.
fn corepack(draft: &mut Draft, call: Call) -> Result<bool, Refusal> {
    let is_manager =
        |name: &String| matches!(name.as_str(), "npm" | "npx" | "pnpm" | "pnpx" | "yarn");
    if !call.args.front().is_some_and(is_manager) {
        return Ok(false);
    }
    draft.words = call.args.into_iter().map(OsString::from).collect();
    Ok(true)
}
