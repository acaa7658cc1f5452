//! The ways in which a worker leaves: how each is classified, and that nobody else notices.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::*;
use crate::harness::*;

/// Has one of two workers leave by this path, while clients ask: its exit has this class and
/// status, and of the requests only those are lost that it had accepted.
fn leaves_by(path: &str, class: &str, status: Value) {
    for servers in 1..=2 {
        leaves_with(servers, path, class, &status);
    }
}

fn leaves_with(servers: usize, path: &str, class: &str, status: &Value) {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.variable("SERVERS", servers.to_string()).start();
    let addrs: Vec<SocketAddr> = (0..servers).map(|nth| cluster.addr(nth)).collect();
    let addr = addrs[0];
    let leaving = get(addr, path).pid();
    let answers = plain_load(&addrs, 2, 200);
    let exited = cluster.exit_of(leaving);
    assert_eq!((&exited["class"], &exited["status"]), (&class.into(), status));
    let lost: Vec<&Answer> = answers.iter().filter(|it| !matches!(it, Answer::Ok { .. })).collect();
    let answered = |it: &&Answer| matches!(it, Answer::Ok { pid, .. } if *pid == leaving);
    let answered = 1 + answers.iter().filter(answered).count();
    if under() != Under::Node {
        let accepted = cluster.events("accepted");
        let accepted = accepted.iter().filter(|it| it["worker"] == exited["worker"]).count();
        assert_eq!(lost.len(), accepted - answered, "{lost:?}");
    }
    // Each client waits for one answer at a time. Node's own primary leaves some waiting for ever.
    let ended = |it: &&Answer| **it == Answer::Lost || under() == Under::Node;
    let few = lost.len() <= 2 || under() == Under::Node;
    assert!(few && lost.iter().all(ended), "{lost:?}");
    let pids = cluster.ready(2);
    assert!(!pids.contains(&leaving));
    let after: Vec<Answer> = (0..12).map(|n| get(addrs[n % servers], "/")).collect();
    assert_even(&spread(&after), &pids, 6);
    cluster.stop();
}

#[test]
fn worker_disconnect() {
    leaves_by("/worker-disconnect", "voluntary", json!({"code": 0}));
}

#[test]
fn worker_kill() {
    if beyond_node("a connection handed off after the worker's last word makes it crash") {
        return;
    }
    leaves_by("/worker-kill", "voluntary", json!({"code": 0}));
}

#[test]
fn an_exit_with_a_code() {
    leaves_by("/exit?7", "crashed", json!({"code": 7}));
}

#[test]
fn an_exit_without_a_fault() {
    leaves_by("/exit?0", "clean", json!({"code": 0}));
}

#[test]
fn an_exception_that_nobody_catches() {
    leaves_by("/throw", "crashed", json!({"code": 1}));
}

/// Node ends a worker whose channel has closed.
#[test]
fn a_channel_that_the_worker_closes() {
    leaves_by("/process-disconnect", "clean", json!({"code": 0}));
}

/// Its process goes on, as it may have other things to do.
#[test]
fn a_worker_that_closes_its_server_gets_nothing_more() {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.start();
    let addr = cluster.addr(0);
    let closed = get(addr, "/close").pid();
    let answers = plain_load(&[addr], 2, 100);
    let other = cluster.ready(2).into_iter().find(|pid| *pid != closed).unwrap();
    // Until the primary has read of it, connections come back and go to the other worker.
    assert_even(&spread(&answers), &[other], 100);
    assert!(is_alive(closed));
    assert_eq!(cluster.count("exited"), 0);
    cluster.stop();
}

/// Nobody would serve in its place, or for ever wait for it.
#[test]
fn one_that_never_served_and_lives_on_without_its_channel_makes_room() {
    if beyond_node("it does not replace workers") {
        return;
    }
    let Some(setup) = fixture("silent-first.js") else { return };
    let cluster = setup.workers(1).start();
    let answer = get(cluster.addr(0), "/");
    assert_eq!(vec![answer.pid()], cluster.ready(1));
    let exited = cluster.event("exited", |it| it["worker"] == 1);
    assert_eq!(
        (&exited["class"], &exited["status"]),
        (&"never_ready".into(), &json!({"signal": 9}))
    );
    cluster.stop();
}
