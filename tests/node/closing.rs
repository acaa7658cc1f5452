//! `--node-assist` with programs that close their servers themselves, in any order, for any reason.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::*;
use crate::tls::certificate;

const CONNECTIONS: usize = 6;

/// Clients that keep their connections; gone with this.
struct Clients {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Clients {
    /// Each has got an answer.
    fn open(port: u16, cert: Option<&Path>) -> Clients {
        let mut command = Command::new(node().unwrap());
        command.arg(fixture_path("keeping.js")).args([port.to_string(), CONNECTIONS.to_string()]);
        command.envs(cert.map(|cert| ("CERT", cert)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut clients = Clients { child, lines };
        assert_eq!(clients.came(), json!({ "lost": 0, "closing": 0 }));
        clients
    }

    /// How many of the next requests were lost, and how many answers close their connection.
    fn ask_again(&mut self) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        self.came()
    }

    fn came(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two workers with the module, on each version.
fn on_each_version(test: impl Fn(Setup)) {
    if beyond_node("it has no such option") {
        return;
    }
    for version in versions() {
        let (Some(node), Some(setup)) = (version, fixture("keep-alive.js")) else { return };
        let options = ["--node-assist", "--drain-timeout", "20s", "--ready-hold", "100ms"];
        test(setup.on(node).options(&options));
    }
}

/// Both workers do what `CLOSES` says.
fn close_both(cluster: &Cluster, old: &[i32]) {
    old.iter().for_each(|pid| signal(*pid, Signal::SIGUSR2));
    let have = || cluster.reports().iter().filter(|it| it["closed"].is_string()).count() == 2;
    eventually("the servers to close", || have().then_some(()));
}

fn no_request_is_lost(setup: Setup, steps: &str, cert: Option<&Path>) {
    let cluster = setup.variable("CLOSES", steps).start();
    let old = cluster.ready(2);
    let mut clients = Clients::open(cluster.addr(0).port(), cert);
    close_both(&cluster, &old);
    let came = clients.ask_again();
    assert_eq!(came, json!({ "lost": 0, "closing": CONNECTIONS }), "{steps}");
    if steps.contains("disconnect") {
        // They end by themselves.
        for pid in old {
            assert_eq!(cluster.exit_of(pid)["status"], json!({ "code": 0 }), "{steps}");
        }
        assert_eq!(cluster.count("killing"), 0);
    }
    cluster.stop();
}

#[test]
fn a_program_that_closes_its_server_cuts_no_idle_connection() {
    let all = [
        "close",
        "close disconnect",
        "disconnect close",
        "disconnect",
        "close close",
        // As Fastify does.
        "idle close",
    ];
    for steps in all {
        on_each_version(|setup| no_request_is_lost(setup, steps, None));
    }
}

#[test]
fn nor_does_one_with_https() {
    for steps in ["close disconnect", "disconnect close"] {
        on_each_version(|setup| {
            let Some((key, cert)) = certificate(&setup.dir) else { return };
            let setup = setup.variable("KEY", &key).variable("CERT", &cert);
            no_request_is_lost(setup, steps, Some(&cert));
        });
    }
}

#[test]
fn another_server_of_the_program_serves_on() {
    on_each_version(|setup| {
        let cluster = setup.variable("SECOND", "1").variable("CLOSES", "close").start();
        let old = cluster.ready(2);
        let mut clients = Clients::open(cluster.addr(1).port(), None);
        close_both(&cluster, &old);
        assert_eq!(clients.ask_again(), json!({ "lost": 0, "closing": 0 }));
        cluster.stop();
    });
}

/// What the program asks for in so many words.
#[test]
fn explicit_calls_close_what_they_always_close() {
    for steps in ["idle", "close idle", "close all"] {
        on_each_version(|setup| {
            let cluster = setup.variable("CLOSES", steps).start();
            let old = cluster.ready(2);
            let mut clients = Clients::open(cluster.addr(0).port(), None);
            close_both(&cluster, &old);
            assert_eq!(clients.ask_again()["lost"], CONNECTIONS, "{steps}");
            cluster.stop();
        });
    }
}

/// The connections on which nothing is asked any more end after the server's own time.
#[test]
fn a_program_that_has_closed_its_server_ends_by_itself() {
    on_each_version(|setup| {
        let setup = setup.variable("KEEP", "300").variable("CLOSES", "close disconnect");
        let cluster = setup.start();
        let old = cluster.ready(2);
        let clients = Clients::open(cluster.addr(0).port(), None);
        close_both(&cluster, &old);
        for pid in old {
            assert_eq!(cluster.exit_of(pid)["status"], json!({ "code": 0 }));
        }
        drop(clients);
        assert_eq!(cluster.count("killing"), 0);
        cluster.stop();
    });
}
