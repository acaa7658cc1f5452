//! The control socket, the event log, and what an idle primary costs.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cells::{on_all, on_both, pass_over};
use crate::harness::*;
use crate::pair::{IDLE, Pair};

on_all! {
    an_idle_primary_costs_nothing,
    status_has_the_fields_that_others_read,
    stop_waits_for_the_end,
    a_reader_of_the_event_log_that_leaves_hurts_nobody,
    a_reader_of_the_event_log_that_sleeps_hurts_nobody,
}

on_both! {
    "it asks the primary alone":
    another_user_is_told_nothing,
    status_says_that_workers_accept_by_themselves,
    a_log_that_could_grow_no_more_goes_on_with_a_line_of_its_own,
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn status_has_the_fields_that_others_read(on: Pair) {
    let cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    let path = cluster.dir.join("control");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let output =
        Command::new(on.binary()).args(["status", "--json", "--control"]).arg(&path).output();
    let status: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let mut wanted = [
        "pid",
        "uptime_s",
        "pending",
        "in_flight",
        "accepted_total",
        "redispatched_total",
        "declined_total",
        "refused_total",
        "unknown_total",
        "stalled_total",
        "messages_skipped_total",
        "open_fds",
        "rss_kb",
        "wanted",
        "generation",
        "paused",
        "stopping",
        "metrics",
    ];
    wanted.sort_unstable();
    assert_eq!(keys(&status["primary"]), wanted);
    assert_eq!(
        keys(&status["listeners"][0]),
        ["accept_queue", "accepting", "address", "pending", "policy"]
    );
    assert_eq!(status["listeners"][0]["accept_queue"], 0);
    let mut wanted = [
        "id",
        "slot",
        "pid",
        "generation",
        "state",
        "codec",
        "in_flight",
        "open",
        "accepted",
        "declined",
        "restarts",
        "lag_ms",
        "last_exit",
        "uptime_s",
        "cpu_ms",
        "rss_kb",
        "stop_signal",
    ];
    wanted.sort_unstable();
    assert_eq!(keys(&status["workers"][0]), wanted);
    assert_eq!(keys(&status["generations"][0]), ["generation", "in_flight", "open", "workers"]);
    let wanted = ["generation", "last_exit", "next_in_ms", "restarts", "slot", "state", "worker"];
    assert_eq!(keys(&status["slots"][0]), wanted);
    assert_eq!(status["slots"][0]["state"], "filled");
    assert_eq!(status["reloads"].as_array().unwrap().len(), 0);
    assert_eq!(status["primary"]["pid"], cluster.pid());
    assert_eq!(status["workers"][0]["codec"], on.codec());
    let table =
        Command::new(on.binary()).args(["status", "--control"]).arg(&path).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("round-robin") && table.contains("ready"), "{table}");
    cluster.stop();
}

fn status_says_that_workers_accept_by_themselves(on: Pair) {
    let cluster = on.demo(&["-w", "1", "--policy", "shared"]);
    cluster.ready(1);
    let mut command = Command::new(on.binary());
    command.args(["status", "--control"]).arg(cluster.dir.join("control"));
    let table = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let is_listener = |line: &&str| line.contains(" shared ");
    let listeners: Vec<&str> = table.lines().filter(is_listener).collect();
    assert_eq!(listeners.len(), on.listeners, "{table}");
    assert!(listeners.iter().all(|line| line.ends_with("  workers")), "{table}");
    assert_eq!(cluster.status()["listeners"][0]["accepting"], false);
    cluster.stop();
}

fn stop_waits_for_the_end(on: Pair) {
    let mut cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    let stop = Command::new(on.binary())
        .args(["stop", "--control"])
        .arg(cluster.dir.join("control"))
        .output()
        .unwrap();
    assert_eq!(stop.status.code(), Some(0), "{}", String::from_utf8_lossy(&stop.stderr));
    assert!(!cluster.dir.join("control").exists());
    assert_eq!(cluster.wait(), 0);
}

fn an_idle_primary_costs_nothing(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "2"]);
    let pids = cluster.ready(2);
    cluster.get("/").pid();
    let used = || [cluster.pid(), pids[0], pids[1]].map(cpu_time);
    let before = used();
    // The span over which nothing must happen.
    std::thread::sleep(Duration::from_secs(2));
    let after = used();
    println!(
        "IDLE {:?} {:?} {:?}",
        after[0] - before[0],
        after[1] - before[1],
        after[2] - before[2]
    );
    let allowed = [IDLE, on.idle_time(), on.idle_time()];
    for ((before, after), allowed) in before.into_iter().zip(after).zip(allowed) {
        assert!(after - before <= allowed, "{:?} in 2 s", after - before);
    }
    cluster.stop();
}

/// A primary with one worker whose event log is its standard output.
fn with_events_on_a_pipe(on: Pair) -> (Started, PathBuf) {
    let dir = temp_dir();
    let mut command = Command::new(on.binary());
    let bind = on.bind_options(&mut command);
    command.args(["run", "-w", "1"]).args(bind).args(["--events", "-", "--control"]);
    command.arg(dir.join("control")).args(on.demo_worker()).stdout(Stdio::piped());
    command.stderr(fs::File::create(dir.join("log")).unwrap());
    (Started::new(command, dir.clone()), dir)
}

fn a_reader_of_the_event_log_that_leaves_hurts_nobody(on: Pair) {
    let (mut primary, _) = with_events_on_a_pipe(on);
    let addr: SocketAddr = {
        use std::io::{BufRead, BufReader};
        let mut lines = BufReader::new(primary.child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next().unwrap().unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "bound" {
                break event["address"].as_str().unwrap().parse().unwrap();
            }
        }
    };
    for _ in 0..100 {
        get(addr, "/").pid();
    }
    primary.stop();
}

/// More than a pipe holds is written while nobody reads.
fn a_reader_of_the_event_log_that_sleeps_hurts_nobody(on: Pair) {
    let (primary, dir) = with_events_on_a_pipe(on);
    let addr: SocketAddr = wait_for("the listener", || {
        let log = fs::read_to_string(dir.join("log")).ok()?;
        log.lines().find_map(|line| line.split("listening on ").nth(1)?.parse().ok())
    });
    let outcomes: Vec<Outcome> = (0..1_000).map(|_| get(addr, "/")).collect();
    primary.stop();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ok(_))));
}

/// As on a full disk: what has room of a line is written, and what comes later waits for SIGUSR1.
fn a_log_that_could_grow_no_more_goes_on_with_a_line_of_its_own(on: Pair) {
    let mut command = Command::new("prlimit");
    command.arg("--fsize=6000:").arg(on.binary());
    let cluster = on.start_demo(command, &["-w", "1"]);
    cluster.ready(1);
    wait_for("the end of the log", || {
        cluster.get("/").pid();
        cluster.log().contains("the event log stops here: File too large").then_some(())
    });
    let text = || fs::read_to_string(cluster.dir.join("events")).unwrap();
    assert_eq!(text().len(), 6000);
    let mut room = Command::new("prlimit");
    room.args(["--fsize=unlimited:", "--pid"]).arg(cluster.pid().to_string());
    assert!(room.status().unwrap().success());
    cluster.signal(nix::sys::signal::Signal::SIGUSR1);
    let dropped = wait_for("what was dropped", || cluster.events_named("events_dropped").pop());
    assert!(dropped["count"].as_u64() > Some(0));
    cluster.get("/").pid();
    let after = wait_for("what comes then", || {
        let text = text();
        (text.lines().last()?.contains("accepted") && text.ends_with('\n')).then_some(text)
    });
    let is_half = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_err();
    assert!(after.lines().filter(is_half).count() <= 1, "{after}");
    assert!(!after.contains("\n\n"), "{after}");
    cluster.stop();
}

/// Neither by the mode of the socket nor, where somebody has loosened that, by its own look at
/// who asks.
fn another_user_is_told_nothing(on: Pair) {
    if !nix::unistd::geteuid().is_root() {
        pass_over("only root can be another user");
        return;
    }
    let cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    let (socket, binary) = (cluster.dir.join("control"), cluster.dir.join("roundel"));
    fs::copy(on.binary(), &binary).unwrap();
    for mode in [0o600, 0o666] {
        fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).unwrap();
        for question in [["status", "--json"].as_slice(), &["stop"]] {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
            let output = command.args(question).arg("--control").arg(&socket).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{question:?} with mode {mode:o}");
            assert!(output.stdout.is_empty());
            let error = String::from_utf8_lossy(&output.stderr);
            // It has run, and failed at the socket.
            assert!(error.starts_with("roundel"), "{error}");
        }
    }
    cluster.ready(1);
    assert_eq!(cluster.events_named("stopping").len(), 0);
    cluster.stop();
}
