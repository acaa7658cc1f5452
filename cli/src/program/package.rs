//! `package.json`: its scripts, and what they need.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::draft::Draft;
use super::words::{self, typed};
use super::{Hook, Refusal};

/// A package that has scripts.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) dir: PathBuf,
    json: Map<String, Value>,
}

impl Package {
    /// The package of a directory, or of the nearest parent that has one.
    ///
    /// # Errors
    /// A line that names what is missing or can't be read; `who` is the command that needs it.
    pub(super) fn find(who: &str, from: &Path) -> Result<Package, Refusal> {
        let found = from.ancestors().find(|dir| dir.join("package.json").is_file());
        match found {
            Some(dir) => Package::read(who, dir),
            None => Err(Refusal::usage(format!(
                "{who}: there is no package.json in {} or its parents",
                from.display()
            ))),
        }
    }

    /// The package of exactly this directory.
    ///
    /// # Errors
    /// As [`find`](Package::find).
    pub(super) fn read(who: &str, dir: &Path) -> Result<Package, Refusal> {
        let path = dir.join("package.json");
        let refuse = |why: String| Refusal::usage(format!("{who}: {}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        // Some editors on Windows begin a file with this mark.
        let text = text.trim_start_matches('\u{feff}');
        match serde_json::from_str(text) {
            Ok(Value::Object(json)) => Ok(Package { dir: dir.to_owned(), json }),
            Ok(_) => Err(refuse("is not a JSON object".into())),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    pub(super) fn script(&self, name: &str) -> Option<&str> {
        let script = self.json.get("scripts")?.get(name)?.as_str()?.trim();
        (!script.is_empty()).then_some(script)
    }

    /// The names of all scripts, for an error.
    fn names(&self) -> String {
        let scripts = self.json.get("scripts").and_then(Value::as_object);
        let names: Vec<&str> = scripts.into_iter().flatten().map(|(it, _)| it.as_str()).collect();
        if names.is_empty() {
            "it has no scripts".into()
        } else {
            format!("its scripts are {}", names.join(", "))
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.json.get(field)?.as_str()
    }

    /// True if the package uses a version of Yarn that runs no `pre` scripts.
    pub(super) fn is_modern_yarn(&self) -> bool {
        let manager = self.text("packageManager").unwrap_or_default();
        let old = manager.starts_with("yarn@1.");
        (manager.starts_with("yarn@") && !old) || self.dir.join(".yarnrc.yml").exists()
    }

    /// The variables that npm sets for a script.
    fn variables(&self, event: &str, script: &str, from: &Path) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = vec![
            ("npm_lifecycle_event".into(), event.into()),
            ("npm_lifecycle_script".into(), script.into()),
            ("npm_package_json".into(), self.dir.join("package.json").into()),
            ("INIT_CWD".into(), from.into()),
        ];
        for field in ["name", "version"] {
            if let Some(value) = self.text(field) {
                all.push((format!("npm_package_{field}").into(), value.into()));
            }
        }
        let config = self.json.get("config").and_then(Value::as_object);
        for (name, value) in config.into_iter().flatten() {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => continue,
            };
            all.push((format!("npm_package_config_{name}").into(), value.into()));
        }
        all
    }
}

/// A script to run, as a package manager would.
#[derive(Debug)]
pub(super) struct Script {
    /// The command that asks for it: `npm run web`.
    pub(super) who: String,
    pub(super) name: String,
    /// The arguments added to its own.
    pub(super) args: Vec<String>,
    /// Whether the script `preNAME` runs first.
    pub(super) hooks: bool,
}

/// Replaces the words that ask for a script by the script's command.
///
/// # Errors
/// If there is no such script, or if it needs a shell.
pub(super) fn run(draft: &mut Draft, package: &Package, script: &Script) -> Result<(), Refusal> {
    let Script { who, name, args, hooks } = script;
    let refuse = |why: String| Err(Refusal::usage(format!("{who}: {why}")));
    let line = match package.script(name) {
        Some(line) => line.to_owned(),
        // The command that npm uses then.
        None if name == "start" && package.dir.join("server.js").is_file() => {
            "node server.js".into()
        }
        None => {
            let path = package.dir.join("package.json");
            return refuse(format!(
                "no script {name:?} in {}: {}",
                path.display(),
                package.names()
            ));
        }
    };
    let simple = match words::parse(&line) {
        Ok(simple) if simple.words.is_empty() => {
            return refuse(format!("the script {name:?} runs no program: {line:?}"));
        }
        Ok(simple) => simple,
        Err(words::NeedsShell { what, last }) => {
            let advice = match last {
                Some(last) => format!(
                    "run the commands before it first, then: {}",
                    suggestion(&last, &package.dir)
                ),
                None => format!("type in a shell: roundel run {line}"),
            };
            return refuse(format!(
                "the script {name:?} needs a shell ({what}), which does not pass the channel on to Node; {advice}"
            ));
        }
    };
    let from = draft.cwd.clone();
    let variables = package.variables(name, &line, &from);
    draft.use_bins_of(&package.dir);
    if *hooks && let Some(before) = package.script(&format!("pre{name}")) {
        let name = format!("pre{name}");
        let mut env = draft.added.clone();
        env.extend(package.variables(&name, before, &from));
        env.extend(draft.variable("PATH").map(|path| ("PATH".into(), path)));
        let hook = Hook { name, script: before.to_owned(), env, cwd: package.dir.clone() };
        draft.hooks.push(hook);
    }
    draft.added.extend(variables);
    for (name, value) in simple.assignments {
        draft.set(name, value);
    }
    let mut all = simple.words;
    all.extend(args.iter().cloned());
    let shown = typed(all.iter().map(String::as_str));
    draft.notes.push(format!(
        "{who}: runs {shown} from {} directly",
        package.dir.join("package.json").display()
    ));
    if *hooks && package.script(&format!("post{name}")).is_some() {
        draft.notes.push(format!("{who}: the script \"post{name}\" is not run"));
    }
    draft.words = all.into_iter().map(OsString::from).collect();
    draft.move_to(package.dir.clone());
    Ok(())
}

/// The command line that runs the last command of a script.
fn suggestion(last: &str, dir: &Path) -> String {
    let Ok(simple) = words::parse(last) else { return format!("roundel run {last}") };
    let assignments: String = simple
        .assignments
        .iter()
        .map(|(name, value)| format!("{} ", typed([&*format!("{name}={value}")])))
        .collect();
    let program = simple.words.first().map(String::as_str).unwrap_or_default();
    let is_installed =
        dir.ancestors().any(|it| it.join("node_modules/.bin").join(program).exists());
    let npx = if is_installed { "npx " } else { "" };
    let words = typed(simple.words.iter().map(String::as_str));
    format!("{assignments}roundel run {npx}{words}")
}

/// The file of a package's command, if the command's name differs from the package's.
pub(super) fn bin_of(package: &str, from: &Path) -> Option<PathBuf> {
    let dir = from
        .ancestors()
        .map(|dir| dir.join("node_modules").join(package))
        .find(|dir| dir.is_dir())?;
    let found = Package::read("", &dir).ok()?;
    let bin = found.json.get("bin")?;
    let own = package.rsplit('/').next().unwrap_or(package);
    let file = match bin {
        Value::String(file) => file,
        Value::Object(all) => match all.get(own) {
            Some(file) => file.as_str()?,
            None if all.len() == 1 => all.values().next()?.as_str()?,
            None => return None,
        },
        _ => return None,
    };
    Some(dir.join(file.trim_start_matches("./")))
}
