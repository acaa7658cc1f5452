//! Programs that know no channel, and take the listeners that a service manager passes:
//! gunicorn looks for them by itself, uvicorn is told the number.

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use roundel_tests::programs::optional::python_program;

use crate::addresses::Addresses;
use crate::cells::{on_both, pass_over, skip};
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "the workers are Python programs", one listener "they serve one":
    gunicorn_serves,
    uvicorn_serves,
    a_program_without_a_channel_ends_with_its_primary,
    also_one_that_is_plain_and_of_another_user,
}

fn gunicorn_serves(on: Pair) {
    let Some(program) = python_program("gunicorn") else { return skip("no gunicorn") };
    serves(on, &[&program, "--workers", "1", "--no-control-socket", "app:wsgi"]);
}

fn uvicorn_serves(on: Pair) {
    let Some(program) = python_program("uvicorn") else { return skip("no uvicorn") };
    serves(on, &[&program, "--fd", "3", "--log-level", "warning", "app:asgi"]);
}

fn start(on: Pair, options: &[&str], program: &[&str]) -> Cluster {
    let mut command = Command::new(on.binary());
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/fixtures");
    command.env("PYTHONPATH", fixtures).env("PYTHONDONTWRITEBYTECODE", "1");
    let program: Vec<String> = program.iter().map(ToString::to_string).collect();
    let args = ["run", "-w", "3", "--policy", "shared", "-b", "127.0.0.1:0"];
    Cluster::start(command, &[&args, options].concat(), &program)
}

fn slots(outcomes: &[Outcome]) -> BTreeSet<String> {
    let words = |outcome: &Outcome| match outcome {
        Outcome::Ok(body) => body.split_whitespace().nth(1).map(str::to_owned),
        _ => None,
    };
    outcomes.iter().filter_map(words).collect()
}

/// Asks until each worker has answered. Who takes a connection is up to the kernel: one may take
/// all that come together.
fn all_answer(addr: Addresses) {
    let mut outcomes = Vec::new();
    wait_for("an answer of each worker", || {
        let clients: Vec<_> = (0..6).map(|_| thread::spawn(move || get(addr, "/slow"))).collect();
        outcomes.extend(clients.into_iter().map(|client| client.join().unwrap()));
        (slots(&outcomes).len() == 3).then_some(())
    });
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Ok(_))), "{outcomes:?}");
}

fn serves(on: Pair, program: &[&str]) {
    let _turn = alone();
    let mut cluster = start(on, &[], program);
    let pids = cluster.ready(3);
    // Requests are answered by several workers.
    let addr = cluster.addr;
    all_answer(addr);

    // One that is killed comes back, and what it had started ends.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    let next = wait_for("a new worker", || {
        let ready = cluster.pids("ready");
        (ready.len() == 3).then(|| ready.into_iter().find(|pid| !pids.contains(pid)))?
    });
    assert_ne!(next, pids[0]);
    all_answer(addr);

    // A stop lets them finish what they have.
    let open = send(addr, "/slow").unwrap();
    thread::park_timeout(std::time::Duration::from_millis(300));
    cluster.signal(Signal::SIGTERM);
    assert!(matches!(receive(open), Outcome::Ok(_)), "{}", cluster.log());
    assert_eq!(cluster.wait(), 0);
    assert!(cluster.events_named("killing").is_empty(), "{}", cluster.log());
    assert_eq!(get(addr, "/"), Outcome::Refused);
    cluster.expect_nothing_left();
}

/// It has no channel whose end it could notice.
fn a_program_without_a_channel_ends_with_its_primary(on: Pair) {
    // It closes whatever it does not know.
    let script = "i=5; while [ $i -lt 64 ]; do eval \"exec $i<&-\"; i=$((i+1)); done; \
                  exec sleep 1000";
    let mut cluster = start(on, &[], &["bash", "-c", script]);
    let pids = cluster.ready(3);
    cluster.signal(Signal::SIGKILL);
    assert_eq!(cluster.wait(), -9);
    wait_for("their end", || (!pids.iter().any(|pid| is_running(*pid))).then_some(()));
}

/// A change of the user id clears what prctl(2) has set, so it must come before.
fn also_one_that_is_plain_and_of_another_user(on: Pair) {
    if !geteuid().is_root() {
        return pass_over("needs root");
    }
    for user in [&[][..], &["--user", "65534", "--group", "65534"]] {
        let dir = temp_dir();
        chown(&dir, Some(65_534), Some(65_534)).unwrap();
        let mut command = Command::new(on.binary());
        command.args(["run", "-w", "2", "--policy", "shared", "-b", "127.0.0.1:0"]).args(user);
        command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
        command.args(["sleep", "1000"]).stdin(Stdio::null()).stderr(Stdio::null());
        mark(&mut command, &dir);
        let mut cluster = Cluster::adopt(command.spawn().unwrap(), dir);
        let pids = cluster.ready(2);
        cluster.signal(Signal::SIGKILL);
        assert_eq!(cluster.wait(), -9);
        wait_for("their end", || (!pids.iter().any(|pid| is_running(*pid))).then_some(()));
        cluster.expect_nothing_left();
    }
}
