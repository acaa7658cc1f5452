//! Several machines behind HAProxy: what `docs/haproxy.md` promises of its configuration.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use roundel_tests::programs::observe::unused_address;
use roundel_tests::programs::optional::{NOT_ON_DIAGONAL, full_matrix};

use crate::cells::{on_both, pass_over, skip};
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::command;

on_both! {
    "the balancer knows nothing of workers", one listener "a machine has one address":
    reloads_and_restarts_behind_haproxy_lose_nobody,
}

const CONFIGURATION: &str = include_str!("../../docs/haproxy.cfg");

/// HAProxy, and how to ask it.
struct Balancer {
    _process: Started,
    socket: PathBuf,
}

impl Balancer {
    /// The configuration of the docs with the addresses of the test.
    fn start(changes: &[(&str, String)]) -> Balancer {
        let dir = temp_dir();
        let socket = dir.join("socket");
        let place = ("/run/haproxy/roundel.sock", socket.display().to_string());
        let mut text = CONFIGURATION.to_owned();
        for (of_docs, of_test) in changes.iter().chain([&place]) {
            assert_eq!(text.matches(of_docs).count(), 1, "{of_docs} in docs/haproxy.cfg");
            text = text.replace(of_docs, of_test);
        }
        let path = dir.join("haproxy.cfg");
        fs::write(&path, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(path).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(dir.join("log")).unwrap());
        Balancer { _process: Started::new(command, dir), socket }
    }

    /// A column of its statistics for a server.
    fn column(&self, server: &str, column: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut csv = String::new();
        stream.read_to_string(&mut csv).ok()?;
        let mut lines = csv.trim_start_matches("# ").lines();
        let at = lines.next()?.split(',').position(|name| name == column)?;
        let line = lines.find(|line| line.starts_with(&format!("shop,{server},")))?;
        line.split(',').nth(at).map(str::to_owned)
    }

    /// Waits until a server gets requests, or none.
    fn is(&self, server: &str, status: &str) {
        wait_for(status, || (self.column(server, "status")? == status).then_some(()));
    }
}

/// A machine that runs Roundel.
fn machine(on: Pair, ip: IpAddr) -> Cluster {
    let (bind, metrics) = (format!("{ip}:8080"), format!("{ip}:9100"));
    let args = ["demo", "-w", "2", "-b", &bind, "--metrics", &metrics, "--shutdown-delay", "3s"];
    let cluster = Cluster::start(Command::new(on.binary()), &args, &[]);
    cluster.ready(2);
    cluster
}

/// Waits until each of its workers has had a client.
fn all_serve(machine: &Cluster) {
    wait_for("clients at each worker", || {
        let status = machine.status();
        let has_served = |row: &serde_json::Value| row["accepted"].as_u64() > Some(0);
        status["workers"].as_array().unwrap().iter().all(has_served).then_some(())
    });
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").into()])
        .any(|dir| dir.join(program).exists())
}

fn reloads_and_restarts_behind_haproxy_lose_nobody(on: Pair) {
    // It waits for the checks of HAProxy, and alone.
    if !full_matrix() {
        return pass_over(NOT_ON_DIAGONAL);
    }
    if !is_installed("haproxy") {
        return skip("no haproxy");
    }
    let _load = alone();
    let ips = [unused_address().ip(), unused_address().ip()];
    let front = unused_address();
    let mut machines = ips.map(|ip| machine(on, ip));
    let balancer = Balancer::start(&[
        ("bind :80", format!("bind {front}")),
        ("10.0.0.1:8080", format!("{}:8080", ips[0])),
        ("10.0.0.2:8080", format!("{}:8080", ips[1])),
    ]);
    let names = ["a", "b"];
    names.iter().for_each(|name| balancer.is(name, "UP"));
    let outcomes = under_load(front, 4, || {
        for machine in &machines {
            all_serve(machine);
            let (code, _, said) = command(on, machine, &["reload"]);
            assert_eq!(code, 0, "{said}");
        }
        for (at, name) in names.into_iter().enumerate() {
            all_serve(&machines[at]);
            machines[at].signal(Signal::SIGTERM);
            balancer.is(name, "DOWN");
            assert_eq!(machines[at].wait(), 0, "{}", machines[at].log());
            machines[at] = machine(on, ips[at]);
            balancer.is(name, "UP");
            all_serve(&machines[at]);
        }
    });
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), outcomes.len());
    // Two workers of each machine, before and after each of the two changes.
    let workers: BTreeSet<i32> = outcomes.iter().map(Outcome::pid).collect();
    assert_eq!(workers.len(), 12, "{workers:?}");
    // Nor was there anything to try again: no client was sent to a listener that is gone.
    for column in ["wretr", "wredis"] {
        let again = names.map(|name| balancer.column(name, column).unwrap());
        assert_eq!(again, ["0", "0"], "{column}");
    }
    for mut machine in machines {
        machine.signal(Signal::SIGQUIT);
        assert_eq!(machine.wait(), 0);
    }
}
