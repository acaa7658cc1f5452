//! What the primary tells the service manager.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::manager::Manager;
use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "it is about the service manager":
    the_manager_is_told_what_the_primary_does,
    case_14_the_manager_hears_the_end_of_each_reload,
    case_14_the_manager_hears_of_no_end_while_another_reload_waits,
    case_14_a_stop_ends_a_reload_before_the_manager_hears_of_it,
    the_primary_is_ready_when_all_workers_are,
    a_slot_that_is_given_up_does_not_keep_the_primary_from_being_ready,
    workers_that_do_not_listen_do_not_either,
    a_manager_that_reads_nothing_or_is_gone_changes_nothing,
    workers_do_not_get_what_was_meant_for_the_primary,
}

fn notifying(on: Pair, socket: &std::path::Path) -> Command {
    let mut command = Command::new(on.binary());
    command.env("NOTIFY_SOCKET", socket).env_remove("WATCHDOG_PID");
    command
}

fn the_manager_is_told_what_the_primary_does(on: Pair) {
    let manager = Manager::new();
    let mut command = notifying(on, manager.path());
    command.env("WATCHDOG_USEC", "100000");
    let mut cluster = on.start_demo(command, &["-w", "2", "--drain-timeout", "20s"]);
    manager.hears("READY=1");
    assert_eq!(cluster.pids("ready").len(), 2, "READY=1 comes when all are ready");
    manager.hears("STATUS=2 of 2 workers ready");
    // Again and again: each one at half of the time.
    manager.forget();
    let (begun, mut signs) = (Instant::now(), 0);
    wait_for("signs of life", || {
        signs += manager.heard().iter().filter(|it| *it == "WATCHDOG=1").count();
        manager.forget();
        (signs >= 10).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_millis(9 * 50), "not more often than asked for");

    cluster.signal(Signal::SIGHUP);
    let reloading = manager.hears("RELOADING=1");
    let usec: u64 = reloading
        .lines()
        .find_map(|it| it.strip_prefix("MONOTONIC_USEC="))
        .unwrap()
        .parse()
        .unwrap();
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now = Duration::from(now).as_micros() as u64;
    assert!(usec <= now && now - usec < 60_000_000, "{usec} at {now}");
    manager.hears("READY=1");

    cluster.signal(Signal::SIGTERM);
    let stopping = manager.hears("STOPPING=1");
    let usec: u64 = stopping
        .lines()
        .find_map(|it| it.strip_prefix("EXTEND_TIMEOUT_USEC="))
        .unwrap()
        .parse()
        .unwrap();
    assert!((20_000_000..40_000_000).contains(&usec), "{usec}");
    assert_eq!(cluster.wait(), 0);
    let heard = manager.heard();
    assert!(heard.iter().all(|text| text.lines().count() <= 3), "{heard:?}");
}

/// A primary with a configuration file and a program that both can be changed.
struct Changeable {
    manager: Manager,
    cluster: Cluster,
    dir: std::path::PathBuf,
}

impl Changeable {
    fn start(on: Pair) -> Changeable {
        let (manager, dir) = (Manager::new(), temp_dir());
        let (config, app) = (dir.join("c.toml"), dir.join("app"));
        fs::write(&config, "ready-hold = 0\n").unwrap();
        fs::write(&app, "exec \"$@\"\n").unwrap();
        let mut command = notifying(on, manager.path());
        let bind = on.bind_options(&mut command);
        let mut args = vec!["run", "-w", "1", "--config", config.to_str().unwrap()];
        args.extend(bind.iter().map(String::as_str));
        let program = ["sh", app.to_str().unwrap()].map(str::to_owned).into_iter();
        let program: Vec<String> = program.chain(on.demo_worker()).collect();
        let cluster = Cluster::start(command, &args, &program);
        manager.hears("READY=1");
        manager.forget();
        Changeable { manager, cluster, dir }
    }

    /// What was said of readiness, reloads and stops, without the rest of each message.
    fn heard(&self) -> Vec<String> {
        let heard = self.manager.heard().into_iter();
        let states = ["READY=1", "RELOADING=1", "STOPPING=1"];
        let first = heard.filter_map(|it| it.lines().next().map(str::to_owned));
        first.filter(|it| states.contains(&it.as_str())).collect()
    }
}

fn case_14_the_manager_hears_the_end_of_each_reload(on: Pair) {
    let it = Changeable::start(on);
    let (config, app) = (it.dir.join("c.toml"), it.dir.join("app"));
    for (file, text) in [
        (&app, "exec \"$@\"\n"),
        (&app, "exit 9\n"),
        (&config, "no-such-key = 1\n"),
        (&config, "ready-hold = 0\npolicy = \"shared\"\n"),
    ] {
        // As a whole: the last worker may still read the old one.
        fs::write(it.dir.join("next"), text).unwrap();
        fs::rename(it.dir.join("next"), file).unwrap();
        it.cluster.signal(Signal::SIGHUP);
        let said = it.manager.hears("RELOADING=1");
        assert!(said.contains("\nMONOTONIC_USEC="), "{said}");
        it.manager.hears("READY=1");
        assert_eq!(it.heard(), ["RELOADING=1", "READY=1"], "{text}");
        it.manager.forget();
    }
    it.cluster.stop();
    fs::remove_dir_all(it.dir).unwrap();
}

fn case_14_the_manager_hears_of_no_end_while_another_reload_waits(on: Pair) {
    let mut it = Changeable::start(on);
    // The first one is still held when the next one comes.
    fs::write(it.dir.join("c.toml"), "ready-hold = \"500ms\"\n").unwrap();
    it.cluster.signal(Signal::SIGHUP);
    wait_for("the first reload", || it.cluster.events_named("reload_started").pop());
    it.cluster.signal(Signal::SIGHUP);
    wait_for("both", || (it.cluster.events_named("reload_done").len() == 2).then_some(()));
    it.cluster.signal(Signal::SIGTERM);
    assert_eq!(it.cluster.wait(), 0);
    assert_eq!(it.heard(), ["RELOADING=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
    fs::remove_dir_all(it.dir).unwrap();
}

fn case_14_a_stop_ends_a_reload_before_the_manager_hears_of_it(on: Pair) {
    for at_once in [false, true] {
        let mut it = Changeable::start(on);
        fs::write(it.dir.join("next"), "exec sleep 1000\n").unwrap();
        fs::rename(it.dir.join("next"), it.dir.join("app")).unwrap();
        if at_once {
            // It finds both, so the stop comes before the configuration is read.
            it.cluster.signal(Signal::SIGSTOP);
        }
        it.cluster.signal(Signal::SIGHUP);
        if !at_once {
            wait_for("the reload", || it.cluster.events_named("reload_started").pop());
        }
        it.cluster.signal(Signal::SIGTERM);
        it.cluster.signal(Signal::SIGCONT);
        it.manager.hears("STOPPING=1");
        // Too late, so nothing is said about it.
        it.cluster.signal(Signal::SIGHUP);
        assert_eq!(it.cluster.wait(), 0);
        assert_eq!(it.heard(), ["RELOADING=1", "READY=1", "STOPPING=1"], "at once: {at_once}");
        fs::remove_dir_all(&it.dir).unwrap();
    }
}

fn the_primary_is_ready_when_all_workers_are(on: Pair) {
    let manager = Manager::new();
    let dir = temp_dir();
    let mut command = notifying(on, manager.path());
    let bind = on.bind_options(&mut command);
    let go = dir.join("go");
    command.env("GO", &go);
    let script = r#"[ "$ROUNDEL_SLOT" = 1 ] && until [ -e "$GO" ]; do sleep 0.01; done; exec "$@""#;
    let program = ["sh", "-c", script, "sh"].map(str::to_owned).into_iter();
    let program: Vec<String> = program.chain(on.demo_worker()).collect();
    let mut args = vec!["run", "-w", "2"];
    args.extend(bind.iter().map(String::as_str));
    let cluster = Cluster::start(command, &args, &program);
    // The status comes behind what it follows from.
    manager.hears("STATUS=1 of 2 workers ready");
    assert!(!manager.heard().iter().any(|it| it == "READY=1"), "{:?}", manager.heard());
    fs::write(go, "").unwrap();
    manager.hears("READY=1");
    assert_eq!(cluster.pids("ready").len(), 2);
    cluster.stop();
    fs::remove_dir_all(dir).unwrap();
}

fn a_slot_that_is_given_up_does_not_keep_the_primary_from_being_ready(on: Pair) {
    let manager = Manager::new();
    let mut command = notifying(on, manager.path());
    let bind = on.bind_options(&mut command);
    let script = r#"[ "$ROUNDEL_SLOT" = 0 ] && exit 1; exec "$@""#;
    let program = ["sh", "-c", script, "sh"].map(str::to_owned).into_iter();
    let program: Vec<String> = program.chain(on.demo_worker()).collect();
    let mut args = vec!["run", "-w", "2", "--restart-intensity", "0/10"];
    args.extend(bind.iter().map(String::as_str));
    let cluster = Cluster::start(command, &args, &program);
    manager.hears("READY=1");
    manager.hears("STATUS=1 of 2 workers ready, 1 given up or not listening");
    cluster.stop();
}

fn workers_that_do_not_listen_do_not_either(on: Pair) {
    let manager = Manager::new();
    let mut command = notifying(on, manager.path());
    command.args(["run", "-w", "1", "--ready-timeout", "200ms", "--drain-timeout", "1s"]);
    command.args(["--control", "off"]).args(on.test_worker(&["never-listen"]));
    let primary = Started::new(command, temp_dir());
    manager.hears("READY=1");
    primary.stop();
}

fn a_manager_that_reads_nothing_or_is_gone_changes_nothing(on: Pair) {
    let manager = Manager::new();
    for socket in [manager.path(), std::path::Path::new("/nonexistent/notify")] {
        let mut command = notifying(on, socket);
        // Some thousand messages, which nobody reads.
        command.env("WATCHDOG_USEC", "1000");
        let cluster = on.start_demo(command, &["-w", "2"]);
        let first = cluster.ready(2)[0];
        let outcomes = under_load(cluster.addr, 2, || {
            for _ in 0..20 {
                cluster.signal(Signal::SIGHUP);
            }
            wait_for("some time", || (cluster.total("accepted_total") > 500).then_some(()));
        });
        assert!(outcomes.iter().all(|it| matches!(it, Outcome::Ok(_))));
        assert!(is_running(first));
        cluster.stop();
    }
}

fn workers_do_not_get_what_was_meant_for_the_primary(on: Pair) {
    let manager = Manager::new();
    let dir = temp_dir();
    let mut command = notifying(on, manager.path());
    for name in ["WATCHDOG_USEC", "FDSTORE", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"] {
        command.env(name, "1");
    }
    command.env("WATCHDOG_PID", "1").env("LISTEN_PIDFDID", "1").env("KEPT", "1");
    command.args(["run", "-w", "1", "--control", "off", "sh", "-c"]);
    command.arg(r#"env > "$0.new"; mv "$0.new" "$0"; exec sleep 60"#).arg(dir.join("env"));
    let _primary = Started::new(command, dir.clone());
    let env = wait_for("a worker", || fs::read_to_string(dir.join("env")).ok());
    assert!(env.contains("KEPT=1\n") && env.contains("ROUNDEL_SLOT=0\n"), "{env}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_", "FDSTORE", "LISTEN_"] {
        assert!(!env.contains(name), "{name}: {env}");
    }
}
