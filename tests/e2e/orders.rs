//! How orders to a running primary are answered.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use roundel_tests::programs::observe::unused_address;

use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::command;

on_both! {
    "it asks the primary alone", one listener "it has its own":
    scale_answers_by_what_it_changed,
    a_request_that_waits_behind_another_is_told_so_at_once,
    workers_that_accept_by_themselves_can_not_be_paused,
    the_file_of_a_socket_follows_the_configuration,
    an_own_listener_in_the_way_is_named,
}

fn scale_answers_by_what_it_changed(on: Pair) {
    let script =
        r#"[ "$ROUNDEL_SLOT" = 1 ] && exit 4; [ "$ROUNDEL_SLOT" = 3 ] && exit 4; exec "$@""#;
    let program = ["sh", "-c", script, "sh"].map(str::to_owned).into_iter();
    let program: Vec<String> = program.chain(on.demo_worker()).collect();
    let options = ["-w", "2", "--restart-intensity", "0/100"];
    let cluster = on.run(&options, &program);
    cluster.ready(1);
    wait_for("a slot that is given up", || cluster.events_named("given_up").pop());
    let warning = "slot 1 is given up: its workers fail";
    let (code, printed, said) = command(on, &cluster, &["scale", "+1"]);
    assert!(code == 0 && said.contains(warning), "{said}");
    assert_eq!(printed, "3 workers, 2 before\n");
    let (code, _, said) = command(on, &cluster, &["scale", "3"]);
    assert!(code == 0 && said.contains(warning), "{said}");
    let (code, printed, said) = command(on, &cluster, &["scale", "+1"]);
    assert_eq!((code, printed.as_str()), (1, ""));
    let failure = "the primary says: slot 3 is given up: its workers fail; 4 workers stay wanted";
    assert!(said.ends_with(&format!("{failure}\n")), "{said}");
    let (code, printed, _) = command(on, &cluster, &["scale", "-3"]);
    assert_eq!((code, printed.as_str()), (0, "1 worker, 4 before\n"));
    let (code, _, said) = command(on, &cluster, &["scale", "-99"]);
    let cause = "from 1 by -99: there can be from 1 to 10000 workers";
    assert!(code == 1 && said.contains(cause), "{said}");
    cluster.stop();
}

fn a_request_that_waits_behind_another_is_told_so_at_once(on: Pair) {
    let dir = temp_dir();
    let app = dir.join("app");
    fs::write(&app, "exec \"$@\"\n").unwrap();
    let program = ["sh", app.to_str().unwrap()].map(str::to_owned).into_iter();
    let program: Vec<String> = program.chain(on.demo_worker()).collect();
    let mut cluster = on.run(&["-w", "1", "--drain-timeout", "1s"], &program);
    cluster.ready(1);
    fs::write(dir.join("next"), "exec sleep 1000\n").unwrap();
    fs::rename(dir.join("next"), &app).unwrap();
    let waits = serde_json::json!({"ready": 0, "wanted": 1});
    assert_eq!(cluster.ask(r#"{"command":"reload"}"#), Some(waits));
    wait_for("the reload", || cluster.events_named("reload_started").pop());
    let waits = serde_json::json!({"ready": 1, "wanted": 2});
    assert_eq!(cluster.ask(r#"{"command":"scale","by":1}"#), Some(waits));
    assert!(cluster.events_named("reload_failed").is_empty(), "the line came too late");
    cluster.signal(Signal::SIGQUIT);
    cluster.wait();
}

fn workers_that_accept_by_themselves_can_not_be_paused(on: Pair) {
    let cluster = on.demo(&["-w", "1", "--policy", "shared"]);
    cluster.ready(1);
    let (code, _, said) = command(on, &cluster, &["pause"]);
    assert!(code == 1 && said.contains("workers accept by themselves"), "{said}");
    assert_eq!(cluster.status()["primary"]["paused"], false);
    assert!(!cluster.log().contains("paused"), "{}", cluster.log());
    cluster.stop();
}

fn the_file_of_a_socket_follows_the_configuration(on: Pair) {
    let dir = temp_dir();
    let (file, path) = (dir.join("c.toml"), dir.join("s"));
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let write = |options: &str| {
        // The harness wants one that it can connect to.
        let bind = ["127.0.0.1:0".into(), format!("unix:{}{options}", path.display())];
        fs::write(&file, format!("workers = 1\nready-hold = 0\nbind = {bind:?}\n")).unwrap();
    };
    write(",mode=0600");
    let command_line = ["demo", "--config", file.to_str().unwrap()];
    let cluster = Cluster::start(Command::new(on.binary()), &command_line, &[]);
    cluster.ready(1);
    write(",mode=0666");
    let (code, would, said) = command(on, &cluster, &["reload", "--dry-run"]);
    assert!(code == 0 && would.contains("change mode, owner or group of unix:"), "{would}{said}");
    assert_eq!(mode(), 0o600);
    assert_eq!(command(on, &cluster, &["reload"]).0, 0);
    assert_eq!(mode(), 0o666);
    write("");
    for words in [&["reload", "--dry-run"][..], &["reload"]] {
        let (code, _, said) = command(on, &cluster, words);
        assert!(code == 1 && said.contains(": mode can't be left out while"), "{said}");
    }
    assert_eq!(mode(), 0o666);
    cluster.stop();
}

fn an_own_listener_in_the_way_is_named(on: Pair) {
    let dir = temp_dir();
    let file = dir.join("c.toml");
    let first = unused_address();
    let write = |bind: &str| {
        fs::write(&file, format!("workers = 1\nready-hold = 0\nbind = [{bind:?}]\n")).unwrap();
    };
    write(&first.to_string());
    let command_line = ["demo", "--config", file.to_str().unwrap()];
    let cluster = Cluster::start(Command::new(on.binary()), &command_line, &[]);
    cluster.ready(1);
    write(&format!("0.0.0.0:{}", first.port()));
    for words in [&["reload", "--dry-run"][..], &["reload"]] {
        let (code, _, said) = command(on, &cluster, words);
        let cause = format!("the primary's own listener {first} is in its way");
        assert!(code == 1 && said.contains(&cause), "{said}");
    }
    assert!(matches!(get(first, "/"), Outcome::Ok(_)));
    cluster.stop();
}
