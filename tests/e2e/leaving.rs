//! How workers are led out, whatever their API.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cells::{on_all, on_both, pass_over, skip};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    a_client_that_waits_before_it_speaks_is_answered,
    a_second_term_ends_the_settling_too,
    one_that_lives_on_without_clients_is_signalled: not Node "its program ignores signals",
    one_that_keeps_a_client_is_not: not Node "its program ignores signals",
}

on_both! {
    "the user of the primary is all that differs":
    unknown_connection_counts_are_assumed_nonzero,
}

/// The time from the first event of this name to the first of that one.
fn between(cluster: &Cluster, from: &str, to: &str) -> Duration {
    let at = |name: &str| {
        let event = wait_for(name, || cluster.events_named(name).into_iter().next());
        event["at_ms"].as_u64().unwrap()
    };
    Duration::from_millis(at(to) - at(from))
}

fn a_client_that_waits_before_it_speaks_is_answered(on: Pair) {
    let mut cluster = on.demo(&["-w", "2", "--drain-timeout", "40s", "--drain-settle", "10s"]);
    let pids = cluster.ready(2);
    let mut clients: Vec<TcpStream> = (0..4)
        .map(|_| {
            let client = TcpStream::connect(cluster.addr).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        })
        .collect();
    wait_for("all to be taken", || (cluster.total("accepted_total") == 4).then_some(()));
    cluster.signal(Signal::SIGTERM);
    wait_for("both to settle", || (cluster.events_named("settling").len() == 2).then_some(()));
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    }
    for client in clients {
        let outcome = receive(client);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    assert_eq!(cluster.wait(), 0);
    assert!(between(&cluster, "settling", "draining") >= Duration::from_secs(9));
    let told = cluster.events_named("draining");
    let told = told.iter().map(|event| event["pid"].as_i64().unwrap() as i32);
    assert_eq!(told.collect::<BTreeSet<_>>(), pids.into_iter().collect());
    assert_eq!(cluster.events_named("signalled").len(), 0);
}

fn a_second_term_ends_the_settling_too(on: Pair) {
    let mut cluster = on.demo(&["-w", "2", "--drain-timeout", "4m", "--drain-settle", "1m"]);
    cluster.ready(2);
    cluster.get("/").pid();
    cluster.signal(Signal::SIGTERM);
    wait_for("it to settle", || cluster.events_named("settling").pop());
    let begun = Instant::now();
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    cluster.expect_nothing_left();
}

/// A worker that has served a client, and does not end by itself.
fn that_stays(on: Pair, options: &[&str]) -> Cluster {
    let options = [&["-w", "1", "--linger", "500ms"], options].concat();
    let cluster = on.run(&options, &on.test_worker(&["ignore-drain"]));
    cluster.ready(1);
    cluster.get("/").pid();
    cluster
}

/// All workers end by this signal.
fn end_by(mut cluster: Cluster, signal: i32) {
    assert_eq!(cluster.wait(), 0);
    let exits = cluster.events_named("exited");
    assert!(exits.iter().all(|exit| exit["status"]["signal"] == signal), "{exits:?}");
    cluster.expect_nothing_left();
}

/// Until the deadline of 6 s in its message a worker has its time; `unknown` is how often it is
/// said that nobody can know what it has.
fn end_at_the_deadline(cluster: Cluster, unknown: usize) {
    cluster.signal(Signal::SIGTERM);
    let after = between(&cluster, "stopping", "killing");
    assert!(after >= Duration::from_secs(5), "{after:?}");
    assert_eq!(cluster.events_named("signalled").len(), 0);
    assert_eq!(cluster.events_named("connections_unknown").len(), unknown);
    end_by(cluster, 9);
}

fn one_that_lives_on_without_clients_is_signalled(on: Pair) {
    let cluster = that_stays(on, &[]);
    cluster.signal(Signal::SIGTERM);
    // It lingers, and is looked at each second; without the look it would be after 28.
    let after = between(&cluster, "draining", "signalled");
    assert!(after >= Duration::from_millis(450) && after < Duration::from_secs(15), "{after:?}");
    end_by(cluster, 15);
}

fn one_that_keeps_a_client_is_not(on: Pair) {
    let cluster = that_stays(on, &["--drain-timeout", "6s"]);
    // It waits for a request that never comes.
    let _client = TcpStream::connect(cluster.addr).unwrap();
    wait_for("it to be taken", || (cluster.total("accepted_total") == 2).then_some(()));
    end_at_the_deadline(cluster, 0);
}

/// A binary that its user may only run can't be looked into by this user either: proc(5),
/// PR_SET_DUMPABLE.
fn unknown_connection_counts_are_assumed_nonzero(on: Pair) {
    if !nix::unistd::geteuid().is_root() {
        return pass_over("not root, so there is no other user");
    }
    let dir = temp_dir();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let copy = |path: &Path, mode| {
        let to = dir.join(path.file_name().unwrap());
        fs::copy(path, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        to.to_str().unwrap().to_owned()
    };
    let mut program = on.test_worker(&["ignore-drain"]);
    program[0] = copy(Path::new(&program[0]), 0o711);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65533", "--regid=65533", "--clear-groups"]);
    command.arg(copy(&on.binary(), 0o755)).args(["run", "-w", "2"]);
    let bind = on.bind_options(&mut command);
    command.args(bind).args(["--linger", "500ms", "--drain-timeout", "6s", "--control"]);
    command.arg(dir.join("control")).arg("--events").arg(dir.join("events")).args(program);
    mark(&mut command, &dir);
    command.stdin(Stdio::null()).stderr(fs::File::create(dir.join("log")).unwrap());
    let Ok(child) = command.spawn() else { return skip("no setpriv(1)") };
    let cluster = Cluster::adopt_all(child, dir, on.listeners);
    cluster.ready(2);
    for _ in 0..4 {
        cluster.get("/").pid();
    }
    end_at_the_deadline(cluster, 1);
}
