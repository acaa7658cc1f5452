//! What else happens while a reload is under way: deaths, and another number of workers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::switched::{Mode, Switched};
use crate::cells::{as_process_one, on_all};
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::{all_answered, expect_log_is_right, only_generation, reload};

on_all! {
    case_06_killed_workers_of_both_generations_cost_only_what_they_had,
    case_07_another_number_of_workers_waits_for_the_reload,
}

as_process_one! {
    case_06_killed_workers_of_both_generations_cost_only_what_they_had,
}

fn case_06_killed_workers_of_both_generations_cost_only_what_they_had(on: Pair) {
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
    expect_log_is_right(&cluster, Duration::from_millis(300));
    cluster.stop();
}

fn case_07_another_number_of_workers_waits_for_the_reload(on: Pair) {
    let program = Switched::new(on);
    let options = ["-w", "2", "--ready-hold", "0", "--reload-batch", "all"];
    let cluster = on.run(&options, &program.program());
    cluster.ready(2);
    let outcomes = under_load(cluster.addr, 2, || {
        for (generation, before, by) in [(2, 2_u64, -1), (3, 1, 2)] {
            program.set(Mode::Gated);
            thread::scope(|scope| {
                let reload = scope.spawn(|| reload(on, &cluster));
                wait_for("the reload", || {
                    let begun = cluster.events_named("reload_started").pop()?;
                    (begun["generation"] == generation).then_some(())
                });
                let mut scale = UnixStream::connect(cluster.dir.join("control")).unwrap();
                scale.set_read_timeout(Some(PATIENCE)).unwrap();
                writeln!(scale, r#"{{"command":"scale","by":{by}}}"#).unwrap();
                // Asked later, so the primary has read that one.
                let wanted = cluster.status()["primary"]["wanted"].as_u64().unwrap();
                assert_eq!(wanted, before, "the reload is not done");
                program.open();
                reload.join().unwrap();
                let answers = BufReader::new(scale).lines().map(Result::unwrap);
                let answer = answers.map(|line| serde_json::from_str::<Value>(&line).unwrap());
                let answer = answer.into_iter().find(|it| !it["ok"].is_null()).unwrap();
                assert_eq!(answer["ok"], true, "{answer}");
            });
            let after = before.checked_add_signed(by).unwrap() as usize;
            only_generation(&cluster, generation, after);
        }
    });
    all_answered(&outcomes);
    expect_log_is_right(&cluster, Duration::ZERO);
    cluster.stop();
}
