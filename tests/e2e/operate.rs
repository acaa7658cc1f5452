//! What operators do to a running primary, reloads apart.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use roundel_tests::programs::observe::unused_address;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::command;

on_all! {
    workers_are_added_and_taken_away,
    a_pause_lets_clients_wait,
    workers_are_replaced_after_so_many_requests,
    workers_that_grow_are_replaced,
    case_16_a_stop_serves_on_for_its_delay,
    a_stopped_worker_misses_its_heartbeat: not Node "only native workers are asked",
    a_reload_reads_the_configuration_again: one listener "the file has its own",
}

on_both! {
    "the workers are the demo's", one listener "it has its own":
    binds_follow_the_configuration,
    a_program_that_must_say_that_it_is_ready_does,
}

fn a_program_that_must_say_that_it_is_ready_does(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--wait-ready"]);
    cluster.ready(2);
    get(cluster.addr, "/").pid();
    cluster.stop();
}

fn scale(on: Pair, cluster: &Cluster, how: &str) -> (i32, String) {
    let (code, printed, said) = command(on, cluster, &["scale", how]);
    (code, printed + &said)
}

fn workers_are_added_and_taken_away(on: Pair) {
    let cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    let outcomes = under_load(cluster.addr, 2, || {
        let (code, said) = scale(on, &cluster, "+2");
        assert!(code == 0 && said.contains("4 workers, 2 before"), "{said}");
        // It answers when they are there.
        assert_eq!(cluster.pids("ready").len(), 4);
        assert_eq!(scale(on, &cluster, "1").0, 0);
        cluster.ready(1);
        cluster.signal(Signal::SIGTTIN);
        cluster.ready(2);
        cluster.signal(Signal::SIGTTOU);
        cluster.ready(1);
        assert_eq!(scale(on, &cluster, "3").0, 0);
        assert_eq!(scale(on, &cluster, "-1").0, 0);
        cluster.ready(2);
    });
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let (code, said) = scale(on, &cluster, "-2");
    assert!(code == 1 && said.contains("from 1 to 10000"), "{said}");
    for wrong in ["0", "+0", "many", "10001", ""] {
        assert_eq!(scale(on, &cluster, wrong).0, 2, "{wrong}");
    }
    assert_eq!(cluster.status()["primary"]["wanted"], 2);
    cluster.stop();
}

fn a_pause_lets_clients_wait(on: Pair) {
    let cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    assert_eq!(command(on, &cluster, &["pause"]).0, 0);
    assert_eq!(cluster.status()["primary"]["paused"], true);
    let mut waiting: Vec<TcpStream> = (0..6).map(|_| send(cluster.addr, "/").unwrap()).collect();
    // That nothing comes can only be waited for.
    let first = &mut waiting[0];
    first.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let read = std::io::Read::read(first, &mut [0]);
    assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(cluster.total("accepted_total"), 0);
    assert_eq!(command(on, &cluster, &["resume"]).0, 0);
    for stream in waiting {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    cluster.stop();
}

fn workers_are_replaced_after_so_many_requests(on: Pair) {
    let options = ["-w", "2", "--max-requests", "20", "--max-requests-jitter", "10"];
    let cluster = on.demo(&[&options[..], &["--ready-hold", "0"]].concat());
    let first = cluster.ready(2);
    let outcomes = under_load(cluster.addr, 2, || {
        wait_for("four replacements", || {
            (cluster.events_named("recycled").len() >= 4).then_some(())
        });
    });
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(cluster.ready(2).iter().all(|pid| !first.contains(pid)));
    assert_eq!(cluster.events_named("recycle_failed").len(), 0);
    cluster.stop();
}

fn workers_that_grow_are_replaced(on: Pair) {
    // Each is larger than that from the start, so each is replaced by and by.
    let cluster = on.demo(&["-w", "1", "--max-memory", "1MiB", "--ready-hold", "0"]);
    let first = cluster.ready(1);
    wait_for("its replacement", || cluster.events_named("recycled").pop());
    wait_for("another worker", || {
        let pids = cluster.pids("ready");
        (!pids.is_empty() && pids != first).then_some(())
    });
    assert!(matches!(cluster.get("/"), Outcome::Ok(_)));
    cluster.stop();
}

fn case_16_a_stop_serves_on_for_its_delay(on: Pair) {
    let mut cluster = on.demo(&["-w", "1", "--shutdown-delay", "1s", "--drain-settle", "0"]);
    cluster.ready(1);
    let begun = Instant::now();
    cluster.signal(Signal::SIGTERM);
    wait_for("it to stop", || cluster.status()["primary"]["stopping"].as_bool()?.then_some(()));
    let outcome = cluster.get("/");
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    assert_eq!(cluster.wait(), 0);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    cluster.expect_nothing_left();
}

fn a_stopped_worker_misses_its_heartbeat(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--heartbeat", "200ms"]);
    let pids = cluster.ready(2);
    kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
    let exit = wait_for("its end", || cluster.events_named("exited").pop());
    assert_eq!((&exit["pid"], &exit["class"]), (&pids[0].into(), &"unresponsive".into()));
    cluster.ready(2);
    // The other one answers.
    assert!(cluster.pids("ready").contains(&pids[1]));
    cluster.stop();
}

/// Its number of workers, their environment and its binds change; one that can't be opened, or an
/// option that is wrong or can't change, changes nothing.
fn a_reload_reads_the_configuration_again(on: Pair) {
    let dir = temp_dir();
    let file = dir.join("c.toml");
    let write = |workers: u32, greeting: &str, more: &str| {
        let text = format!("workers = {workers}\n{more}\n[env]\nGREETING = {greeting:?}\n");
        fs::write(&file, text).unwrap();
    };
    write(1, "hello", "");
    let options = ["--config", file.to_str().unwrap(), "--ready-hold", "0"];
    let cluster = on.run(&options, &on.demo_worker());
    let greeting = |pid: i32| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let value = environment.split('\0').find_map(|it| it.strip_prefix("GREETING="));
        value.unwrap().to_owned()
    };
    assert_eq!(greeting(cluster.ready(1)[0]), "hello");
    write(3, "welcome", "drain-timeout = \"7s\"");
    let (code, would, _) = command(on, &cluster, &["reload", "--dry-run"]);
    assert!(code == 0 && would.contains("keep 3 workers"), "{would}");
    assert_eq!(cluster.status()["reloads"].as_array().unwrap().len(), 0);
    assert_eq!(command(on, &cluster, &["reload"]).0, 0);
    let pids = cluster.ready(3);
    assert!(pids.into_iter().all(|pid| greeting(pid) == "welcome"));
    for (more, cause) in [
        ("windowe = 3", "c.toml:2: unknown key"),
        ("policy = \"shared\"", "--policy can't change while the primary runs"),
        ("codec = \"node\"", "--codec can't change while the primary runs"),
        ("cwd = \"/no-such-place\"", "c.toml:2: cwd"),
    ] {
        write(2, "bye", more);
        for words in [&["reload", "--dry-run"][..], &["reload"]] {
            let (code, _, said) = command(on, &cluster, words);
            assert!(code == 1 && said.contains(cause), "{said}");
        }
    }
    assert_eq!(cluster.status()["primary"]["generation"], 2);
    assert!(matches!(cluster.get("/"), Outcome::Ok(_)));
    cluster.stop();
}

/// With native workers, which listen on what the operator gives them.
fn binds_follow_the_configuration(on: Pair) {
    let dir = temp_dir();
    let file = dir.join("c.toml");
    let [first, second] = [(); 2].map(|()| unused_address());
    let write = |binds: &[SocketAddr]| {
        let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
        fs::write(&file, format!("workers = 2\nready-hold = 0\nbind = {binds:?}\n")).unwrap();
    };
    write(&[first]);
    let options = ["--config", file.to_str().unwrap()];
    let mut command_line = vec!["demo"];
    command_line.extend(options);
    let cluster = Cluster::start(Command::new(on.binary()), &command_line, &[]);
    cluster.ready(2);
    // A port that is taken: nothing changes.
    let taken = TcpListener::bind(second).unwrap();
    write(&[first, second]);
    let old = cluster.pids("ready");
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert!(code == 1 && said.contains(&format!("cannot bind {second}")), "{said}");
    assert_eq!(cluster.pids("ready"), old);
    assert_eq!(cluster.status()["listeners"].as_array().unwrap().len(), 1);
    drop(taken);
    // One is added, and one is dropped.
    assert_eq!(command(on, &cluster, &["reload"]).0, 0);
    for address in [first, second] {
        assert!(matches!(get(address, "/"), Outcome::Ok(_)));
    }
    write(&[second]);
    let (code, would, _) = command(on, &cluster, &["reload", "--dry-run"]);
    assert!(code == 0 && would.contains(&format!("stop listening on {first}")), "{would}");
    assert_eq!(command(on, &cluster, &["reload"]).0, 0);
    assert!(matches!(get(second, "/"), Outcome::Ok(_)));
    wait_for("the first one's end", || (get(first, "/") == Outcome::Refused).then_some(()));
    cluster.stop();
}
