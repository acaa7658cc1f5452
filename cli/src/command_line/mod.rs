//! The command line, the same for every adapter's binary.

mod args;
mod complaint;
mod effective;
mod file;
mod options;
mod request;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use roundel_core::{Address, Codec};

use args::{Cli, CommandArgs, OptionArgs};
use request::Environment;
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::control::Where;
use roundel_runtime::observe::journal;
use roundel_runtime::unix::user::Identity;

pub(crate) use effective::Effective;
pub(crate) use options::Options;
pub(crate) use request::Request;
pub(crate) use values::Scale;

/// The commands that have the options of a primary.
const RUN: &str = "run";
const DEMO: &str = "demo";
const CHECK: &str = "check";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the primary of a program.
    Run(Request),
    /// Run the primary of the built-in worker.
    Demo(Request),
    /// Print what `Run` would do.
    Check(Request),
    /// Replay a recorded run: see [`crate::replay`].
    Replay {
        /// The recorded run.
        journal: PathBuf,
        /// Whether to print it as a sequence diagram.
        diagram: bool,
    },
    /// Watch a running primary: see [`crate::top`].
    Top {
        /// Its control socket; `None` for that of the only primary running.
        control: Option<PathBuf>,
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
    /// Replace its workers.
    Reload {
        /// As for `Status`.
        control: Option<PathBuf>,
        /// Whether only to ask what that would do.
        dry_run: bool,
    },
    /// Change the number of its workers.
    Scale {
        /// As for `Status`.
        control: Option<PathBuf>,
        /// The number.
        workers: Scale,
    },
    /// Have it accept and hand out nothing.
    Pause {
        /// As for `Status`.
        control: Option<PathBuf>,
    },
    /// End a pause.
    Resume {
        /// As for `Status`.
        control: Option<PathBuf>,
    },
    /// Stop it.
    Stop {
        /// As for `Status`.
        control: Option<PathBuf>,
    },
}

/// Reads the command line of the binary called `name`; `args` begins with the program's own name,
/// as [`std::env::args_os`] does. The values of options that start a primary are not looked at yet:
/// see [`Request::load`].
///
/// # Errors
/// If there is nothing more to do: either help or the version was printed to standard output
/// ([`Exit::Stopped`]), or one line that says what is wrong to standard error ([`Exit::Usage`]).
pub(crate) fn parse(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Command, Exit> {
    parse_with(name, args, Environment::own()).map_err(|early| {
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

fn parse_with(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
    environment: Environment,
) -> Result<Command, Early> {
    let words: Vec<OsString> = args.into_iter().collect();
    let early = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Early { exit: Exit::Stopped, text: error.to_string() }
        }
        _ => Early::usage(name, &complaint::complaint(&error)),
    };
    let command = command(name);
    let unchecked = [RUN, DEMO, CHECK]
        .into_iter()
        .fold(command, |command, verb| command.mut_subcommand(verb, |sub| sub.mut_args(any_value)));
    let matches = unchecked.try_get_matches_from(&words).map_err(early)?;
    if let Some((verb @ (RUN | DEMO | CHECK), of)) = matches.subcommand() {
        let request = Request::new(name, words, (verb, of), environment);
        return Ok(match verb {
            RUN => Command::Run(request),
            DEMO => Command::Demo(request),
            _ => Command::Check(request),
        });
    }
    let cli = Cli::from_arg_matches(&matches).map_err(early)?;
    Ok(match cli.command {
        CommandArgs::Replay { journal, diagram } => Command::Replay { journal, diagram },
        CommandArgs::Status { socket, json } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Status { control, json })
        }
        CommandArgs::Top { socket } => Command::Top { control: place(name, socket.control)? },
        CommandArgs::Logs { slot, socket } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Logs { control, slot })
        }
        CommandArgs::Reload { dry_run, socket } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Reload { control, dry_run })
        }
        CommandArgs::Scale { workers, socket } => {
            let control = place(name, socket.control)?;
            Command::Client(ClientCommand::Scale { control, workers })
        }
        CommandArgs::Pause { socket } => {
            Command::Client(ClientCommand::Pause { control: place(name, socket.control)? })
        }
        CommandArgs::Resume { socket } => {
            Command::Client(ClientCommand::Resume { control: place(name, socket.control)? })
        }
        CommandArgs::Stop { socket } => {
            Command::Client(ClientCommand::Stop { control: place(name, socket.control)? })
        }
        // These became requests above.
        CommandArgs::Run { .. } | CommandArgs::Demo { .. } | CommandArgs::Check { .. } => {
            return Err(Early::usage(name, "a command is missing (see --help)"));
        }
    })
}

/// Any value will do for now: it is parsed when everything that can give one is put together. Only
/// the configuration file is looked for before.
fn any_value(arg: clap::Arg) -> clap::Arg {
    match arg.get_action().takes_values() && arg.get_id() != args::CONFIG {
        true => arg.value_parser(clap::builder::ValueParser::os_string()),
        false => arg,
    }
}

/// The command line as clap sees it, under the name of this binary.
fn command(name: &'static str) -> clap::Command {
    Cli::command()
        .name(name)
        .mut_subcommand(RUN, |run| {
            run.override_usage(format!("{name} run [OPTIONS] PROGRAM [ARGS...]"))
        })
        .mut_subcommand(CHECK, |check| {
            check.override_usage(format!("{name} check [OPTIONS] [PROGRAM [ARGS...]]"))
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

/// The options of `demo`, which has a worker and an address of its own.
fn demo_options(args: OptionArgs) -> Result<Options, String> {
    let mut options = options(args)?;
    if options.pass_server.is_some() {
        return Err(
            "--pass-server: can't be used with the demo worker, which asks for its own listeners"
                .into(),
        );
    }
    if options.codec == Some(Codec::Node) {
        return Err(
            "--codec: \"node\" is not supported by the demo worker, which speaks native".into()
        );
    }
    if options.bind.is_empty() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        options.bind.push(Address::Ip(SocketAddr::new(ip, 8080)).into());
    }
    Ok(options)
}

fn options(args: OptionArgs) -> Result<Options, String> {
    let workers = args.workers.map_or_else(|| values::workers("auto"), Ok)?;
    let policy = args.policy.unwrap_or_default();
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
    if args.max_requests_jitter > 0 && args.max_requests.is_none() {
        return Err("--max-requests-jitter: needs --max-requests, to which it is added".into());
    }
    if args.node_assist && args.pass_server.is_some() {
        return Err(
            "--node-assist: can't be combined with --pass-server: it is for programs that use \
             cluster"
                .into(),
        );
    }
    if args.node_assist && args.codec.0 == Some(Codec::Native) {
        return Err(
            "--node-assist: can't be combined with --codec native: it is for Node programs".into(),
        );
    }
    Ok(Options {
        config: args.config(workers, policy),
        bind: args.bind,
        pass_server: args.pass_server,
        identity: Identity::find(args.user.as_deref(), args.group.as_deref())?,
        control: match args.control {
            None => Where::Default,
            Some(path) if path.as_os_str() == "off" => Where::Off,
            Some(path) => Where::Path(path),
        },
        events: args.events.map(values::events),
        journal: args.journal.map(|path| journal::Target { path, limit: args.journal_limit }),
        metrics: args.metrics,
        log_format: args.log_format,
        log_file: args.log_file,
        codec: args.codec.0,
        instance_var: args.instance_var,
        node_assist: args.node_assist,
        env: Vec::new(),
        cwd: None,
    })
}
