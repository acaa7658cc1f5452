//! Workers are killed all the time, under load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::*;
use crate::harness::*;

/// Each 200 ms one of four workers is killed, while 32 clients send 20,000 requests. Under Node's
/// own primary, which hangs, it is over after 20 s, and only says what came of it.
#[test]
fn each_loss_is_one_that_a_killed_worker_had_accepted() {
    with_servers(1);
}

#[test]
fn so_it_is_with_two_servers() {
    with_servers(2);
}

fn with_servers(count: usize) {
    let _alone = alone();
    let Some(setup) = fixture("slow.js") else { return };
    // Not port 0: Node's own primary takes another one when all workers were gone.
    let addrs: Vec<SocketAddr> = (0..count).map(|_| unused_address()).collect();
    let setup = setup.workers(4).arg("2");
    let place = |setup: Setup, addr: &SocketAddr| {
        setup.arg(addr.ip().to_string()).arg(addr.port().to_string())
    };
    let cluster = addrs.iter().fold(setup, place).start();
    eventually("the listeners", || (cluster.count("bound") == count).then_some(()));
    let first = get(addrs[0], "/");
    if under() != Under::Node {
        eventually("its end", || (cluster.count("accepted") == 1).then_some(()));
    }
    let base = open_fds(cluster.pid());
    let begun = Instant::now();
    let mut next = begun;
    let mut kills = 0;
    let mut answers = load(&addrs, 32, 20_000, || {
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        if Instant::now() < next {
            return Load::GoOn;
        }
        next += Duration::from_millis(200);
        let serving = cluster.serving();
        // The log may be behind, and the worker gone.
        let victim = serving.get(kills % serving.len().max(1)).map(|pid| Pid::from_raw(*pid));
        kills += usize::from(victim.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok()));
        let enough = under() == Under::Node && begun.elapsed() > Duration::from_secs(20);
        if enough { Load::Enough } else { Load::GoOn }
    });
    let of_kind = |kind: &Answer| answers.iter().filter(|answer| *answer == kind).count();
    let (lost, hung) = (of_kind(&Answer::Lost), of_kind(&Answer::Hung));
    let refused = of_kind(&Answer::Refused);
    println!(
        "{kills} kills, {} requests: {lost} lost, {refused} refused, {hung} hung",
        answers.len()
    );
    if under() == Under::Node {
        println!("descriptors: {base} before, {} after", open_fds(cluster.pid()));
        return;
    }
    assert_eq!((answers.len(), refused, hung), (20_000, 0, 0));
    answers.push(first);
    let owed = owed(&cluster, &answers);
    assert_eq!(lost, owed, "lost, and what killed workers had accepted and did not answer");
    assert_eq!(cluster.count("refused"), 0);
    // On a quick machine it is over after 3 s.
    assert!(kills > 10, "only {kills} kills");
    cluster.ready(4);
    cluster.expect_descriptors(base);
    cluster.stop();
}

/// How many connections the workers accepted and did not answer. Fails if one that lives did, or if
/// a connection was accepted twice.
fn owed(cluster: &Cluster, answers: &[Answer]) -> usize {
    let number = |event: &Value, field: &str| event[field].as_u64().unwrap();
    let mut answered: BTreeMap<u64, usize> = BTreeMap::new();
    for answer in answers {
        if let Answer::Ok { pid, .. } = answer {
            *answered.entry(*pid as u64).or_default() += 1;
        }
    }
    let mut accepted: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for event in cluster.events("accepted") {
        let conn = number(&event, "conn");
        assert!(all.insert(conn), "connection {conn} was accepted twice");
        accepted.entry(number(&event, "worker")).or_default().insert(conn);
    }
    assert_eq!(all.len(), answers.len(), "each connection was accepted");
    let dead: BTreeSet<u64> =
        cluster.events("exited").iter().map(|event| number(event, "worker")).collect();
    let mut owed = 0;
    for event in cluster.events("spawned") {
        let (worker, pid) = (number(&event, "worker"), number(&event, "pid"));
        let accepted = accepted.get(&worker).map_or(0, BTreeSet::len);
        let answered = answered.get(&pid).copied().unwrap_or(0);
        assert!(accepted >= answered, "worker {worker} answered more than it accepted");
        assert!(accepted == answered || dead.contains(&worker), "worker {worker} owes answers");
        owed += accepted - answered;
    }
    owed
}
