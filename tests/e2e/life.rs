//! Crashes, restarts, and giving up.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use crate::harness::*;

/// Crashes a worker fifty times under load.
#[test]
fn every_crash_is_replaced_before_the_worker_is_gone() {
    let _load = alone();
    let cluster = Cluster::demo(&["-w", "3"]);
    cluster.ready(3);
    let base = cluster.total("open_fds");
    let mut crashes = 0;
    let outcomes = under_load(cluster.addr, 6, || {
        while crashes < 50 {
            if let Outcome::Ok(_) = cluster.get("/crash") {
                crashes += 1;
            }
            // Each crash in its own time: the next one when that worker is known to fail.
            wait_for("the suicide", || {
                (cluster.events_named("suicide").len() >= crashes).then_some(())
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
    // Whoever got no answer was at a worker that crashed: those it had accepted bound the number.
    let failing: Vec<&Value> =
        events.iter().filter(|e| e["event"] == "suicide").map(|e| &e["worker"]).collect();
    let lost = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Ok(_))).count();
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.iter().filter(|e| e["event"] == "accepted") {
        if failing.contains(&&event["worker"]) {
            *accepted.entry(event["worker"].to_string()).or_default() += 1;
        }
    }
    assert!(lost <= accepted.len(), "{lost} lost with {} crashing workers", accepted.len());
    assert_eq!(cluster.total("refused_total"), 0);
    cluster.ready(3);
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    assert_eq!(zombies(cluster.pid()), 0);
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
}

#[test]
fn a_panic_on_another_thread_replaces_the_worker() {
    let cluster = Cluster::run(&["-w", "1"], &[TEST_WORKER, "panic-thread"]);
    let first = cluster.ready(1)[0];
    assert_eq!(cluster.get("/").pid(), first, "what it has, it finishes");
    let second = cluster.get("/").pid();
    assert_ne!(first, second);
    let exited = wait_for("the end of the first", || {
        cluster.events_named("exited").into_iter().find(|event| event["pid"] == first)
    });
    assert_eq!(exited["status"]["code"], 101);
    cluster.stop();
}

fn roundel_run(args: &[&str]) -> Output {
    let dir = temp_dir();
    let control = dir.join("control");
    let mut command = Command::new(roundel());
    let output = command.arg(args[0]).arg("--control").arg(control).args(&args[1..]).output();
    std::fs::remove_dir_all(dir).unwrap();
    output.unwrap()
}

fn errors(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| !line.contains("control socket")).map(str::to_owned).collect()
}

#[test]
fn a_program_that_ends_at_once_is_given_up() {
    let begun = Instant::now();
    let output = roundel_run(&["run", "-w", "1", "--restart-intensity", "3/10", "false"]);
    assert_eq!(output.status.code(), Some(3));
    let errors = errors(&output);
    let delays: Vec<&str> =
        errors.iter().filter_map(|line| line.split("next worker in ").nth(1)).collect();
    assert_eq!(delays, ["100 ms", "200 ms", "400 ms"]);
    assert!(begun.elapsed().as_millis() >= 700);
    let last = errors.last().unwrap();
    assert!(last.contains("crash loop"), "{errors:?}");
}

#[test]
fn a_program_that_does_not_exist_is_one_line_and_127() {
    for workers in ["1", "4"] {
        let output = roundel_run(&["run", "-w", workers, "/nonexistent/program"]);
        assert_eq!(output.status.code(), Some(127));
        let errors = errors(&output);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("/nonexistent/program"), "{errors:?}");
    }
}

#[test]
fn a_port_in_use_is_one_line_and_4() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = roundel_run(&["demo", "-b", &addr]);
    assert_eq!(output.status.code(), Some(4));
    let errors = errors(&output);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(&addr) && errors[0].contains("in use"), "{errors:?}");
}

#[test]
fn a_program_that_is_its_own_primary() {
    let dir = temp_dir();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(single_binary());
    command.arg("127.0.0.1:0").env("TMPDIR", &dir).env_remove("XDG_RUNTIME_DIR").stderr(log);
    let mut child = command.spawn().unwrap();
    let addr: SocketAddr = wait_for("the listener", || {
        let log = std::fs::read_to_string(dir.join("log")).ok()?;
        log.lines().find_map(|line| line.split("listening on ").nth(1)?.parse().ok())
    });
    // It says its line without a request.
    let ask = || std::io::read_to_string(TcpStream::connect(addr).unwrap()).unwrap();
    // The second worker may still be starting when the first one answers.
    let first = ask();
    assert!(first.starts_with("worker "), "{first}");
    wait_for("the other worker", || (ask() != first).then_some(()));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn outside_a_cluster_the_program_binds_by_itself() {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(single_binary());
    command.arg("127.0.0.1:0").env("ALONE", "1").stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().rsplit(' ').next().unwrap();
    let answer = std::io::read_to_string(TcpStream::connect(addr).unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("worker 0 pid "), "{answer}");
}
