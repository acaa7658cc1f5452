//! Programs for `child_process.fork` that know nothing of `cluster`.

use std::time::Duration;

use crate::client::*;
use crate::harness::*;

fn fork_model() -> Option<Cluster> {
    if beyond_node("the program itself has to do it there") {
        return None;
    }
    let setup = fixture("fork-worker.js")?.workers(3);
    Some(setup.options(&["--pass-server", "127.0.0.1:0"]).start())
}

#[test]
fn they_serve_from_the_socket_that_they_are_sent() {
    let Some(cluster) = fork_model() else { return };
    let (pids, addr) = (cluster.ready(3), cluster.addr(0));
    for _ in 0..50 {
        let answer = get(addr, "/");
        assert!(pids.contains(&answer.pid()));
        let environment: serde_json::Value = serde_json::from_str(answer.more()).unwrap();
        assert_eq!(environment.get("NODE_UNIQUE_ID"), None);
        assert_eq!(environment.get("NODE_APP_INSTANCE"), None, "node-config reads it");
    }
    cluster.stop();
}

/// The one that fails finishes what it has; its successor comes before it is gone.
#[test]
fn a_suicide_is_replaced_at_once() {
    let Some(cluster) = fork_model() else { return };
    let addr = cluster.addr(0);
    cluster.ready(3);
    let failing = get(addr, "/throw").pid();
    let answers = plain_load(&[addr], 3, 200);
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Ok { .. })), "{answers:?}");
    let exited = cluster.exit_of(failing);
    assert_eq!((&exited["class"], &exited["status"]["code"]), (&"crashed".into(), &1.into()));
    cluster.ready(3);
    cluster.with_events(|events| {
        let at = |name: &str, slot: &serde_json::Value, nth: usize| {
            let mut found = events
                .iter()
                .enumerate()
                .filter(|(_, event)| event["event"] == name && event["slot"] == *slot);
            found.nth(nth).unwrap().0
        };
        let replaced = at("spawned", &exited["slot"], 1);
        let gone = at("exited", &exited["slot"], 0);
        assert!(replaced < gone, "it was gone before its successor came");
    });
    assert_eq!(cluster.count("suicide"), 1);
    cluster.stop();
}

/// The listener is the primary's: its queue waits while nobody serves.
#[test]
fn connections_wait_while_all_restart() {
    let Some(cluster) = fork_model() else { return };
    let addr = cluster.addr(0);
    for pid in cluster.ready(3) {
        signal(pid, nix::sys::signal::Signal::SIGKILL);
    }
    let stream = send(addr, "/").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    receive(stream).pid();
    cluster.ready(3);
    cluster.stop();
}
