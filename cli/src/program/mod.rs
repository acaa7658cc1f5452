//! What to start: from the words on the command line to a program that can be a worker.
//!
//! Package managers and other launchers start Node as a process of their own, which does not get
//! the channel. So the program that they would start is started directly, or an error says what to
//! write instead. A program that can't be started is noticed before anything is started.

mod assist;
mod draft;
mod find;
mod inspect;
mod launchers;
mod managers;
mod node;
mod package;
mod slots;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub(crate) use assist::assist;
use draft::Draft;
pub(crate) use inspect::Inspect;
use node::{NodeArgs, Types};
use roundel_runtime::exit::Exit;
use roundel_runtime::unix::process::Program;
pub(crate) use slots::per_slot;
pub(crate) use words::is_name;

/// How often one launcher may start another: a script that runs itself would never end.
const MAX_STEPS: usize = 16;

/// A program that can be started.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) program: Program,
    /// Notes for the operator on how the program was found.
    pub(crate) notes: Vec<String>,
    /// Scripts that are run once before the program: `prestart`.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) inspect: Option<Inspect>,
    /// Whether it is known to speak on the channel: it needs no listeners passed by the
    /// environment.
    pub(crate) has_channel: bool,
}

/// A program that needs no looking up.
impl From<Program> for Resolved {
    fn from(program: Program) -> Resolved {
        Resolved { program, notes: Vec::new(), hooks: Vec::new(), inspect: None, has_channel: true }
    }
}

/// A script that a package manager runs in a shell before another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) script: String,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: PathBuf,
}

impl Hook {
    /// Runs it to its end, as the package manager would.
    ///
    /// # Errors
    /// If it failed; then nothing else is run.
    pub(crate) fn run(&self) -> Result<(), Refusal> {
        let failure = |why: &dyn std::fmt::Display| Refusal {
            exit: Exit::Failure,
            words: format!("the script {:?} failed: {why}", self.name),
        };
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(&self.script).current_dir(&self.cwd);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failure(&status)),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// Why a program can't be started: one line for each mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) exit: Exit,
    pub(crate) words: String,
}

impl Refusal {
    fn usage(words: String) -> Refusal {
        Refusal { exit: Exit::Usage, words }
    }

    fn missing(words: String) -> Refusal {
        Refusal { exit: Exit::ProgramMissing, words }
    }

    fn barred(words: String) -> Refusal {
        Refusal { exit: Exit::NotExecutable, words }
    }
}

/// The name by which this process's directory was entered, as shells keep it in `PWD`: if it goes
/// over a symbolic link, the link may point elsewhere at a reload.
static ENTERED: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let path = PathBuf::from(std::env::var_os("PWD")?);
    let (there, here) = (path.metadata().ok()?, Path::new(".").metadata().ok()?);
    let is_same = there.dev() == here.dev() && there.ino() == here.ino();
    (path.is_absolute() && is_same).then_some(path)
});

/// Where relative paths of this process lead to: over a symbolic link, as it is now.
pub(crate) fn at_own_place(path: &Path) -> PathBuf {
    ENTERED.as_ref().map_or_else(|| path.to_owned(), |entered| entered.join(path))
}

/// Where a program is started: the parts of the environment that decide which program it is.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) cwd: PathBuf,
    pub(crate) variables: BTreeMap<OsString, OsString>,
    /// Variables that workers get besides; they come first.
    pub(crate) added: Vec<(OsString, OsString)>,
    /// Whether the directory is not that of this process.
    pub(crate) moved: bool,
}

impl Surroundings {
    /// The surroundings of this process.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub(crate) fn own() -> Result<Surroundings, Refusal> {
        let unknown = |error| Refusal {
            exit: Exit::Failure,
            words: format!("cannot determine the working directory: {error}"),
        };
        let own = std::env::current_dir();
        let entered = ENTERED.as_ref().and_then(|path| path.canonicalize().ok());
        let (cwd, moved) = match (entered, own) {
            (Some(entered), Ok(own)) => (entered.clone(), entered != own),
            (Some(entered), Err(_)) => (entered, true),
            (None, own) => (own.map_err(unknown)?, false),
        };
        Ok(Surroundings { moved, ..Surroundings::new(cwd, std::env::vars_os().collect()) })
    }

    pub(crate) fn new(cwd: PathBuf, variables: BTreeMap<OsString, OsString>) -> Surroundings {
        Surroundings { cwd, variables, added: Vec::new(), moved: false }
    }

    /// The same with variables added, and in a directory if there is one.
    pub(crate) fn with(self, env: Vec<(OsString, OsString)>, dir: Option<&Path>) -> Surroundings {
        let moved = self.moved || dir.is_some();
        // Resolved now: a worker that is started later belongs to the release of its generation.
        let resolved = |dir: &Path| {
            let joined = self.cwd.join(dir);
            joined.canonicalize().unwrap_or(joined)
        };
        let cwd = dir.map_or_else(|| self.cwd.clone(), resolved);
        Surroundings { cwd, added: env, moved, ..self }
    }
}

/// Finds out what to start.
///
/// # Errors
/// [`Refusal`]: the program can't be a worker, or it does not exist.
pub(crate) fn resolve(words: Vec<OsString>, around: Surroundings) -> Result<Resolved, Refusal> {
    let mut draft = Draft::new(words, around);
    let mut steps = 0;
    while managers::step(&mut draft)? || launchers::step(&mut draft)? {
        steps += 1;
        if steps > MAX_STEPS {
            let words = format!("{}: starts itself in an endless loop", draft.asked());
            return Err(Refusal::usage(words));
        }
    }
    finish(draft)
}

/// Turns the words into a program; a Node script gets Node in front of it.
fn finish(mut draft: Draft) -> Result<Resolved, Refusal> {
    let first = draft.words.first().cloned().unwrap_or_default();
    let is_script = node::is_javascript(&first) || node::is_typescript(&first);
    if is_script {
        draft.words.insert(0, "node".into());
    }
    let Some((name, args)) = draft.words.split_first() else {
        return Err(Refusal::usage("PROGRAM: \"\" is not a program".into()));
    };
    let (name, mut args) = (name.clone(), args.to_vec());
    let path = draft.variable("PATH");
    let found = find::program(&name, path.as_deref(), &draft.cwd).map_err(|refusal| {
        let words = match (&draft.missing_hint, is_script) {
            (Some(hint), _) if refusal.exit == Exit::ProgramMissing => {
                format!("{}: {hint}", refusal.words)
            }
            (_, true) => format!("{} (needed to run {})", refusal.words, shown(&first)),
            _ => refusal.words,
        };
        Refusal { words, ..refusal }
    })?;
    let is_node = node::is_node(&name);
    let options = draft.variable("NODE_OPTIONS").unwrap_or_default();
    if is_node {
        prepare_node(&mut args, &found.path, &draft, &options)?;
    } else {
        launchers::refuse_if_launcher(&name, &found, &draft)?;
    }
    let program = Program {
        path: found.path.into(),
        args,
        env: draft.added,
        argv0: Some(name),
        cwd: draft.moved.then_some(draft.cwd),
    };
    let inspect = Inspect::of(&program, is_node, &options);
    Ok(Resolved { program, notes: draft.notes, hooks: draft.hooks, inspect, has_channel: is_node })
}

/// Checks what Node is asked to run.
fn prepare_node(
    args: &mut Vec<OsString>,
    node: &Path,
    draft: &Draft,
    options: &OsStr,
) -> Result<(), Refusal> {
    let read = NodeArgs::read(args);
    launchers::refuse_in_node(args, &read, &draft.cwd)?;
    node::check_files(args, &read, &draft.cwd)?;
    let Some(at) = read.script else { return Ok(()) };
    let loads = read.has(&[
        "-r",
        "--require",
        "--import",
        "--loader",
        "--experimental-loader",
        "--experimental-strip-types",
        "--experimental-transform-types",
    ]);
    let options = options.to_string_lossy();
    let loads_anyway =
        ["--import", "--require", "-r ", "loader"].iter().any(|it| options.contains(it));
    if let Some(script) = args.get(at).filter(|it| node::is_typescript(it))
        && !loads
        && !loads_anyway
    {
        match node::types(node, script, &draft.cwd, &options)? {
            Types::Stripped => {}
            Types::Loaded(tsx) => drop(args.splice(at..at, ["--import".into(), tsx])),
        }
    }
    Ok(())
}

fn shown(word: &OsStr) -> String {
    Path::new(word).display().to_string()
}
