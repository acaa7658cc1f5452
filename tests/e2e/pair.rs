//! What a scenario runs on: each is written once, and run on every pair of a primary and workers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use roundel_tests::programs::observe::{binary, built, unused_address};
use roundel_tests::programs::optional;
use roundel_tests::programs::test_worker::LISTENERS;

use crate::harness::Cluster;

/// The CPU time that a process of ours may use in 2 s in which nothing happens: a few late events
/// of what came before, and far less than asking again and again would take.
pub(crate) const IDLE: Duration = Duration::from_millis(2);

/// A primary, and the workers that it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) primary: Adapter,
    pub(crate) worker: Adapter,
    /// How many listeners there are; clients use them in turns.
    pub(crate) listeners: usize,
    /// Whether the primary is process 1 of a PID namespace of its own.
    pub(crate) is_process_one: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    Mio,
    Smol,
    /// Unmodified Node programs. Only workers.
    Node,
}

impl Adapter {
    pub(crate) fn binary(self) -> PathBuf {
        match self {
            Adapter::Mio => binary("roundel"),
            Adapter::Smol => binary("roundel-smol"),
            Adapter::Node => optional::node().expect("scenarios without Node are skipped"),
        }
    }
}

impl Pair {
    pub(crate) const fn new(primary: Adapter, worker: Adapter) -> Pair {
        Pair { primary, worker, listeners: 1, is_process_one: false }
    }

    /// The same with one listener.
    pub(crate) const fn one(self) -> Pair {
        Pair { listeners: 1, ..self }
    }

    /// The same with two listeners.
    pub(crate) const fn two(self) -> Pair {
        Pair { listeners: 2, ..self }
    }

    /// The same with the primary as process 1, as in a container.
    pub(crate) const fn as_process_one(self) -> Pair {
        Pair { is_process_one: true, ..self }
    }

    /// A command that runs the primary.
    fn primary_command(self) -> Command {
        match self.is_process_one {
            true => in_a_namespace(self.binary()),
            false => Command::new(self.binary()),
        }
    }

    /// The binary of the primary.
    pub(crate) fn binary(self) -> PathBuf {
        self.primary.binary()
    }

    fn has_node_workers(self) -> bool {
        self.worker == Adapter::Node
    }

    /// How many connections may be in flight at a worker, unless told otherwise.
    pub(crate) fn window(self) -> u64 {
        if self.has_node_workers() { 4 } else { 1 }
    }

    /// What `status` calls what the workers speak.
    pub(crate) fn codec(self) -> &'static str {
        if self.has_node_workers() { "node" } else { "native" }
    }

    /// The exit code of a worker that has crashed.
    pub(crate) fn crash_code(self) -> u64 {
        if self.has_node_workers() { 1 } else { 101 }
    }

    /// The event when a worker has no descriptor left for a connection: ours decline it, Node
    /// refuses the handle itself.
    pub(crate) fn refusal(self) -> &'static str {
        if self.has_node_workers() { "handoff_failed" } else { "declined" }
    }

    /// The CPU time that an idle worker may use in 2 s. Node keeps house at times.
    pub(crate) fn idle_time(self) -> Duration {
        if self.has_node_workers() { Duration::from_millis(30) } else { IDLE }
    }

    /// Whether workers finish what they have when the primary is gone. Node ends its own at once,
    /// and the kernel ends all of a namespace together with its process 1.
    pub(crate) fn finishes_without_primary(self) -> bool {
        !self.has_node_workers() && !self.is_process_one
    }

    /// What the primary is to bind, as options. A Node program has to ask for the ports by their
    /// numbers, so there they are chosen in advance and told to the program by its environment.
    pub(crate) fn bind_options(self, command: &mut Command) -> Vec<String> {
        command.env(LISTENERS, self.listeners.to_string());
        let mut options = Vec::new();
        let variables = [("HOST", "PORT"), ("SECOND_HOST", "SECOND_PORT")];
        for (host, port) in variables.into_iter().take(self.listeners) {
            let mut address = "127.0.0.1:0".to_owned();
            if self.has_node_workers() {
                let unused = unused_address();
                command.env(host, unused.ip().to_string());
                command.env(port, unused.port().to_string());
                address = unused.to_string();
            }
            options.extend(["-b".to_owned(), address]);
        }
        options
    }

    /// The command line of a demo worker.
    pub(crate) fn demo_worker(self) -> Vec<String> {
        let binary = self.worker.binary().to_str().unwrap().to_owned();
        if self.has_node_workers() {
            return vec![binary, fixture("demo.js")];
        }
        vec![binary, "demo-worker".into(), self.listeners.to_string()]
    }

    /// `roundel demo ARGS`, or the same with the other kinds of demo workers.
    pub(crate) fn demo(self, args: &[&str]) -> Cluster {
        self.start_demo(self.primary_command(), args)
    }

    /// As [`demo`](Pair::demo), where the command runs the binary under certain conditions.
    pub(crate) fn start_demo(self, command: Command, args: &[&str]) -> Cluster {
        if self.primary == self.worker {
            return self.start(command, "demo", args, &[]);
        }
        self.start(command, "run", args, &self.demo_worker())
    }

    /// `roundel run ARGS PROGRAM`.
    pub(crate) fn run(self, args: &[&str], program: &[String]) -> Cluster {
        self.start(self.primary_command(), "run", args, program)
    }

    fn start(self, mut command: Command, verb: &str, args: &[&str], program: &[String]) -> Cluster {
        let bind = self.bind_options(&mut command);
        let mut all = vec![verb];
        all.extend(bind.iter().map(String::as_str));
        all.extend(args);
        let mut cluster = Cluster::start(command, &all, program);
        if self.is_process_one {
            cluster.enter_namespace();
        }
        cluster
    }

    /// The command line of a worker with habits.
    pub(crate) fn test_worker(self, habits: &[&str]) -> Vec<String> {
        let program = match self.worker {
            Adapter::Mio => vec![env!("CARGO_BIN_EXE_test_worker").to_owned()],
            Adapter::Smol => vec![env!("CARGO_BIN_EXE_test_worker_smol").to_owned()],
            Adapter::Node => {
                let node = self.worker.binary().to_str().unwrap().to_owned();
                vec![node, fixture("test_worker.js")]
            }
        };
        program.into_iter().chain(habits.iter().map(ToString::to_string)).collect()
    }

    /// The command line of demo workers of which the one in slot 0 misbehaves like this.
    pub(crate) fn beside_a_hostile_one(self, mode: &str) -> Vec<String> {
        let script = r#"[ "$ROUNDEL_SLOT" = 0 ] && exec "$0" "$1"; shift; exec "$@""#;
        let program = ["sh", "-c", script, env!("CARGO_BIN_EXE_hostile_worker"), mode];
        program.map(str::to_owned).into_iter().chain(self.demo_worker()).collect()
    }

    /// A worker whose HTTP is a library's.
    pub(crate) fn hyper_server() -> PathBuf {
        built("examples/hyper_server", &["runtime-smol"])
    }

    /// An example that waits with the adapter of the primary: in an event loop of its own, or in
    /// tasks.
    pub(crate) fn echo_server(self) -> PathBuf {
        match self.primary {
            Adapter::Smol => built("examples/tasks", &["runtime-smol"]),
            _ => built("examples/event_loop", &["runtime-mio"]),
        }
    }

    /// An example that is its own primary.
    pub(crate) fn single_binary(self) -> PathBuf {
        match self.primary {
            Adapter::Smol => built("examples/single_binary_smol", &["runtime-smol"]),
            _ => built("examples/single_binary", &["runtime-mio"]),
        }
    }
}

/// A command that runs a program as process 1 of a new PID namespace, and ends as it does.
pub(crate) fn in_a_namespace(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(program);
    command
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures").join(name);
    path.to_str().unwrap().to_owned()
}
