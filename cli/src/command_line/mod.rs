//! The command line, the same for every adapter's binary.

mod args;
mod complaint;
mod options;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use roundel_core::{Address, Codec, Policy};

use args::{Cli, CommandArgs, OptionArgs, ProgramArgs};
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::control::Where;
use roundel_runtime::observe::journal;

pub(crate) use options::Options;

/// The environment variable with the number of workers, used if no option gives it.
const WORKERS_VARIABLE: &str = "WEB_CONCURRENCY";
/// The environment variable that gives Node's own primary its policy: `rr` or `none`.
const POLICY_VARIABLE: &str = "NODE_CLUSTER_SCHED_POLICY";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the primary of a program.
    Run {
        /// The options.
        options: Options,
        /// The program and its arguments; never empty.
        program: Vec<OsString>,
    },
    /// Run the primary of the built-in worker.
    Demo {
        /// The options.
        options: Options,
    },
    /// Replay a recorded run: see [`crate::replay`].
    Replay {
        /// The recorded run.
        journal: PathBuf,
        /// Whether to print it as a sequence diagram.
        diagram: bool,
    },
    /// Send a request to a running primary: see [`client`](crate::client).
    Client(ClientCommand),
}

/// A command to a running primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientCommand {
    /// Show its state.
    Status {
        /// Its control socket; `None` for that of the only primary running.
        control: Option<PathBuf>,
        /// Whether to print JSON.
        json: bool,
    },
    /// Follow what its workers print.
    Logs {
        /// As for `Status`.
        control: Option<PathBuf>,
        /// The slot to follow; `None` for all.
        slot: Option<u32>,
    },
    /// Stop it.
    Stop {
        /// As for `Status`.
        control: Option<PathBuf>,
    },
}

/// Reads the command line of the binary called `name`; `args` begins with the program's own name,
/// as [`std::env::args_os`] does. `WEB_CONCURRENCY` replaces a missing `--workers`; an empty value
/// counts as unset.
///
/// # Errors
/// If there is nothing more to do: either help or the version was printed to standard output
/// ([`Exit::Stopped`]), or one line that says what is wrong to standard error ([`Exit::Usage`]).
pub(crate) fn parse(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Command, Exit> {
    let environment = Environment {
        workers: std::env::var_os(WORKERS_VARIABLE),
        policy: std::env::var_os(POLICY_VARIABLE),
    };
    parse_with(name, args, environment).map_err(|early| {
        // If this can't be written, there is no way to report it.
        let _ = match early.exit {
            Exit::Stopped => std::io::stdout().write_all(early.text.as_bytes()),
            _ => std::io::stderr().write_all(early.text.as_bytes()),
        };
        early.exit
    })
}

/// An exit before anything was started.
#[derive(Debug, PartialEq, Eq)]
struct Early {
    exit: Exit,
    text: String,
}

impl Early {
    fn usage(name: &str, complaint: &str) -> Self {
        Early { exit: Exit::Usage, text: format!("{name}: {complaint}\n") }
    }
}

/// Settings from the environment, used if no option gives them. An empty value counts as unset.
#[derive(Debug, Default)]
struct Environment {
    workers: Option<OsString>,
    policy: Option<OsString>,
}

fn parse_with(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
    environment: Environment,
) -> Result<Command, Early> {
    let matches = command(name).try_get_matches_from(args);
    let cli = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let cli = cli.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Early { exit: Exit::Stopped, text: error.to_string() }
        }
        _ => Early::usage(name, &complaint::complaint(&error)),
    })?;
    let options = |args| options(args, environment).map_err(|line| Early::usage(name, &line));
    Ok(match cli.command {
        CommandArgs::Run { options: args, program: ProgramArgs::Argv(program) } => {
            if program.first().is_none_or(|first| first.is_empty()) {
                return Err(Early::usage(name, "PROGRAM: \"\" is not a program"));
            }
            Command::Run { options: options(*args)?, program }
        }
        CommandArgs::Demo { options: args } => {
            let mut options = options(*args)?;
            if options.pass_server.is_some() {
                let complaint = "--pass-server: can't be used with the demo worker, which asks for \
                                 its own listeners";
                return Err(Early::usage(name, complaint));
            }
            if options.codec == Some(Codec::Node) {
                let complaint =
                    "--codec: \"node\" is not supported by the demo worker, which speaks native";
                return Err(Early::usage(name, complaint));
            }
            if options.bind.is_empty() {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                options.bind.push(Address::Ip(SocketAddr::new(ip, 8080)));
            }
            Command::Demo { options }
        }
        CommandArgs::Replay { journal, diagram } => Command::Replay { journal, diagram },
        CommandArgs::Status { socket, json } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Status { control, json })
        }
        CommandArgs::Logs { slot, socket } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Logs { control, slot })
        }
        CommandArgs::Stop { socket } => {
            Command::Client(ClientCommand::Stop { control: place(name, socket.control)? })
        }
    })
}

/// The command line as clap sees it, under the name of this binary.
fn command(name: &'static str) -> clap::Command {
    Cli::command().name(name).mut_subcommand("run", |run| {
        run.override_usage(format!("{name} run [OPTIONS] PROGRAM [ARGS...]"))
    })
}

/// The control socket that a command must use.
fn place(name: &str, control: Option<PathBuf>) -> Result<Option<PathBuf>, Early> {
    if control.as_ref().is_some_and(|path| path.as_os_str() == "off") {
        let complaint = "--control: \"off\" is not a socket: a primary with --control off can't be \
                         reached (./off is a file)";
        return Err(Early::usage(name, complaint));
    }
    Ok(control)
}

fn options(args: OptionArgs, environment: Environment) -> Result<Options, String> {
    let workers = match (args.workers, environment.workers) {
        (Some(workers), _) => workers,
        (None, Some(value)) if !value.is_empty() => {
            let text = value.to_str().ok_or_else(|| "is not valid UTF-8".to_owned());
            text.and_then(values::workers)
                .map_err(|cause| format!("{WORKERS_VARIABLE}: {value:?} {cause}"))?
        }
        (None, _) => values::workers("auto")?,
    };
    let policy = match (args.policy, environment.policy) {
        (Some(policy), _) => policy,
        (None, Some(value)) if value == "none" => Policy::Shared,
        (None, Some(value)) if !value.is_empty() && value != "rr" => {
            return Err(format!("{POLICY_VARIABLE}: {value:?} is neither rr nor none"));
        }
        (None, _) => Policy::default(),
    };
    if args.pass_server.is_some() {
        if !args.bind.is_empty() {
            return Err(
                "--pass-server: can't be combined with --bind: it must be the only listener".into(),
            );
        }
        if args.codec.0 == Some(Codec::Native) {
            return Err(
                "--pass-server: can't be combined with --codec native: it is for Node programs"
                    .into(),
            );
        }
    }
    Ok(Options {
        config: args.config(workers, policy),
        bind: args.bind,
        pass_server: args.pass_server,
        control: match args.control {
            None => Where::Default,
            Some(path) if path.as_os_str() == "off" => Where::Off,
            Some(path) => Where::Path(path),
        },
        events: args.events.map(values::events),
        journal: args.journal.map(|path| journal::Target { path, limit: args.journal_limit }),
        log_format: args.log_format,
        log_file: args.log_file,
        codec: args.codec.0,
        instance_var: args.instance_var,
    })
}
