//! What programs say with `process.send` is no attack: the worker goes on, with what it has in
//! hand.

use serde_json::Value;

use crate::client::*;
use crate::harness::*;

/// Has a worker say something odd while it has a request in hand; then both serve on.
fn says(what: &str) -> Option<Cluster> {
    let cluster = fixture("speak.js")?.start();
    let pids = cluster.ready(2);
    assert!(pids.contains(&get(cluster.addr(0), &format!("/odd?{what}")).pid()));
    Some(cluster)
}

fn goes_on(cluster: Cluster) {
    let answers: Vec<Answer> = (0..10).map(|_| get(cluster.addr(0), "/")).collect();
    assert_even(&spread(&answers), &cluster.ready(2), 5);
    assert_eq!((cluster.count("killing"), cluster.count("exited")), (0, 0));
    cluster.stop();
}

/// The program says this, and it is passed over for that reason.
fn is_skipped(what: &str, reason: &str, with_handle: bool, bytes: std::ops::Range<u64>) {
    if beyond_node("it reads whatever comes") {
        return;
    }
    let Some(cluster) = says(what) else { return };
    let skipped = cluster.event("message_skipped", |_| true);
    assert_eq!((&skipped["reason"], &skipped["handle"]), (&reason.into(), &with_handle.into()));
    assert!(skipped["bytes"].as_u64().is_some_and(|count| bytes.contains(&count)), "{skipped}");
    let worker = cluster.event("online", |event| event["worker"] == skipped["worker"]);
    assert!(worker["pid"].is_number());
    assert_eq!(cluster.count("message_skipped"), 1);
    assert!(rss_kib(cluster.pid()) < 64 * 1024, "{} KiB", rss_kib(cluster.pid()));
    // What the program says next is heard: its channel is not stuck.
    get(cluster.addr(0), "/odd?odd").pid();
    get(cluster.addr(0), "/odd?odd").pid();
    eventually("what it says next", || {
        let over = |event: &Value| event["json"] == "over";
        let heard = cluster.events("user_message").into_iter().filter(over);
        (heard.count() == 2).then_some(())
    });
    goes_on(cluster);
}

#[test]
fn nine_megabytes() {
    is_skipped("long", "too_long", false, 9_000_002..9_000_003);
}

#[test]
fn arrays_in_arrays() {
    is_skipped("deep", "nested_too_deep", false, 258..259);
}

#[test]
fn a_field_that_is_nested_deep() {
    is_skipped("deep-field", "nested_too_deep", false, 1_000..1_100);
}

/// The worker waits for the answer to its handle before it says anything more.
#[test]
fn nine_megabytes_with_a_socket() {
    is_skipped("long-with-socket", "too_long", true, 9_000_000..9_000_200);
}

#[test]
fn arrays_in_arrays_with_a_socket() {
    is_skipped("deep-with-socket", "nested_too_deep", true, 400..500);
}

#[test]
fn odd_messages_are_messages() {
    if beyond_node("what its log has of them is not for every reader of JSON") {
        return;
    }
    let Some(cluster) = says("odd") else { return };
    cluster.event("user_message", |event| event["json"] == "over");
    assert_eq!((cluster.count("user_message"), cluster.count("message_skipped")), (23, 0));
    goes_on(cluster);
}

/// A line that is begun, and finished when the program has done its work of eleven seconds.
#[test]
fn a_message_may_take_its_time() {
    let Some(cluster) = says("work") else { return };
    cluster.event("user_message", |_| true);
    goes_on(cluster);
}

#[test]
fn a_server_whose_socket_was_sent_can_be_closed() {
    let Some(cluster) = says("socket-and-close") else { return };
    let closed = eventually("the end of the server", || {
        cluster.reports().into_iter().find(|report| report["closed"] == true)
    });
    let reports = cluster.reports();
    assert!(reports.iter().all(|report| report["error"].is_null()), "{reports:?}");
    // The other one serves alone.
    let answers: Vec<Answer> = (0..4).map(|_| get(cluster.addr(0), "/")).collect();
    assert!(answers.iter().all(|answer| i64::from(answer.pid()) != closed["pid"]), "{answers:?}");
    assert_eq!((cluster.count("killing"), cluster.count("exited")), (0, 0));
    cluster.stop();
}

#[test]
fn a_server_that_was_sent_can_be_closed() {
    if beyond_node("it serves as the worker did") {
        return;
    }
    let Some(cluster) = says("server-and-close") else { return };
    eventually("the end of the server", || (cluster.reports().len() == 1).then_some(()));
    cluster.event("user_message", |event| event["json"] == "over");
    goes_on(cluster);
}
