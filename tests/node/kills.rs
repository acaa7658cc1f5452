//! Workers that are killed while they have connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

#[test]
fn a_stopped_worker_that_is_killed_loses_nothing() {
    if beyond_node("the connection that it had is never answered") {
        return;
    }
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.workers(3).start();
    let (stopped, addr) = (cluster.ready(3)[0], cluster.addr(0));
    signal(stopped, Signal::SIGSTOP);
    let streams: Vec<_> = (0..60).map(|_| send(addr, "/").unwrap()).collect();
    // What the stopped worker has in flight is its window; all else is served meanwhile.
    eventually("the others to serve the rest", || {
        (cluster.count("accepted") >= 60 - 4).then_some(())
    });
    signal(stopped, Signal::SIGKILL);
    for stream in streams {
        assert_ne!(receive(stream).pid(), stopped);
    }
    let exited = cluster.exit_of(stopped);
    assert_eq!((&exited["class"], &exited["status"]["signal"]), (&"killed".into(), &9.into()));
    assert!(cluster.count("redispatched") > 0);
    cluster.stop();
}

/// Each 200 ms one of four workers is killed, while 32 clients send 20,000 requests.
#[test]
fn churn() {
    if beyond_node("after some kills all clients wait for ever") {
        return;
    }
    let _alone = alone();
    let Some(setup) = fixture("slow.js") else { return };
    let cluster = setup.workers(4).arg("2").start();
    let addr = cluster.addr(0);
    get(addr, "/").pid();
    let base = open_fds(cluster.pid());
    let mut next = Instant::now();
    let mut kills = 0;
    let answers = load(addr, 32, 20_000, |_| {
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        next += Duration::from_millis(200);
        let serving = cluster.serving();
        if !serving.is_empty() {
            signal(serving[kills % serving.len()], Signal::SIGKILL);
            kills += 1;
        }
    });
    let unanswered = answers.iter().filter(|it| !matches!(it, Answer::Ok { .. })).count();
    println!("{kills} kills, {} answers, {unanswered} lost", answers.len() - unanswered);
    assert_eq!(answers.len(), 20_000);
    // Each was connected, and ended.
    let strange = answers.iter().find(|it| !matches!(it, Answer::Ok { .. } | Answer::Lost));
    assert_eq!(strange, None);
    // Lost is what a killed worker had accepted and had no time to answer, and nothing else.
    let mut workers: BTreeMap<u64, i64> = BTreeMap::new();
    let mut accepted: BTreeMap<u64, usize> = BTreeMap::new();
    for event in cluster.events("spawned") {
        workers.insert(event["worker"].as_u64().unwrap(), event["pid"].as_i64().unwrap());
    }
    for event in cluster.events("accepted") {
        *accepted.entry(event["worker"].as_u64().unwrap()).or_default() += 1;
    }
    let mut answered: BTreeMap<i64, usize> = BTreeMap::new();
    for answer in &answers {
        if let Answer::Ok { pid, .. } = answer {
            *answered.entry((*pid).into()).or_default() += 1;
        }
    }
    let ended: Vec<i64> =
        cluster.events("exited").iter().filter_map(|event| event["pid"].as_i64()).collect();
    let mut owed = 0;
    for (worker, accepted) in accepted {
        let pid = workers[&worker];
        let rest = accepted - answered.get(&pid).copied().unwrap_or(0).min(accepted);
        if ended.contains(&pid) {
            owed += rest;
        } else {
            assert!(rest <= 1, "worker {worker} lives, and owes {rest} answers");
        }
    }
    assert!(unanswered <= owed, "{unanswered} lost, {owed} accepted by killed workers");
    assert_eq!(cluster.count("refused"), 0);
    assert!(kills > 10, "only {kills} kills");
    cluster.ready(4);
    eventually("descriptors back to base", || (open_fds(cluster.pid()) == base).then_some(()));
    cluster.stop();
}
