//! The shape of the command line, and its help texts.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Parser, Subcommand};
use roundel_core::{Address, Config, ConfigBuilder, Overflow, Policy, Respawn, StopSignal, limits};

use super::values::{self, ForcedCodec, Intensity, Span, from_to};

/// A cluster primary: shares listening sockets among worker processes, hands every connection to
/// one of them, and loses none when a worker dies.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    arg_required_else_help = false,
    max_term_width = 100,
    after_help = "Exit codes: 0 stopped or done, 1 failure, 2 usage, 3 crash loop, 4 cannot bind, \
                  126 program not executable, 127 missing."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: CommandArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    /// Run a program as a cluster of workers
    ///
    /// Everything after PROGRAM is given to it untouched. A .js, .mjs or .cjs file is run with
    /// node, a .ts, .mts or .cts file with a node that strips types (22.18 and later) or with tsx
    /// where that is installed.
    ///
    /// npm start, npm run NAME, npx NAME and the same of pnpm and yarn are looked up in
    /// package.json and run directly, since no channel reaches what they start. Standard input is
    /// /dev/null.
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    Run {
        #[command(flatten)]
        options: Box<OptionArgs>,
        #[command(subcommand)]
        program: Option<ProgramArgs>,
    },
    /// Run a built-in HTTP worker, on 127.0.0.1:8080 unless told otherwise
    Demo {
        #[command(flatten)]
        options: Box<OptionArgs>,
    },
    /// Print the configuration that run would have, or what is wrong with it
    ///
    /// Each line says where its value comes from. The output can be used as a configuration file.
    /// Nothing is started and nothing is bound, but PROGRAM is looked up.
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    Check {
        #[command(flatten)]
        options: Box<OptionArgs>,
        #[command(subcommand)]
        program: Option<ProgramArgs>,
    },
    /// Show a running primary and its workers
    Status {
        #[command(flatten)]
        socket: SocketArgs,
        /// Print one JSON object instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Replay a recorded run, and tell whether it comes out the same
    ///
    /// A journal that was cut off is replayed up to the cut.
    Replay {
        /// The file that --journal made
        journal: PathBuf,
        /// Print the run as a sequence diagram in Mermaid's language
        #[arg(long)]
        diagram: bool,
    },
    /// Stop a running primary: drain its workers, and return once it has ended
    Stop {
        #[command(flatten)]
        socket: SocketArgs,
    },
}

/// As an external subcommand, since only that leaves all that follows the program alone.
#[derive(Debug, Subcommand)]
pub(super) enum ProgramArgs {
    #[command(external_subcommand)]
    Argv(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// The primary's control socket [default: that of the only primary running]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
}

/// The core's defaults, for options that have one there.
fn defaults() -> Config {
    Config::default()
}

/// The option that names the configuration file: the only one that can't be in it.
pub(super) const CONFIG: &str = "config";

#[derive(Debug, Args)]
pub(super) struct OptionArgs {
    /// Read options from a TOML file: see docs/configuration.md. Options on the command line and
    /// environment variables replace those of the file [default: none]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    #[arg(short, long, help = format!("Workers to keep, {}; auto is the available parallelism \
        [env: WEB_CONCURRENCY] [default: auto]", from_to(limits::workers())), value_name = "N|auto", value_parser = Value(values::workers), allow_hyphen_values = true)]
    pub(super) workers: Option<u32>,

    /// Listen on an address: host:port, *:port, [::]:port (IPv4 too), unix:PATH or fd:N;
    /// repeatable [default: none; demo 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDR", value_parser = Value(roundel_runtime::address::parse), allow_hyphen_values = true)]
    pub(super) bind: Vec<Address>,

    /// Give every worker the listening socket of this address as the message 'server', for Node
    /// programs that use child_process without cluster; they accept by themselves [default: none]
    #[arg(long, value_name = "ADDR", value_parser = Value(roundel_runtime::address::parse), allow_hyphen_values = true)]
    pub(super) pass_server: Option<Address>,

    /// How connections are distributed: round-robin or shared (workers accept by themselves)
    /// [default: round-robin; shared if NODE_CLUSTER_SCHED_POLICY is none]
    #[arg(long, value_name = "POLICY", value_parser = Value(values::policy), allow_hyphen_values = true)]
    pub(super) policy: Option<Policy>,

    #[arg(long, help = format!("Connections in flight a worker, {} [default: {} native, {} Node]",
        from_to(limits::window()), defaults().window(), defaults().node_window()), value_name = "N", value_parser = Value(values::window), allow_hyphen_values = true)]
    pub(super) window: Option<u32>,

    #[arg(long, help = format!("Connections pending a listener, {}, before --overflow applies",
        from_to(limits::max_pending())), value_name = "N", default_value_t = defaults().max_pending(), value_parser = Value(values::max_pending), allow_hyphen_values = true)]
    pub(super) max_pending: u32,

    /// At --max-pending: wait (stop accepting) or refuse (accept and close)
    #[arg(long, value_name = "wait|refuse", default_value_t = defaults().overflow(), value_parser = Value(values::overflow), allow_hyphen_values = true)]
    pub(super) overflow: Overflow,

    /// How long a worker may leave connections unanswered before it is killed: 500ms, 10s, 2m, 1h;
    /// 0 is never
    #[arg(long, value_name = "DURATION", default_value_t = defaults().ack_timeout().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) ack_timeout: Span,

    /// How long a worker may take to listen on what it asked for: 500ms, 10s, 2m, 1h; 0 is never.
    /// One that asks for nothing is only reported
    #[arg(long, value_name = "DURATION", default_value_t = defaults().ready_timeout().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) ready_timeout: Span,

    /// How long workers may take to finish when they leave, before they are killed: 500ms, 10s,
    /// 2m, 1h
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().drain_timeout()), value_parser = Value(values::nonzero_duration), allow_hyphen_values = true)]
    pub(super) drain_timeout: Span,

    /// How long after its last connection was handed to it a leaving worker is told to leave, at
    /// most a quarter of --drain-timeout: 500ms, 10s; 0 is at once
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().drain_settle()), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) drain_settle: Span,

    /// How long a leaving worker that had connections may live on without any before it gets
    /// SIGTERM: 500ms, 10s; 0 is until its deadline is near
    #[arg(long, value_name = "DURATION", default_value_t = defaults().linger().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) linger: Span,

    /// What a Node worker that is to leave gets instead of 'disconnect': TERM, INT, HUP, USR2, or
    /// message (PM2's 'shutdown'); its program then closes its servers itself [default: none]
    #[arg(long, value_name = "SIGNAL", value_parser = Value(values::stop_signal), allow_hyphen_values = true)]
    pub(super) stop_signal: Option<StopSignal>,

    /// Early failures that a worker slot may have within a number of seconds before it is given up
    #[arg(long, value_name = "N/SECONDS", default_value_t = Intensity(defaults().restart_intensity(), defaults().restart_period()), value_parser = Value(values::intensity), allow_hyphen_values = true)]
    pub(super) restart_intensity: Intensity,

    /// Which exits are followed by a new worker: always, on-failure or never
    #[arg(long, value_name = "WHEN", default_value_t = defaults().respawn(), value_parser = Value(values::respawn), allow_hyphen_values = true)]
    pub(super) respawn: Respawn,

    /// Take a worker for ready only once its program has said so: process.send('ready') in Node
    /// [default: once it listens]
    #[arg(long)]
    pub(super) wait_ready: bool,

    /// The control socket to make, or off [default: roundel-PID.sock in $XDG_RUNTIME_DIR, else in
    /// roundel-UID in the temporary directory]
    #[arg(long, value_name = "PATH|off")]
    pub(super) control: Option<PathBuf>,

    /// Write events, one JSON object a line, to a file or to standard output (-) [default: off]
    #[arg(long, value_name = "PATH|-")]
    pub(super) events: Option<PathBuf>,

    /// Record the run, for the command replay, in a file that is replaced [default: off]
    #[arg(long, value_name = "PATH")]
    pub(super) journal: Option<PathBuf>,

    /// Where the journal ends by itself, in KiB, MiB or GiB; the run goes on unrecorded
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = Value(values::size), allow_hyphen_values = true)]
    pub(super) journal_limit: u64,

    /// What workers speak: auto (each says it itself), native or node
    #[arg(long, value_name = "CODEC", default_value = "auto", value_parser = Value(values::codec), allow_hyphen_values = true)]
    pub(super) codec: ForcedCodec,

    /// Tell programs the number of their slot, from 0, in this variable: NODE_APP_INSTANCE is
    /// PM2's name for it [default: off]
    #[arg(long, value_name = "NAME", value_parser = Value(values::variable), allow_hyphen_values = true)]
    pub(super) instance_var: Option<String>,
}

impl OptionArgs {
    /// The part of the primary's configuration that these options choose. Listeners are added
    /// later; workers and the policy may come from elsewhere if no option gives them.
    pub(super) fn config(&self, workers: u32, policy: Policy) -> ConfigBuilder {
        let Intensity(restart_intensity, restart_period) = self.restart_intensity;
        let config = Config::builder()
            .workers(workers)
            .policy(policy)
            .pass_listeners(self.pass_server.is_some())
            .wait_ready(self.wait_ready)
            .max_pending(self.max_pending)
            .overflow(self.overflow)
            .ack_timeout(self.ack_timeout.or_never())
            .ready_timeout(self.ready_timeout.or_never())
            .drain_timeout(self.drain_timeout.0)
            .drain_settle(self.drain_settle.0)
            .linger(self.linger.or_never())
            .stop_signal(self.stop_signal)
            .restart_intensity(restart_intensity)
            .restart_period(restart_period)
            .respawn(self.respawn);
        match self.window {
            Some(window) => config.window(window).node_window(window),
            None => config,
        }
    }
}

/// A parser of [`values`]; its cause is kept for the one-line error.
#[derive(Clone, Copy)]
struct Value<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Value<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let parsed = match value.to_str() {
            Some(text) => (self.0)(text),
            None => Err("is not valid UTF-8".into()),
        };
        parsed.map_err(|cause| {
            let mut error = clap::Error::new(ErrorKind::ValueValidation).with_cmd(command);
            let option = arg.map(Arg::to_string).unwrap_or_default();
            error.insert(ContextKind::InvalidArg, ContextValue::String(option));
            error.insert(ContextKind::InvalidValue, ContextValue::String(format!("{value:?}")));
            error.insert(ContextKind::Custom, ContextValue::String(cause));
            error
        })
    }
}
