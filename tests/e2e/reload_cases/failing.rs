//! New workers that fail, or that take their time.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::switched::{Mode, Switched};
use crate::cells::on_all;
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::{all_answered, command, expect_log_is_right, only_generation, reload};

on_all! {
    case_02_new_code_that_fails_in_any_way_leaves_the_old_one_serving: one listener "it has two",
    case_03_a_good_reload_by_signal_follows_a_failed_one,
    case_08_nobody_waits_for_workers_that_boot_slowly: one listener "it tries one after the other",
}

/// Reloads, and fails unless that fails for this reason.
fn reload_fails(on: Pair, cluster: &Cluster, cause: &str) {
    let (code, printed, said) = command(on, cluster, &["reload"]);
    assert_eq!((code, printed.as_str()), (1, ""), "{cause}: {said}");
    assert!(said.contains(cause), "{cause}: {said}{}", cluster.log());
    let status = cluster.status();
    let last = status["reloads"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["result"], "failed");
    assert!(said.contains(last["cause"].as_str().unwrap()), "{last} {said}");
}

fn case_02_new_code_that_fails_in_any_way_leaves_the_old_one_serving(on: Pair) {
    let on = on.two();
    let program = Switched::new(on);
    let options = ["-w", "2", "--ready-timeout", "1500ms", "--reload-batch", "all"];
    let cluster = on.run(&options, &program.program());
    let old: BTreeSet<i32> = cluster.ready(2).into_iter().collect();
    let second = cluster.addr.all().last().unwrap();
    let outcomes = under_load(cluster.addr, 2, || {
        for (mode, cause) in [
            (Mode::Crashes, "ended (crashed, code 9)".to_owned()),
            (Mode::EndsSoon, "ended (killed, signal 9)".into()),
            (Mode::NeverListens, "did not listen on".into()),
            (Mode::ListensElsewhere, "did not listen on".into()),
            (Mode::LacksOne, format!("did not listen on {second} in time")),
        ] {
            program.set(mode);
            reload_fails(on, &cluster, &cause);
            let serving: BTreeSet<i32> = cluster.pids("ready").into_iter().collect();
            assert!(serving.is_superset(&old), "{mode:?}: {serving:?} {old:?}");
        }
        program.set(Mode::Good);
        reload(on, &cluster);
    });
    all_answered(&outcomes);
    let pids = only_generation(&cluster, 7, 2);
    assert!(pids.iter().all(|pid| !old.contains(pid)));
    assert_eq!(cluster.events_named("given_up").len(), 0);
    // What the failed ones listened on is closed.
    assert_eq!(cluster.status()["listeners"].as_array().unwrap().len(), 2);
    expect_log_is_right(&cluster, Duration::from_secs(1));
    cluster.expect_no_zombies();
    cluster.stop();
}

fn case_03_a_good_reload_by_signal_follows_a_failed_one(on: Pair) {
    let program = Switched::new(on);
    let cluster = on.run(&["-w", "2", "--ready-hold", "100ms"], &program.program());
    cluster.ready(2);
    let outcomes = under_load(cluster.addr, 2, || {
        program.set(Mode::Crashes);
        reload_fails(on, &cluster, "ended (crashed, code 9)");
        // By a signal it fails the same way, and says so in the log.
        cluster.signal(Signal::SIGHUP);
        wait_for("its failure", || {
            (cluster.events_named("reload_failed").len() == 2).then_some(())
        });
        program.set(Mode::Good);
        cluster.signal(Signal::SIGHUP);
        wait_for("a good one", || cluster.events_named("reload_done").pop());
    });
    all_answered(&outcomes);
    only_generation(&cluster, 4, 2);
    expect_log_is_right(&cluster, Duration::from_millis(100));
    cluster.stop();
}

/// How late each answer was to one who asks every 50 ms.
fn probed(cluster: &Cluster, act: impl FnOnce()) -> Vec<Duration> {
    thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let probe = scope.spawn(move || {
            let mut times = Vec::new();
            // Its pace. It ends when the other end is gone, by a panic too.
            while is_done.recv_timeout(Duration::from_millis(50))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let begun = Instant::now();
                let outcome = cluster.get("/");
                assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
                times.push(begun.elapsed());
            }
            times
        });
        act();
        drop(done);
        probe.join().unwrap()
    })
}

fn case_08_nobody_waits_for_workers_that_boot_slowly(on: Pair) {
    let _turn = alone();
    let program = Switched::new(on);
    let options = ["-w", "2", "--ready-timeout", "2s", "--ready-hold", "0"];
    let all = [&options[..], &["--reload-batch", "all"]].concat();
    let cluster = on.run(&all, &program.program());
    cluster.ready(2);
    let times = probed(&cluster, || {
        program.set(Mode::Boots(1.2));
        reload(on, &cluster);
        program.set(Mode::Boots(60.0));
        reload_fails(on, &cluster, "in time");
    });
    // Others use this machine too.
    let late = times.iter().filter(|it| **it > Duration::from_millis(250)).count();
    assert!(late <= 1 && times.len() > 20, "{times:?}");
    only_generation(&cluster, 2, 2);
    expect_log_is_right(&cluster, Duration::ZERO);
    cluster.stop();
}
