//! What programs say with `process.send`.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::client::*;
use crate::harness::*;

#[test]
fn messages_of_programs_are_in_the_event_log() {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.start();
    let pid = get(cluster.addr(0), "/send?hello").pid();
    let message = cluster.event("user_message", |_| true);
    assert_eq!(message["json"], json!({"text": "hello", "pid": pid}));
    let online = cluster.event("online", |event| event["pid"] == pid);
    assert_eq!(message["worker"], online["worker"]);
    cluster.stop();
}

#[test]
fn with_wait_ready_a_worker_serves_once_it_says_so() {
    if beyond_node("it has no such option") {
        return;
    }
    let Some(setup) = fixture("ready.js") else { return };
    let cluster = setup.options(&["--wait-ready"]).start_without_waiting();
    let pids: Vec<i32> =
        cluster.report(2).iter().map(|report| report["pid"].as_i64().unwrap() as i32).collect();
    let waiting = send(cluster.addr(0), "/").unwrap();
    assert_eq!(cluster.count("ready"), 0);
    signal(pids[1], Signal::SIGUSR2);
    assert_eq!(receive(waiting).pid(), pids[1]);
    for _ in 0..10 {
        assert_eq!(get(cluster.addr(0), "/").pid(), pids[1]);
    }
    signal(pids[0], Signal::SIGUSR2);
    cluster.ready(2);
    let answers: Vec<Answer> = (0..10).map(|_| get(cluster.addr(0), "/")).collect();
    assert_even(&spread(&answers), &pids, 5);
    cluster.stop();
}
