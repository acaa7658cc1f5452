//! Another user for the primary and its workers, and the owners of unix sockets.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use roundel_tests::programs::observe::unused_address;

use super::manager::Manager;
use crate::cells::{on_both, pass_over};
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "the listeners are given":
    the_user_is_another_one_after_the_listeners_are_bound,
    users_that_cannot_be_are_named,
    a_unix_socket_has_the_mode_that_is_asked_for,
}

/// Has no rights, and an entry on most machines; the tests need none.
const UID: u32 = 65534;

/// The numbers in a line of proc_pid_status(5).
fn ids(status: &Path, line: &str) -> Vec<u32> {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix(line)).unwrap().to_owned();
    line.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Fails unless every thread of a process is this user's, without a way back.
fn expect_user(pid: i32) {
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = thread.unwrap().path().join("status");
        assert_eq!(ids(&status, "Uid:"), [UID; 4], "{status:?}");
        assert_eq!(ids(&status, "Gid:"), [UID; 4], "{status:?}");
        assert!(ids(&status, "Groups:").iter().all(|gid| *gid == UID), "{status:?}");
        let text = fs::read_to_string(&status).unwrap();
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            let bits = text.lines().find_map(|line| line.strip_prefix(set)).unwrap();
            assert_eq!(bits.trim().trim_start_matches('0'), "", "{set}");
        }
        threads += 1;
    }
    assert!(threads >= 1);
}

fn the_user_is_another_one_after_the_listeners_are_bound(on: Pair) {
    if !geteuid().is_root() {
        return pass_over("needs root");
    }
    let manager = Manager::new();
    let dir = temp_dir();
    chown(&dir, Some(UID), Some(UID)).unwrap();
    // A port for which the user has no right.
    let addr = SocketAddr::new(unused_address().ip(), 80);
    let socket = dir.join("socket");
    let mut command = Command::new(on.binary());
    let id = UID.to_string();
    command.args(["demo", "-w", "2", "--user", &id, "--group", &id, "-b", &addr.to_string()]);
    command.arg("-b").arg(format!("unix:{},mode=0600", socket.display()));
    command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
    command.arg("--journal").arg(dir.join("journal")).arg("--log-file").arg(dir.join("workers"));
    command.env("NOTIFY_SOCKET", manager.path());
    let log = fs::File::create(dir.join("log")).unwrap();
    mark(&mut command, &dir);
    command.stdin(Stdio::null()).stderr(log);
    let mut cluster = Cluster::adopt_all(command.spawn().unwrap(), dir.clone(), 2);
    let workers = cluster.ready(2);
    manager.hears("READY=1");
    expect_user(cluster.pid());
    for &pid in &workers {
        expect_user(pid);
    }
    assert!(matches!(get(addr, "/"), Outcome::Ok(_)));
    for (name, mode) in [("socket", 0o600), ("control", 0o600), ("events", 0o600)] {
        let found = fs::metadata(dir.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (UID, UID), "{name}");
        assert_eq!(found.mode() & 0o777, mode, "{name}");
    }
    for name in ["journal", "workers"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().uid(), UID, "{name}");
    }
    // Logs can be opened anew.
    fs::rename(dir.join("events"), dir.join("rotated")).unwrap();
    cluster.signal(Signal::SIGUSR1);
    wait_for("the new log", || fs::metadata(dir.join("events")).ok());
    // A worker that dies is replaced by one of the same user.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(workers[0]), Signal::SIGKILL).unwrap();
    let next = wait_for("a new worker", || {
        cluster.pids("ready").into_iter().find(|pid| !workers.contains(pid))
    });
    expect_user(next);
    // Leaving works: signals and the paths of sockets.
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    assert!(!socket.exists() && !dir.join("control").exists());
}

fn users_that_cannot_be_are_named(on: Pair) {
    let dir = temp_dir();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = |options: &[&str], by: u32| {
        let mut command = Command::new(on.binary());
        command.args(["demo", "--control", "off", "-b", "127.0.0.1:0"]).args(options);
        if geteuid().is_root() && by != 0 {
            command.uid(by).gid(by);
        }
        let output = command.current_dir(&dir).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = refused(&["--user", "no-such-name"], UID);
    assert!(said.contains("--user: \"no-such-name\" is not a user of this machine"), "{said}");
    let said = refused(&["--group", "no-such-name"], UID);
    assert!(said.contains("--group: \"no-such-name\" is not a group of this machine"), "{said}");
    let said = refused(&["--user", "4000000000"], UID);
    assert!(said.contains("so --group must be given"), "{said}");
    let said = refused(&["--user", "0"], UID);
    assert!(said.contains("only root can become another user"), "{said}");
    fs::remove_dir_all(dir).unwrap();
}

fn a_unix_socket_has_the_mode_that_is_asked_for(on: Pair) {
    let dir = temp_dir();
    let path = dir.join("a,b");
    // The umask plays no part.
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(on.binary());
    let mut bind = format!("unix:{},mode=0666", path.display());
    if geteuid().is_root() {
        bind.push_str(",owner=12345,group=23456");
    }
    let cluster =
        Cluster::start(command, &["demo", "-w", "1", "-b", "127.0.0.1:0", "-b", &bind], &[]);
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o666);
    if geteuid().is_root() {
        assert_eq!((found.uid(), found.gid()), (12_345, 23_456));
    }
    cluster.ready(1);
    cluster.stop();
    assert!(!path.exists());
    fs::remove_dir_all(dir).unwrap();
}
