//! What the command line asks for, from which the configuration can be read again and again.
//!
//! A value that is not on the command line may come from the environment or from the configuration
//! file. It is then put on the command line, which clap parses as a whole: so each option is
//! declared once, has one parser, and means the same wherever it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

use super::args::{CONFIG, Cli, CommandArgs, ProgramArgs};
use super::complaint::complaint;
use super::effective::{Effective, Setting, Settings, Source, Value};
use super::file::{self, ARGS, At, CWD, ConfigFile, PROGRAM, is_list, is_switch, keys};
use super::{command, demo_options, options, values};

/// The environment variable with the number of workers.
const WORKERS_VARIABLE: &str = "WEB_CONCURRENCY";
/// The environment variable that gives Node's own primary its policy: `rr` or `none`.
const POLICY_VARIABLE: &str = "NODE_CLUSTER_SCHED_POLICY";

/// Settings from the environment, used if no option gives them. An empty value counts as unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) workers: Option<OsString>,
    pub(super) policy: Option<OsString>,
}

impl Environment {
    /// The environment of this process.
    pub(super) fn own() -> Environment {
        Environment {
            workers: std::env::var_os(WORKERS_VARIABLE),
            policy: std::env::var_os(POLICY_VARIABLE),
        }
    }

    /// Each variable that is set, with its option, and the option's value or the cause why it has
    /// none.
    fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, Result<String, String>)> {
        let policy = |text: &str| match text {
            "none" => Ok("shared".to_owned()),
            "rr" => Ok("round-robin".to_owned()),
            _ => Err("is neither rr nor none".to_owned()),
        };
        let workers = |text: &str| super::values::workers(text).map(|_| text.to_owned());
        type Parser<'a> = &'a dyn Fn(&str) -> Result<String, String>;
        let all: [(&str, &str, &Option<OsString>, Parser); 2] = [
            (WORKERS_VARIABLE, "workers", &self.workers, &workers),
            (POLICY_VARIABLE, "policy", &self.policy, &policy),
        ];
        all.map(|(variable, key, value, parse)| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            let text = value.to_str().ok_or_else(|| "is not valid UTF-8".to_owned());
            let parsed = text.and_then(parse);
            Some((variable, key, parsed.map_err(|cause| format!("{variable}: {value:?} {cause}"))))
        })
        .into_iter()
        .flatten()
    }
}

/// A command line with `run`, `demo` or `check`, not yet evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    name: &'static str,
    verb: String,
    /// The whole command line; the verb is the second word.
    words: Vec<OsString>,
    /// The options that are on the command line.
    given: BTreeSet<String>,
    config: Option<PathBuf>,
    environment: Environment,
}

/// A value for an option that is not on the command line.
struct Layer {
    source: Source,
    values: Vec<OsString>,
}

impl Request {
    /// `matches` is what clap found behind the verb, where only `--config` needs to be valid.
    pub(super) fn new(
        name: &'static str,
        words: Vec<OsString>,
        (verb, matches): (&str, &ArgMatches),
        environment: Environment,
    ) -> Request {
        let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let command = command(name);
        let sub = command.find_subcommand(verb).into_iter();
        let given = sub
            .flat_map(keys)
            .filter(|(_, arg)| is_given(arg.get_id().as_str()))
            .map(|(key, _)| key.to_owned())
            .collect();
        let config = matches.get_one::<PathBuf>(CONFIG).cloned();
        Request { name, verb: verb.to_owned(), words, given, config, environment }
    }

    /// Evaluates the command line, the environment and the configuration file, which is read anew:
    /// a primary that is told to reload does this again.
    ///
    /// # Errors
    /// What is wrong: one line each, without the name of the binary. The exit code is
    /// [`Exit::Usage`](roundel_runtime::exit::Exit::Usage).
    pub(crate) fn load(&self) -> Result<Effective, Vec<String>> {
        let command = command(self.name);
        let sub = command.find_subcommand(&self.verb).unwrap_or(&command);
        let (file, file_name) = match &self.config {
            Some(path) => (file::read(path, sub)?, file::shown(path)),
            None => Default::default(),
        };
        let file_name: Rc<str> = file_name.into();
        let layers = self.layers(&file, &file_name).map_err(|line| vec![line])?;
        let arguments: BTreeMap<&str, &Arg> = keys(sub).collect();
        let extra = layers.iter().flat_map(|(key, layer)| {
            let is_switch = arguments.get(key.as_str()).is_some_and(|arg| is_switch(arg));
            layer.values.iter().filter_map(move |value| match is_switch {
                true => (value == "true").then(|| format!("--{key}").into()),
                false => {
                    let mut word = OsString::from(format!("--{key}="));
                    word.push(value);
                    Some(word)
                }
            })
        });
        let (before, after) = self.words.split_at(self.words.len().min(2));
        let words = before.iter().cloned().chain(extra).chain(after.iter().cloned());
        let matches = command.clone().try_get_matches_from(words);
        let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
        let (cli, matches) = parsed.map_err(|error| vec![complaint(&error)])?;
        let source = |key: &str| match layers.get(key) {
            Some(layer) => layer.source.clone(),
            None if self.given.contains(key) => Source::Flag,
            None => Source::Default,
        };
        let settings = matches.subcommand().map(|(_, matches)| {
            keys(sub).map(|(key, arg)| setting(key, arg, matches, source(key))).collect()
        });
        self.effective(cli.command, settings.unwrap_or_default(), file, &file_name)
            .map_err(|line| vec![line])
    }

    /// The values that are not on the command line: those of the environment, else the file's.
    fn layers(
        &self,
        file: &ConfigFile,
        file_name: &Rc<str>,
    ) -> Result<BTreeMap<String, Layer>, String> {
        let mut layers = BTreeMap::new();
        for (key, At { line, value }) in &file.options {
            let source = Source::File(Rc::clone(file_name), *line);
            layers.insert(key.clone(), Layer { source, values: value.clone() });
        }
        layers.retain(|key, _| !self.given.contains(key));
        for (variable, key, value) in self.environment.values() {
            if !self.given.contains(key) {
                let source = Source::Environment(variable);
                layers.insert(key.to_owned(), Layer { source, values: vec![value?.into()] });
            }
        }
        Ok(layers)
    }

    fn effective(
        &self,
        parsed: CommandArgs,
        mut keys: Vec<Setting>,
        file: ConfigFile,
        file_name: &Rc<str>,
    ) -> Result<Effective, String> {
        let at = |line| Source::File(Rc::clone(file_name), line);
        let (options, program, needs_program) = match parsed {
            CommandArgs::Run { options: args, program } => (options(*args), program, true),
            CommandArgs::Check { options: args, program } => (options(*args), program, false),
            CommandArgs::Demo { options: args } => {
                if let Some(At { line, .. }) = file.program {
                    let cause = "the demo has a worker of its own";
                    return Err(format!("{file_name}:{line}: {PROGRAM}: {cause}"));
                }
                (demo_options(*args), None, false)
            }
            // A request is made for these three only.
            _ => return Err(format!("{:?} is not a command (see --help)", self.verb)),
        };
        let mut options = options?;
        let mut front = Vec::new();
        let mut add = |key: &str, value, source| {
            front.push(Setting { key: key.to_owned(), value, source });
        };
        let program = match (program, file.program) {
            (Some(ProgramArgs::Argv(words)), _) => {
                if let Some((first, rest)) = words.split_first() {
                    add(PROGRAM, Value::One(first.clone()), Source::Argument);
                    add(ARGS, Value::List(rest.to_vec()), Source::Argument);
                }
                words
            }
            (None, Some(At { line, value })) => {
                let mut words = vec![OsString::from(&value)];
                add(PROGRAM, Value::One(value.into()), at(line));
                if let Some(At { line, value }) = file.args {
                    words.extend(value.iter().cloned());
                    add(ARGS, Value::List(value), at(line));
                }
                words
            }
            (None, None) if needs_program => {
                return Err("run: PROGRAM is missing (see run --help)".into());
            }
            (None, None) => Vec::new(),
        };
        if program.first().is_some_and(|first| first.is_empty()) {
            return Err("PROGRAM: \"\" is not a program".into());
        }
        if let Some(At { line, value }) = file.cwd {
            add(CWD, Value::One(value.clone().into()), at(line));
            options.cwd = Some(value);
        }
        front.append(&mut keys);
        let mut settings = Settings { keys: front, env: Vec::new() };
        for At { line, value: (name, value) } in file.env {
            let key = name.to_string_lossy().into_owned();
            settings.env.push(Setting { key, value: Value::One(value.clone()), source: at(line) });
            options.env.push((name, value));
        }
        Ok(Effective { options, program, settings })
    }
}

/// The value of an option after everything was put together.
fn setting(key: &str, arg: &Arg, matches: &ArgMatches, source: Source) -> Setting {
    let id = arg.get_id().as_str();
    let raw = || matches.get_raw(id).into_iter().flatten().map(Into::into);
    let value = match () {
        () if is_switch(arg) => Value::Switch(matches.get_flag(id)),
        () if matches.value_source(id).is_none() && key == "workers" => {
            Value::Unset(format!("auto, {} here", values::available_parallelism()))
        }
        () if matches.value_source(id).is_none() => Value::Unset(default_of(arg)),
        () if is_list(arg) => Value::List(raw().collect()),
        () => Value::One(raw().next().unwrap_or_default()),
    };
    Setting { key: key.to_owned(), value, source }
}

/// What an option is without a value: each help text that has no default value says it.
fn default_of(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = help.split_once("[default: ").map(|(_, rest)| rest.trim_end_matches(']'));
    default.unwrap_or("none").split_whitespace().collect::<Vec<_>>().join(" ")
}
