//! Older kernels and sandboxes: what `docs/kernels.md` says of them.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{may_make_namespaces, on_both, pass_over, skip};
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "the kernel is the same for all":
    without_netlink_connections_are_assumed_and_that_is_said_once,
    without_pidfd_groups_end_all_the_same,
    before_group_signals_groups_end_all_the_same,
    without_the_right_to_choose_a_scheduler_all_goes_on,
    with_hidepid_and_without_root_the_own_processes_are_seen,
}

/// A command that runs the primary without some system calls; `None` without Python.
fn without(on: Pair, what: &str) -> Option<Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        skip("no python3");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/fixtures/without.py")).arg(what);
    command.arg(on.binary());
    Some(command)
}

fn without_netlink_connections_are_assumed_and_that_is_said_once(on: Pair) {
    let Some(command) = without(on, "netlink") else { return };
    let mut cluster = on.start_demo(command, &["-w", "2", "--drain-timeout", "4s"]);
    cluster.ready(2);
    let open = send(cluster.addr, "/sleep?ms=1500").unwrap();
    wait_for("it to be taken", || (cluster.total("accepted_total") == 1).then_some(()));
    cluster.signal(Signal::SIGTERM);
    assert!(matches!(receive(open), Outcome::Ok(_)));
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    let unknown = cluster.events_named("connections_unknown");
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert!(unknown[0]["cause"].as_str().unwrap().contains("Address family not supported"));
}

/// A worker with a helper is killed: the helper ends too, and nobody is left unreaped.
fn groups_end(on: Pair, what: &str) {
    let script = "sleep 1000 & exec \"$@\"";
    let words = ["sh", "-c", script, "sh"].map(str::to_owned);
    let program: Vec<String> = words.into_iter().chain(on.demo_worker()).collect();
    let args = ["run", "-w", "2", "-b", "127.0.0.1:0"];
    let Some(command) = without(on, what) else { return };
    let mut cluster = Cluster::start(command, &args, &program);
    let helpers = || {
        let all = cluster.processes().into_iter().filter_map(name_and_parent);
        all.filter(|(name, _)| name == "sleep").count()
    };
    let pids = cluster.ready(2);
    assert_eq!(helpers(), 2);
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    wait_for("a new worker", || (!cluster.ready(2).contains(&pids[0])).then_some(()));
    wait_for("the helper's end", || (helpers() == 2).then_some(()));
    cluster.expect_no_zombies();
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    cluster.expect_nothing_left();
}

fn without_pidfd_groups_end_all_the_same(on: Pair) {
    groups_end(on, "pidfd");
}

fn before_group_signals_groups_end_all_the_same(on: Pair) {
    groups_end(on, "groups");
}

fn without_the_right_to_choose_a_scheduler_all_goes_on(on: Pair) {
    let Some(command) = without(on, "scheduler") else { return };
    let cluster = on.start_demo(command, &["-w", "2"]);
    cluster.ready(2);
    cluster.get("/").pid();
    assert!(cluster.log().lines().all(|line| !line.contains("sched")), "{}", cluster.log());
    cluster.stop();
}

fn with_hidepid_and_without_root_the_own_processes_are_seen(on: Pair) {
    if !may_make_namespaces() {
        return pass_over("needs the right to mount");
    }
    let dir = temp_dir();
    chown(&dir, Some(65_534), Some(65_534)).unwrap();
    let binary = dir.join("roundel");
    fs::copy(on.binary(), &binary).unwrap();
    let script = r#"
        mount -t proc -o hidepid=invisible proc /proc &&
        exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&binary);
    command.args(["demo", "-w", "2", "-b", "127.0.0.1:0", "--drain-timeout", "8s"]);
    command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
    command.stdin(std::process::Stdio::null()).stderr(fs::File::create(dir.join("log")).unwrap());
    mark(&mut command, &dir);
    let mut cluster = Cluster::adopt(command.spawn().unwrap(), dir);
    cluster.ready(2);
    for worker in cluster.status()["workers"].as_array().unwrap() {
        assert!(worker["rss_kb"].as_u64() > Some(0), "{worker}");
    }
    let open = send(cluster.addr, "/sleep?ms=1500").unwrap();
    wait_for("it to be taken", || (cluster.total("accepted_total") == 1).then_some(()));
    cluster.signal(Signal::SIGTERM);
    assert!(matches!(receive(open), Outcome::Ok(_)));
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    assert!(cluster.events_named("connections_unknown").is_empty(), "{}", cluster.log());
}
