//! Reloads: what clients see of them, and what operators do.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::addresses::Addresses;
use crate::cells::{as_process_one, on_all};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    reloads_one_after_the_other_lose_nobody,
    a_generation_that_fails_leaves_the_old_one_serving,
    killed_workers_of_both_generations_cost_only_what_they_had,
    the_program_is_found_anew,
    an_exclusive_program_ends_before_its_successor_starts,
}

as_process_one! {
    reloads_one_after_the_other_lose_nobody,
    killed_workers_of_both_generations_cost_only_what_they_had,
}

/// The exit code of a command to this primary, and what it printed on both outputs.
pub(crate) fn command(on: Pair, cluster: &Cluster, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(on.binary());
    command.args(words).arg("--control").arg(cluster.dir.join("control")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn reload(on: Pair, cluster: &Cluster) {
    let (code, _, said) = command(on, cluster, &["reload"]);
    assert_eq!(code, 0, "{said}{}", cluster.log());
}

/// Waits until only workers of this generation live.
fn only_generation(cluster: &Cluster, generation: u64, count: usize) -> Vec<i32> {
    wait_for("the old ones' end", || {
        let status = cluster.status();
        let workers = status["workers"].as_array().unwrap();
        let is_new = |worker: &Value| worker["generation"] == generation;
        let pid = |worker: &Value| i32::try_from(worker["pid"].as_i64().unwrap()).unwrap();
        (workers.len() == count && workers.iter().all(is_new))
            .then(|| workers.iter().map(pid).collect())
    })
}

/// Clients that connect, wait before they speak, and are answered.
fn patiently(addresses: Addresses, act: impl FnOnce()) -> Vec<Outcome> {
    thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let client = scope.spawn(move || {
            let mut outcomes = Vec::new();
            // Its pace, and the wait that is tested.
            let pause = Duration::from_millis(200);
            loop {
                let mut open: Vec<TcpStream> =
                    addresses.all().map(|addr| TcpStream::connect(addr).unwrap()).collect();
                let over = is_done.recv_timeout(pause).is_ok();
                for stream in &mut open {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                    stream.write_all(request).unwrap();
                }
                outcomes.extend(open.into_iter().map(receive));
                if over {
                    return outcomes;
                }
            }
        });
        act();
        done.send(()).unwrap();
        client.join().unwrap()
    })
}

fn all_answered(outcomes: &[Outcome]) {
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), outcomes.len());
    assert!(!outcomes.is_empty());
}

fn reloads_one_after_the_other_lose_nobody(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--ready-hold", "100ms"]);
    cluster.ready(2);
    let base = cluster.total("open_fds");
    let mut patient = Vec::new();
    let outcomes = under_load(cluster.addr, 4, || {
        patient = patiently(cluster.addr, || {
            (0..3).for_each(|_| reload(on, &cluster));
            cluster.signal(Signal::SIGHUP);
            wait_for("the fourth", || {
                (cluster.events_named("reload_done").len() == 4).then_some(())
            });
        });
    });
    all_answered(&outcomes);
    all_answered(&patient);
    only_generation(&cluster, 5, 2);
    let status = cluster.status();
    let reloads = status["reloads"].as_array().unwrap();
    assert_eq!(reloads.len(), 4);
    assert!(
        reloads.iter().all(|it| it["result"] == "done" && it["cause"].is_null()),
        "{reloads:?}"
    );
    assert_eq!(status["primary"]["generation"], 5);
    assert_eq!(cluster.total("refused_total"), 0);
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    cluster.expect_no_zombies();
    cluster.stop();
}

/// A program that does what a file says: it becomes the demo worker, unless it fails before.
fn switched(dir: &Path, on: Pair) -> Vec<String> {
    let mode = dir.join("mode");
    fs::write(&mode, "good").unwrap();
    let good = on.demo_worker();
    let script = r#"
        mode=$(cat "$1"); shift
        case $mode in
            boots-not) exit 9 ;;
            dies-soon) (sleep 0.4; kill -9 $$) & ;;
            never-listens) exec sleep 1000 ;;
        esac
        exec "$@""#;
    let words =
        ["sh".into(), "-c".into(), script.into(), "sh".into(), mode.to_str().unwrap().into()];
    words.into_iter().chain(good).collect()
}

fn a_generation_that_fails_leaves_the_old_one_serving(on: Pair) {
    let dir = temp_dir();
    let program = switched(&dir, on);
    let options = ["-w", "2", "--ready-timeout", "2s", "--reload-batch", "all"];
    let cluster = on.run(&options, &program);
    let old: BTreeSet<i32> = cluster.ready(2).into_iter().collect();
    let outcomes = under_load(cluster.addr, 2, || {
        for (mode, cause) in [
            ("boots-not", "ended (crashed, code 9)"),
            ("dies-soon", "ended (killed, signal 9)"),
            ("never-listens", "did not listen on"),
        ] {
            fs::write(dir.join("mode"), mode).unwrap();
            let (code, printed, said) = command(on, &cluster, &["reload"]);
            assert_eq!((code, printed.as_str()), (1, ""), "{mode}: {said}");
            assert!(said.contains(cause), "{mode}: {said}{}", cluster.log());
            let status = cluster.status();
            let last = status["reloads"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(last["result"], "failed");
            assert!(said.contains(last["cause"].as_str().unwrap()), "{last} {said}");
            let serving: BTreeSet<i32> = cluster.pids("ready").into_iter().collect();
            assert!(serving.is_superset(&old), "{mode}: {serving:?} {old:?}");
        }
        // The next one is good, asked for by a signal.
        fs::write(dir.join("mode"), "good").unwrap();
        cluster.signal(Signal::SIGHUP);
        wait_for("it", || cluster.events_named("reload_done").pop());
    });
    all_answered(&outcomes);
    let pids = only_generation(&cluster, 5, 2);
    assert!(pids.iter().all(|pid| !old.contains(pid)));
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
}

fn killed_workers_of_both_generations_cost_only_what_they_had(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--ready-hold", "300ms"]);
    cluster.ready(2);
    let clients = 4;
    let mut kills = 0;
    let outcomes = under_load(cluster.addr, clients, || {
        for _ in 0..4 {
            let before = cluster.events_named("reload_started").len();
            cluster.signal(Signal::SIGHUP);
            // One of each generation, while both live.
            for of_new in [false, true] {
                let pid = wait_for("one to kill", || {
                    let status = cluster.status();
                    let newest = status["reloads"].as_array()?.last()?["generation"].as_u64()?;
                    let workers = status["workers"].as_array()?.clone();
                    let is_it = |worker: &&Value| {
                        worker["state"] == "ready"
                            && (worker["generation"].as_u64() == Some(newest)) == of_new
                    };
                    let over = cluster.events_named("reload_started").len() > before
                        && status["reloads"].as_array()?.last()?["result"] != "running";
                    match workers.iter().find(is_it) {
                        Some(worker) => Some(worker["pid"].as_i64()),
                        None => over.then_some(None),
                    }
                });
                if let Some(pid) = pid {
                    let pid = i32::try_from(pid).unwrap();
                    kills += usize::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
                }
            }
            wait_for("its end", || {
                let status = cluster.status();
                let last = status["reloads"].as_array()?.last()?.clone();
                (cluster.events_named("reload_started").len() > before
                    && last["result"] != "running")
                    .then_some(())
            });
        }
    });
    assert!(kills > 0);
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.len() <= kills * clients, "{lost:?}");
    assert!(!lost.contains(&&Outcome::Refused), "{lost:?}");
    assert_eq!(cluster.total("refused_total"), 0);
    reload(on, &cluster);
    let generation = cluster.status()["primary"]["generation"].as_u64().unwrap();
    only_generation(&cluster, generation, 2);
    cluster.stop();
}

/// By a path that is relative, over a symbolic link that moves, of a file that is replaced.
fn the_program_is_found_anew(on: Pair) {
    let dir = temp_dir();
    let write = |release: &str| {
        let place = dir.join(release);
        fs::create_dir_all(&place).unwrap();
        let words: Vec<String> = on.demo_worker().iter().map(|word| format!("'{word}'")).collect();
        let script = format!("#!/bin/sh\nexport RELEASE={release}\nexec {}\n", words.join(" "));
        let temporary = place.join("new");
        fs::write(&temporary, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&temporary, mode).unwrap();
        fs::rename(&temporary, place.join("app")).unwrap();
    };
    let point_at = |release: &str| {
        let temporary = dir.join("next");
        symlink(dir.join(release), &temporary).unwrap();
        fs::rename(&temporary, dir.join("current")).unwrap();
    };
    write("one");
    point_at("one");
    // As a shell does it: the directory that it is in has the name by which it was entered.
    let mut start = Command::new(on.binary());
    start.current_dir(dir.join("current")).env("PWD", dir.join("current"));
    let bind = on.bind_options(&mut start);
    let mut words = vec!["run", "-w", "2", "--ready-hold", "0"];
    words.extend(bind.iter().map(String::as_str));
    let cluster = Cluster::start(start, &words, &["./app".to_owned()]);
    cluster.ready(2);
    let release_of = |pid: i32| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let value = environment.split('\0').find_map(|it| it.strip_prefix("RELEASE="));
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        (value.unwrap().to_owned(), cwd.file_name().unwrap().to_str().unwrap().to_owned())
    };
    write("two");
    point_at("two");
    reload(on, &cluster);
    for pid in only_generation(&cluster, 2, 2) {
        assert_eq!(release_of(pid), ("two".into(), "two".into()));
    }
    // Gone: an error that says so, and everything goes on. The old place is not used again.
    fs::remove_file(dir.join("two/app")).unwrap();
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert!(code == 1 && said.contains("app"), "{said}");
    all_answered(&[cluster.get("/")]);
    write("two");
    reload(on, &cluster);
    cluster.stop();
}

fn an_exclusive_program_ends_before_its_successor_starts(on: Pair) {
    let dir = temp_dir();
    let lock = dir.join("lock").to_str().unwrap().to_owned();
    let words = ["flock", "--nonblock", "--no-fork", &lock].map(str::to_owned);
    let program: Vec<String> = words.into_iter().chain(on.demo_worker()).collect();
    let options = ["-w", "1", "--ready-hold", "100ms", "--ready-timeout", "5s"];
    let cluster = on.run(&options, &program);
    let old = cluster.ready(1);
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert!(code == 1 && said.contains("code 1"), "two can't run at once: {said}");
    assert_eq!(cluster.pids("ready"), old);
    cluster.stop();
    let cluster = on.run(&[&options[..], &["--min-ready", "0"]].concat(), &program);
    let old = cluster.ready(1);
    // Nobody is refused meanwhile: those who come wait for the new one.
    let outcomes = under_load(cluster.addr, 2, || reload(on, &cluster));
    all_answered(&outcomes);
    assert_ne!(only_generation(&cluster, 2, 1), old);
    cluster.stop();
}
