//! Workers that misbehave harm only themselves, and the log says what they did.

use crate::harness::*;

/// Slot 0 misbehaves; slot 1 must serve on, and slot 0 be ended for this reason.
fn ended_for(mode: &str, reason: &str) {
    let cluster = Cluster::run(&["-w", "2", "--drain-timeout", "1s"], &[HOSTILE_WORKER, mode]);
    let killed = wait_for(reason, || cluster.events_named("killing").into_iter().next());
    assert_eq!(killed["class"], "violations");
    assert_eq!(killed["reason"], reason);
    for _ in 0..20 {
        cluster.get("/").pid();
    }
    for exited in cluster.events_named("exited") {
        assert_eq!((&exited["slot"], &exited["class"]), (&0.into(), &"violations".into()));
    }
    assert_eq!(cluster.total("refused_total"), 0);
    assert_eq!(zombies(cluster.pid()), 0);
    cluster.stop();
}

#[test]
fn random_bytes() {
    ended_for("random", "unknown_codec");
}

#[test]
fn random_bodies_in_good_frames() {
    ended_for("random-bodies", "bad_message");
}

#[test]
fn another_protocol() {
    ended_for("http", "unknown_codec");
}

#[test]
fn json_that_is_none() {
    ended_for("node-garbage", "bad_message");
}

#[test]
fn a_line_of_100_mb() {
    let _load = alone();
    ended_for("node-long-line", "frame_too_long");
}

#[test]
fn a_thousand_brackets() {
    ended_for("node-deep", "nested_too_deep");
}

#[test]
fn refusals_of_handles_that_nobody_sent() {
    ended_for("node-nacks", "stray_messages");
}

#[test]
fn a_handle_on_a_line_that_says_nothing_of_it() {
    ended_for("node-handle-on-a-plain-line", "unexpected_handles");
}

#[test]
fn two_handles_on_one_line() {
    ended_for("node-two-handles", "unexpected_handles");
}

#[test]
fn another_version() {
    ended_for("bad-version", "bad_version");
}

#[test]
fn thousands_of_descriptors_before_anything_else() {
    let _load = alone();
    ended_for("descriptors-first", "unknown_codec");
}

#[test]
fn what_only_the_primary_may_say() {
    ended_for("newconn", "bad_message");
}

#[test]
fn a_wrong_hello() {
    ended_for("bad-hello", "bad_magic");
}

#[test]
fn a_frame_that_is_no_message() {
    ended_for("bad-message", "bad_message");
}

#[test]
fn a_huge_length() {
    ended_for("huge", "frame_too_long");
}

#[test]
fn half_a_message_then_silence() {
    ended_for("half", "frame_timeout");
}

#[test]
fn a_message_before_online() {
    ended_for("before-online", "unexpected_message");
}

#[test]
fn acks_that_answer_nothing() {
    ended_for("strays", "stray_messages");
}

#[test]
fn a_flood_of_valid_messages_is_only_slowed() {
    let _load = alone();
    let cluster = Cluster::run(&["-w", "2", "--drain-timeout", "1s"], &[HOSTILE_WORKER, "flood"]);
    cluster.ready(1);
    for _ in 0..200 {
        cluster.get("/").pid();
    }
    assert!(cluster.events_named("killing").is_empty());
    cluster.stop();
}

#[test]
fn descriptors_that_nobody_asked_for_are_discarded() {
    let _load = alone();
    let cluster =
        Cluster::run(&["-w", "2", "--drain-timeout", "1s"], &[HOSTILE_WORKER, "descriptors"]);
    cluster.ready(1);
    let base = cluster.total("open_fds");
    wait_for("the flood", || (cluster.events_named("pong").len() >= 2_000).then_some(()));
    assert!(cluster.total("open_fds") <= base);
    cluster.get("/").pid();
    cluster.stop();
}

#[test]
fn a_worker_that_never_reads_its_answers_costs_bounded_memory() {
    let _load = alone();
    let cluster = Cluster::run(&["-w", "2", "--drain-timeout", "1s"], &[HOSTILE_WORKER, "deaf"]);
    cluster.ready(1);
    for _ in 0..200 {
        cluster.get("/").pid();
    }
    assert!(cluster.total("rss_kb") < 32 * 1024);
    cluster.stop();
}

#[test]
fn a_worker_that_answers_nothing_is_killed_and_its_connection_served() {
    let cluster =
        Cluster::run(&["-w", "2", "--ack-timeout", "300ms"], &[TEST_WORKER, "never-take"]);
    cluster.ready(2);
    let outcomes: Vec<Outcome> = (0..4).map(|_| cluster.get("/")).collect();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ok(_))), "{outcomes:?}");
    let killed = wait_for("the kill", || cluster.events_named("killing").into_iter().next());
    assert_eq!(killed["class"], "unresponsive");
    assert!(cluster.total("redispatched_total") >= 1);
    cluster.stop();
}
