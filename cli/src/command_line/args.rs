//! The shape of the command line, and its help texts.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Parser, Subcommand};
use roundel_core::{Address, Config, ConfigBuilder, Overflow, Policy, Respawn, StopSignal, limits};
use roundel_runtime::observe::output::Format;
use roundel_runtime::primary::bind::Bind;

use super::values::{self, Batch, ForcedCodec, Intensity, Scale, Span, from_to};

/// A cluster primary: shares listening sockets among worker processes, hands every connection to
/// one of them, and loses none when a worker dies.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    arg_required_else_help = false,
    max_term_width = 100,
    after_help = "Exit codes: 0 stopped or done, 1 failure, 2 usage, 3 crash loop, 4 cannot bind, \
                  126 program not executable, 127 program missing."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: CommandArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    /// Run a program as a cluster of workers
    ///
    /// Everything after PROGRAM is passed to it unchanged. A .js, .mjs or .cjs file is run with
    /// node; a .ts, .mts or .cts file with a node that strips types (22.18 and later), or with tsx
    /// if that is installed.
    ///
    /// npm start, npm run NAME, npx NAME and the same commands of pnpm and yarn are looked up in
    /// package.json and the program is run directly, because a package manager does not pass the
    /// channel on. Standard input is /dev/null.
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    Run {
        #[command(flatten)]
        options: Box<OptionArgs>,
        #[command(subcommand)]
        program: Option<ProgramArgs>,
    },
    /// Run a built-in HTTP worker, by default on 127.0.0.1:8080
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
    /// Watch a running primary and its workers on the whole terminal
    ///
    /// Asks once a second. Keys reload, scale and pause; ? lists them. Colours are left out if the
    /// variable NO_COLOR is set.
    Top {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Replay a recorded run and check that it gives the same outputs
    ///
    /// A journal that was cut off is replayed up to the cut.
    Replay {
        /// The file that --journal wrote
        journal: PathBuf,
        /// Print the run as a Mermaid sequence diagram
        #[arg(long)]
        diagram: bool,
    },
    /// Follow what the workers of a running primary print
    ///
    /// Shows the lines that come from now on, until the primary ends. The primary has to read them:
    /// it needs --log-format prefix or json, or --log-file.
    Logs {
        /// Only the workers of this slot, from 0 [default: all]
        #[arg(value_parser = Value(values::slot), allow_hyphen_values = true)]
        slot: Option<u32>,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Replace all workers of a running primary by new ones, without losing a request
    ///
    /// The configuration file is read and the program looked up again. New workers take over when
    /// they are as ready as the old ones; if one fails, the old ones go on and this command exits
    /// with 1.
    Reload {
        /// Only print what a reload would do, or why it would be refused
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Change the number of workers of a running primary: N, +N or -N
    Scale {
        /// The number to keep, or with a sign how many more or fewer
        #[arg(value_name = "N|+N|-N", value_parser = Value(values::scale), allow_hyphen_values = true)]
        workers: Scale,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Have a running primary accept and hand out nothing until resume
    ///
    /// Clients wait meanwhile; what workers have, they go on serving.
    Pause {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// End a pause
    Resume {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Stop a running primary: drain its workers and wait until it has ended
    Stop {
        #[command(flatten)]
        socket: SocketArgs,
    },
}

/// An external subcommand, because only that leaves everything after the program unparsed.
#[derive(Debug, Subcommand)]
pub(super) enum ProgramArgs {
    #[command(external_subcommand)]
    Argv(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// Control socket of the primary [default: that of the only running primary]
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

    #[arg(short, long, help = format!("Number of workers, {}; auto uses the available parallelism \
        [env: WEB_CONCURRENCY] [default: auto]", from_to(limits::workers())), value_name = "N|auto", value_parser = Value(values::workers), allow_hyphen_values = true)]
    pub(super) workers: Option<u32>,

    /// Address to listen on: host:port, *:port, [::]:port (IPv4 too), unix:PATH, fd:N or sd:NAME
    /// (passed by systemd); behind a PATH ,mode=0660,owner=USER,group=GROUP; repeatable
    /// [default: none; demo 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDR", value_parser = Value(Bind::parse), allow_hyphen_values = true)]
    pub(super) bind: Vec<Bind>,

    /// Address whose listening socket every worker gets as the message 'server', for Node programs
    /// that use child_process without cluster; workers accept by themselves [default: none]
    #[arg(long, value_name = "ADDR", value_parser = Value(roundel_runtime::address::parse), allow_hyphen_values = true)]
    pub(super) pass_server: Option<Address>,

    /// How connections are distributed: round-robin, or shared (workers accept by themselves)
    /// [default: round-robin; shared if NODE_CLUSTER_SCHED_POLICY is none]
    #[arg(long, value_name = "POLICY", value_parser = Value(values::policy), allow_hyphen_values = true)]
    pub(super) policy: Option<Policy>,

    #[arg(long, help = format!("Connections in flight per worker, {} [default: {} native, {} Node]",
        from_to(limits::window()), defaults().window(), defaults().node_window()), value_name = "N", value_parser = Value(values::window), allow_hyphen_values = true)]
    pub(super) window: Option<u32>,

    #[arg(long, help = format!("Pending connections per listener, {}, before --overflow applies",
        from_to(limits::max_pending())), value_name = "N", default_value_t = defaults().max_pending(), value_parser = Value(values::max_pending), allow_hyphen_values = true)]
    pub(super) max_pending: u32,

    /// What to do at --max-pending: wait (stop accepting) or refuse (accept and close)
    #[arg(long, value_name = "wait|refuse", default_value_t = defaults().overflow(), value_parser = Value(values::overflow), allow_hyphen_values = true)]
    pub(super) overflow: Overflow,

    /// How long a worker may leave connections unanswered before it is killed: 500ms, 10s, 2m, 1h;
    /// 0 means forever
    #[arg(long, value_name = "DURATION", default_value_t = defaults().ack_timeout().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) ack_timeout: Span,

    /// How long a worker may take to listen on what it asked for: 500ms, 10s, 2m, 1h; 0 means
    /// forever. A worker that asks for nothing is only reported
    #[arg(long, value_name = "DURATION", default_value_t = defaults().ready_timeout().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) ready_timeout: Span,

    /// How long leaving workers may take to finish before they are killed: 500ms, 10s, 2m, 1h
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().drain_timeout()), value_parser = Value(values::nonzero_duration), allow_hyphen_values = true)]
    pub(super) drain_timeout: Span,

    /// How long to wait after a worker's last connection before telling it to leave, at most a
    /// quarter of --drain-timeout: 500ms, 10s; 0 means at once
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().drain_settle()), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) drain_settle: Span,

    /// How long a leaving worker that had connections may stay without any before it gets SIGTERM:
    /// 500ms, 10s; 0 means until its deadline is near
    #[arg(long, value_name = "DURATION", default_value_t = defaults().linger().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) linger: Span,

    /// What a leaving Node worker gets instead of 'disconnect': TERM, INT, HUP, USR2, or message
    /// (PM2's 'shutdown'); its program then closes its servers itself [default: none]
    #[arg(long, value_name = "SIGNAL", value_parser = Value(values::stop_signal), allow_hyphen_values = true)]
    pub(super) stop_signal: Option<StopSignal>,

    /// How many early failures within how many seconds a worker slot may have before it is given up
    #[arg(long, value_name = "N/SECONDS", default_value_t = Intensity(defaults().restart_intensity(), defaults().restart_period()), value_parser = Value(values::intensity), allow_hyphen_values = true)]
    pub(super) restart_intensity: Intensity,

    /// When a worker that exited is replaced: always, on-failure or never
    #[arg(long, value_name = "WHEN", default_value_t = defaults().respawn(), value_parser = Value(values::respawn), allow_hyphen_values = true)]
    pub(super) respawn: Respawn,

    /// Treat a worker as ready only when its program says so: process.send('ready') in Node,
    /// Worker::ready() in Rust [default: when it listens]
    #[arg(long)]
    pub(super) wait_ready: bool,

    /// How many slots one step of a reload replaces together, or all
    #[arg(long, value_name = "N|all", default_value_t = Batch(defaults().reload_batch()), value_parser = Value(values::batch), allow_hyphen_values = true)]
    pub(super) reload_batch: Batch,

    /// How many workers a reload leaves ready, and how many /readyz asks for. With fewer than there
    /// are, a reload ends old workers before their successors start: for programs that can't run
    /// twice [default: all in a reload, 1 for /readyz]
    #[arg(long, value_name = "N", value_parser = Value(values::count), allow_hyphen_values = true)]
    pub(super) min_ready: Option<u32>,

    /// How long a new worker must stay ready before its predecessor leaves: 500ms, 10s, 2m
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().ready_hold()), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) ready_hold: Span,

    #[arg(long, help = format!("Generations that may have live workers, {}; one reload more ends \
        the workers of the oldest", from_to(limits::max_generations())), value_name = "N", default_value_t = defaults().max_generations(), value_parser = Value(values::max_generations), allow_hyphen_values = true)]
    pub(super) max_generations: u32,

    /// How long a stopping primary serves on before it drains, so that load balancers notice:
    /// 500ms, 10s, 2m
    #[arg(long, value_name = "DURATION", default_value_t = Span(defaults().shutdown_delay()), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) shutdown_delay: Span,

    /// How often native workers are asked for a sign of life; one that leaves two unanswered is
    /// killed: 500ms, 10s, 2m; 0 means never
    #[arg(long, value_name = "DURATION", default_value_t = defaults().heartbeat().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) heartbeat: Span,

    /// Replace a worker after N connections [default: never]
    #[arg(long, value_name = "N", value_parser = Value(values::positive), allow_hyphen_values = true)]
    pub(super) max_requests: Option<NonZeroU64>,

    /// Add up to N connections to --max-requests, another number for each worker
    #[arg(long, value_name = "N", default_value_t = defaults().max_requests_jitter(), value_parser = Value(values::jitter), allow_hyphen_values = true)]
    pub(super) max_requests_jitter: u64,

    /// Replace a worker that twice in a row, a second apart, has more resident memory, in KiB, MiB
    /// or GiB [default: never]
    #[arg(long, value_name = "SIZE", value_parser = Value(values::memory), allow_hyphen_values = true)]
    pub(super) max_memory: Option<NonZeroU64>,

    /// Replace a worker this long after it became ready: 10s, 2m, 1h; 0 means never
    #[arg(long, value_name = "DURATION", default_value_t = defaults().max_age().into(), value_parser = Value(values::duration), allow_hyphen_values = true)]
    pub(super) max_age: Span,

    /// User to become once the listeners are bound, by name or number; needs root. Logs and the
    /// control socket are made as this user [default: as started]
    #[arg(long, value_name = "USER", value_parser = Value(values::user), allow_hyphen_values = true)]
    pub(super) user: Option<String>,

    /// Group to become, likewise [default: that of --user]
    #[arg(long, value_name = "GROUP", value_parser = Value(values::group), allow_hyphen_values = true)]
    pub(super) group: Option<String>,

    /// Path of the control socket, or off for none [default: roundel-PID.sock in $XDG_RUNTIME_DIR,
    /// else in roundel-UID in the temporary directory]
    #[arg(long, value_name = "PATH|off")]
    pub(super) control: Option<PathBuf>,

    /// Write events to a file or to standard output (-), one JSON object per line [default: off]
    #[arg(long, value_name = "PATH|-")]
    pub(super) events: Option<PathBuf>,

    /// Record the run in this file, for the replay command; the file is overwritten [default: off]
    #[arg(long, value_name = "PATH")]
    pub(super) journal: Option<PathBuf>,

    /// Size at which recording stops, in KiB, MiB or GiB; the run goes on without it
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = Value(values::size), allow_hyphen_values = true)]
    pub(super) journal_limit: u64,

    /// Serve /metrics (OpenMetrics), /healthz and /readyz over HTTP at host:port or unix:PATH; with
    /// port 0 the kernel chooses one [default: off]
    #[arg(long, value_name = "ADDR", value_parser = Value(values::metrics), allow_hyphen_values = true)]
    pub(super) metrics: Option<Address>,

    /// What workers print: raw (as it is, past the primary), prefix ([SLOT pid PID] before each
    /// line) or json (an object a line)
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Raw, value_parser = Value(values::log_format), allow_hyphen_values = true)]
    pub(super) log_format: Format,

    /// Append what workers print to a file; SIGUSR1 opens it anew [default: standard output and
    /// standard error]
    #[arg(long, value_name = "PATH")]
    pub(super) log_file: Option<PathBuf>,

    /// Protocol that workers speak: auto (each worker chooses), native or node
    #[arg(long, value_name = "CODEC", default_value = "auto", value_parser = Value(values::codec), allow_hyphen_values = true)]
    pub(super) codec: ForcedCodec,

    /// Variable that tells a program the number of its slot, from 0; PM2 calls it
    /// NODE_APP_INSTANCE [default: off]
    #[arg(long, value_name = "NAME", value_parser = Value(values::variable), allow_hyphen_values = true)]
    pub(super) instance_var: Option<String>,

    /// Make Node workers load a module that closes keep-alive connections with an answer when they
    /// leave, and tells the primary what it can't see; the program stays as it is [default: off]
    #[arg(long)]
    pub(super) node_assist: bool,
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
            .respawn(self.respawn)
            .reload_batch(self.reload_batch.0)
            .min_ready(self.min_ready)
            .ready_hold(self.ready_hold.0)
            .max_generations(self.max_generations)
            .shutdown_delay(self.shutdown_delay.0)
            .heartbeat(self.heartbeat.or_never())
            .max_requests(self.max_requests)
            .max_requests_jitter(self.max_requests_jitter)
            .max_memory(self.max_memory)
            .max_age(self.max_age.or_never());
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
