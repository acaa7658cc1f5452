//! Crashes, restarts, and giving up.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    every_crash_is_replaced_before_the_worker_is_gone,
    a_panic_on_another_thread_replaces_the_worker: not Node "a panic hook is a thing of Rust",
    starts_keep_the_growing_distance,
    a_slot_that_is_given_up_leaves_the_others_alone,
    the_end_of_a_worker_is_shown_with_its_successor,
    workers_that_end_well_may_end_for_good,
}

on_both! {
    "its program is false(1), or none", one listener "nobody listens":
    a_program_that_ends_at_once_is_given_up,
    a_program_that_does_not_exist_is_one_line_and_127,
    a_port_in_use_is_one_line_and_4,
}

on_both! {
    "the program has its primary built in", one listener "the program binds what it likes":
    a_program_that_is_its_own_primary,
    outside_a_cluster_the_program_binds_by_itself,
}

/// Crashes a worker fifty times under load.
fn every_crash_is_replaced_before_the_worker_is_gone(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "3"]);
    cluster.ready(3);
    let base = cluster.total("open_fds");
    let mut crashes = 0;
    let outcomes = under_load(cluster.addr, 6, || {
        while crashes < 50 {
            let failing = cluster.get("/crash").pid();
            crashes += 1;
            // Each crash in its own time: the next one when that worker has finished.
            wait_for("its end", || {
                cluster.events_named("exited").into_iter().find(|event| event["pid"] == failing)
            });
        }
    });
    let events = cluster.events();
    let place = |name: &str, worker: &Value| {
        events.iter().position(|event| event["event"] == name && event["worker"] == *worker)
    };
    let spawned: Vec<(usize, &Value)> =
        events.iter().enumerate().filter(|(_, event)| event["event"] == "spawned").collect();
    let mut suicides = 0;
    for (at, event) in events.iter().enumerate().filter(|(_, e)| e["event"] == "suicide") {
        suicides += 1;
        let worker = &event["worker"];
        let slot = &spawned.iter().find(|(_, e)| e["worker"] == *worker).unwrap().1["slot"];
        let next = spawned.iter().find(|(place, e)| *place > at && e["slot"] == *slot);
        let next = next.unwrap_or_else(|| panic!("worker {worker} was not replaced")).0;
        if let Some(exit) = place("exited", worker) {
            assert!(next < exit, "worker {worker} was gone before its replacement came");
        }
    }
    assert_eq!(suicides, crashes);
    // The panic costs nobody but its own client: what else the worker has taken, it finishes.
    let lost: Vec<&Outcome> = outcomes.iter().filter(|o| !matches!(o, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{lost:?}");
    for exited in events.iter().filter(|e| e["event"] == "exited") {
        assert_eq!(
            (&exited["class"], &exited["status"]["code"]),
            (&"crashed".into(), &on.crash_code().into())
        );
    }
    assert_eq!(cluster.events_named("respawn_delayed").len(), 0);
    assert_eq!(cluster.total("refused_total"), 0);
    cluster.ready(3);
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    cluster.expect_no_zombies();
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
}

fn a_panic_on_another_thread_replaces_the_worker(on: Pair) {
    let cluster = on.run(&["-w", "1"], &on.test_worker(&["panic-thread"]));
    let first = cluster.ready(1)[0];
    assert_eq!(cluster.get("/").pid(), first, "what it has, it finishes");
    // Before the next request, which its replacement panics at: that one's needs room, and a
    // worker that is still leaving then is killed.
    let exited = wait_for("the end of the first", || {
        cluster.events_named("exited").into_iter().find(|event| event["pid"] == first)
    });
    assert_eq!(exited["status"]["code"], 101);
    assert_ne!(cluster.get("/").pid(), first);
    cluster.stop();
}

/// `roundel ARGS` to its end: its exit code, and what it said.
fn roundel_run(on: Pair, args: &[&str]) -> (i32, Vec<String>) {
    let dir = temp_dir();
    let mut command = Command::new(on.binary());
    command.arg(args[0]).arg("--control").arg(dir.join("control")).args(&args[1..]);
    let log = dir.join("log");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut primary = Started::new(command, dir);
    let (code, text) = (primary.wait(), fs::read_to_string(log).unwrap());
    let lines = text.lines().filter(|line| !line.contains("control socket"));
    (code, lines.map(str::to_owned).collect())
}

fn roundel_run_worker(on: Pair, args: &[&str], habits: &[&str]) -> (i32, Vec<String>) {
    let worker = on.test_worker(habits);
    let worker = worker.iter().map(String::as_str);
    roundel_run(on, &args.iter().copied().chain(worker).collect::<Vec<_>>())
}

fn a_program_that_ends_at_once_is_given_up(on: Pair) {
    let begun = Instant::now();
    let (code, errors) =
        roundel_run(on, &["run", "-w", "1", "--restart-intensity", "3/10", "false"]);
    assert_eq!(code, 3);
    let delays: Vec<&str> =
        errors.iter().filter_map(|line| line.split("next worker in ").nth(1)).collect();
    assert_eq!(delays, ["100 ms", "200 ms", "400 ms"]);
    assert!(begun.elapsed().as_millis() >= 700);
    let last = errors.last().unwrap();
    assert!(last.contains("crash loop"), "{errors:?}");
}

fn starts_keep_the_growing_distance(on: Pair) {
    let dir = temp_dir();
    let events = dir.join("events");
    let events_path = events.to_str().unwrap();
    let options = ["run", "-w", "2", "--events", events_path];
    assert_eq!(roundel_run_worker(on, &options, &["exit", "7"]).0, 3);
    let text = fs::read_to_string(&events).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for slot in 0..2 {
        let of = |name: &str, field: &str| -> Vec<u64> {
            let found = events.iter().filter(|e| e["event"] == name && e["slot"] == slot);
            found.map(|event| event[field].as_u64().unwrap()).collect()
        };
        let delays = of("respawn_delayed", "delay_ms");
        assert_eq!(delays, [100, 200, 400, 800, 1_600]);
        let starts = of("spawned", "at_ms");
        assert_eq!(starts.len(), 6);
        for (pair, delay) in starts.windows(2).zip(delays) {
            // The log counts whole milliseconds.
            assert!(pair[1] - pair[0] + 1 >= delay, "{starts:?}");
        }
        assert_eq!(of("given_up", "failures"), [6]);
    }
    fs::remove_dir_all(dir).unwrap();
}

fn a_slot_that_is_given_up_leaves_the_others_alone(on: Pair) {
    let args = ["-w", "2", "--restart-intensity", "2/10"];
    let cluster = on.run(&args, &on.test_worker(&["exit-first", "1"]));
    let given_up = wait_for("it", || cluster.events_named("given_up").into_iter().next());
    assert_eq!(given_up["slot"], 0);
    let pids = cluster.ready(1);
    for _ in 0..10 {
        assert_eq!(cluster.get("/").pid(), pids[0]);
    }
    cluster.stop();
}

fn the_end_of_a_worker_is_shown_with_its_successor(on: Pair) {
    let cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    let gone = cluster.get("/exit?code=7").pid();
    let status = wait_for("the successor", || {
        let status = cluster.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().find(|worker| worker["restarts"] == 1).cloned()
    });
    assert_eq!(status["last_exit"], "crashed (code 7)");
    cluster.ready(2);
    for _ in 0..4 {
        assert_ne!(cluster.get("/").pid(), gone);
    }
    cluster.stop();
}

fn workers_that_end_well_may_end_for_good(on: Pair) {
    let options = ["run", "-w", "2", "--respawn", "on-failure"];
    let (code, errors) = roundel_run_worker(on, &options, &["exit", "0"]);
    assert_eq!(code, 0, "{errors:?}");
}

fn a_program_that_does_not_exist_is_one_line_and_127(on: Pair) {
    for workers in ["1", "4"] {
        let (code, errors) = roundel_run(on, &["run", "-w", workers, "/nonexistent/program"]);
        assert_eq!(code, 127);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("/nonexistent/program"), "{errors:?}");
    }
}

fn a_port_in_use_is_one_line_and_4(on: Pair) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, errors) = roundel_run(on, &["demo", "-b", &addr]);
    assert_eq!(code, 4);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(&addr) && errors[0].contains("in use"), "{errors:?}");
}

fn a_program_that_is_its_own_primary(on: Pair) {
    let dir = temp_dir();
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(on.single_binary());
    command.arg("127.0.0.1:0").env("TMPDIR", &dir).env_remove("XDG_RUNTIME_DIR").stderr(log);
    let primary = Started::new(command, dir.clone());
    let addr: SocketAddr = wait_for("the listener", || {
        let log = fs::read_to_string(dir.join("log")).ok()?;
        log.lines().find_map(|line| line.split("listening on ").nth(1)?.parse().ok())
    });
    // It says its line without a request.
    let ask = || std::io::read_to_string(TcpStream::connect(addr).unwrap()).unwrap();
    // The second worker may still be starting when the first one answers.
    let first = ask();
    assert!(first.starts_with("worker "), "{first}");
    wait_for("the other worker", || (ask() != first).then_some(()));
    primary.stop();
}

fn outside_a_cluster_the_program_binds_by_itself(on: Pair) {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(on.single_binary());
    command.arg("127.0.0.1:0").env("ALONE", "1").stdout(Stdio::piped());
    let mut program = Started::new(command, temp_dir());
    let mut line = String::new();
    BufReader::new(program.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().rsplit(' ').next().unwrap();
    let answer = std::io::read_to_string(TcpStream::connect(addr).unwrap()).unwrap();
    assert!(answer.starts_with("worker 0 pid "), "{answer}");
}
