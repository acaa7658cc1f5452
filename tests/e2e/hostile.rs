//! Workers that misbehave harm only themselves, and the log says what they did.

use std::time::Duration;

use roundel_core::wire::VERSION;

use crate::cells::on_all;
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    a_worker_that_answers_nothing_is_killed_and_its_connection_served,
    random_bytes,
    random_bodies_in_good_frames,
    another_protocol,
    json_that_is_none,
    a_message_of_the_cluster_of_100_mb,
    a_message_of_a_program_of_100_mb,
    a_thousand_brackets_in_a_message_of_the_cluster,
    a_handle_with_each_byte,
    a_flood_byte_by_byte_is_only_slowed,
    refusals_of_handles_that_nobody_sent,
    a_handle_on_a_line_that_says_nothing_of_it,
    two_handles_on_one_line,
    workers_two_versions_newer_are_refused,
    a_worker_that_names_no_version_is_refused,
    a_worker_one_version_newer_serves: one listener "it listens on one",
    thousands_of_descriptors_before_anything_else,
    messages_reserved_for_the_primary,
    a_wrong_hello,
    a_frame_that_is_no_message,
    a_huge_length,
    half_a_message_then_silence,
    a_message_before_online,
    acks_that_answer_nothing,
    signs_of_life_that_nobody_asked_for,
    queries_that_fail_without_end,
    a_flood_of_valid_messages_is_only_slowed,
    descriptors_that_nobody_asked_for_are_discarded,
    a_worker_that_never_reads_its_answers_costs_bounded_memory,
}

/// Slot 0 misbehaves; slot 1 must serve on, and slot 0 be ended for this reason.
fn ended_for(on: Pair, mode: &str, reason: &str) {
    refused_for(on, mode, reason).stop();
}

/// The same while it runs.
fn refused_for(on: Pair, mode: &str, reason: &str) -> Cluster {
    let cluster = on.run(&["-w", "2", "--drain-timeout", "1s"], &on.beside_a_hostile_one(mode));
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
    cluster.expect_no_zombies();
    cluster
}

fn random_bytes(on: Pair) {
    ended_for(on, "random", "unknown_codec");
}

fn random_bodies_in_good_frames(on: Pair) {
    ended_for(on, "random-bodies", "bad_message");
}

fn another_protocol(on: Pair) {
    ended_for(on, "http", "unknown_codec");
}

fn json_that_is_none(on: Pair) {
    ended_for(on, "node-garbage", "bad_message");
}

fn a_message_of_the_cluster_of_100_mb(on: Pair) {
    let _load = alone();
    ended_for(on, "node-long-line", "frame_too_long");
}

/// Programs may say what they like: it is passed over, within bounded memory.
fn a_message_of_a_program_of_100_mb(on: Pair) {
    let _load = alone();
    let mode = on.beside_a_hostile_one("node-long-message");
    let cluster = on.run(&["-w", "2", "--drain-timeout", "1s"], &mode);
    let skipped =
        wait_for("the end of it", || cluster.events_named("message_skipped").into_iter().next());
    assert_eq!(skipped["reason"], "too_long");
    assert_eq!(skipped["bytes"], 100_007_938);
    assert!(cluster.total("rss_kb") < 40 * 1024);
    assert_eq!(cluster.total("messages_skipped_total"), 1);
    cluster.get("/").pid();
    assert!(cluster.events_named("killing").is_empty());
    cluster.stop();
}

fn a_handle_with_each_byte(on: Pair) {
    ended_for(on, "node-handle-each-byte", "too_many_handles");
}

fn a_flood_byte_by_byte_is_only_slowed(on: Pair) {
    let _load = alone();
    let mode = on.beside_a_hostile_one("bytes");
    let cluster = on.run(&["-w", "2", "--drain-timeout", "1s"], &mode);
    cluster.ready(1);
    for _ in 0..200 {
        cluster.get("/").pid();
    }
    assert!(cluster.events_named("killing").is_empty());
    cluster.stop();
}

fn a_thousand_brackets_in_a_message_of_the_cluster(on: Pair) {
    ended_for(on, "node-deep", "nested_too_deep");
}

fn refusals_of_handles_that_nobody_sent(on: Pair) {
    ended_for(on, "node-nacks", "stray_messages");
}

fn a_handle_on_a_line_that_says_nothing_of_it(on: Pair) {
    ended_for(on, "node-handle-on-a-plain-line", "unexpected_handles");
}

fn two_handles_on_one_line(on: Pair) {
    ended_for(on, "node-two-handles", "too_many_handles");
}

fn workers_two_versions_newer_are_refused(on: Pair) {
    let cluster = refused_for(on, "two-newer", "bad_version");
    cluster.said(&format!("(its version is {}, and that of this program {VERSION})", VERSION + 2));
    cluster.stop();
}

fn a_worker_that_names_no_version_is_refused(on: Pair) {
    ended_for(on, "no-version", "bad_version");
}

fn a_worker_one_version_newer_serves(on: Pair) {
    let cluster = on.run(&["-w", "2"], &on.beside_a_hostile_one("one-newer"));
    cluster.ready(2);
    let outcomes: Vec<Outcome> = (0..20).map(|_| cluster.get("/")).collect();
    let of_newer = |it: &&Outcome| matches!(it, Outcome::Ok(body) if body.starts_with("newer "));
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Ok(_))), "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(of_newer).count(), 10, "{outcomes:?}");
    cluster.stop();
}

fn thousands_of_descriptors_before_anything_else(on: Pair) {
    let _load = alone();
    ended_for(on, "descriptors-first", "unknown_codec");
}

fn messages_reserved_for_the_primary(on: Pair) {
    ended_for(on, "newconn", "bad_message");
}

fn a_wrong_hello(on: Pair) {
    ended_for(on, "bad-hello", "bad_magic");
}

fn a_frame_that_is_no_message(on: Pair) {
    ended_for(on, "bad-message", "bad_message");
}

fn a_huge_length(on: Pair) {
    ended_for(on, "huge", "frame_too_long");
}

fn half_a_message_then_silence(on: Pair) {
    ended_for(on, "half", "frame_timeout");
}

fn a_message_before_online(on: Pair) {
    ended_for(on, "before-online", "unexpected_message");
}

fn acks_that_answer_nothing(on: Pair) {
    ended_for(on, "strays", "stray_messages");
}

fn signs_of_life_that_nobody_asked_for(on: Pair) {
    ended_for(on, "pongs", "stray_messages");
}

/// For paths of half a megabyte, with line breaks in them. Neither log gets long.
fn queries_that_fail_without_end(on: Pair) {
    let _load = alone();
    let cluster =
        on.run(&["-w", "2", "--drain-timeout", "1s"], &on.beside_a_hostile_one("long-paths"));
    let killed = wait_for("its end", || cluster.events_named("killing").into_iter().next());
    assert_eq!(
        (&killed["class"], &killed["reason"]),
        (&"violations".into(), &"stray_messages".into())
    );
    for _ in 0..20 {
        cluster.get("/").pid();
    }
    let lines = cluster.log();
    let forged = |line: &str| line.starts_with("long");
    assert!(!lines.lines().any(forged) && lines.lines().all(|line| line.len() < 4_096));
    let events = std::fs::metadata(cluster.dir.join("events")).unwrap().len();
    let ended = cluster.events_named("exited").len() as u64;
    assert!(events < (ended + 2) * 1_024 * 1_024, "{events} bytes after {ended} workers");
    cluster.stop();
}

fn a_flood_of_valid_messages_is_only_slowed(on: Pair) {
    let _load = alone();
    let cluster = on.run(&["-w", "2", "--drain-timeout", "1s"], &on.beside_a_hostile_one("flood"));
    cluster.ready(1);
    for _ in 0..200 {
        cluster.get("/").pid();
    }
    assert!(cluster.events_named("killing").is_empty());
    cluster.stop();
}

fn descriptors_that_nobody_asked_for_are_discarded(on: Pair) {
    let _load = alone();
    let cluster =
        on.run(&["-w", "2", "--drain-timeout", "1s"], &on.beside_a_hostile_one("descriptors"));
    cluster.ready(1);
    let base = cluster.total("open_fds");
    // Once it has sent them all, it asks for a listener of its own.
    let bound = on.listeners + 1;
    wait_for("the flood", || (cluster.events_named("bound").len() == bound).then_some(()));
    // That listener, and nothing that was sent along.
    assert!(cluster.total("open_fds") <= base + 1);
    cluster.get("/").pid();
    cluster.stop();
}

fn a_worker_that_never_reads_its_answers_costs_bounded_memory(on: Pair) {
    let _load = alone();
    let cluster = on.run(&["-w", "2", "--drain-timeout", "1s"], &on.beside_a_hostile_one("deaf"));
    cluster.ready(1);
    for _ in 0..200 {
        cluster.get("/").pid();
    }
    assert!(cluster.total("rss_kb") < 32 * 1024);
    let before = cpu_time(cluster.pid());
    // The span over which the CPU is measured: what it says is left unread all the time.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_time(cluster.pid()) - before;
    assert!(used < Duration::from_millis(200), "{used:?} in 1 s");
    cluster.stop();
}

fn a_worker_that_answers_nothing_is_killed_and_its_connection_served(on: Pair) {
    let cluster = on.run(&["-w", "2", "--ack-timeout", "300ms"], &on.test_worker(&["never-take"]));
    cluster.ready(2);
    let outcomes: Vec<Outcome> = (0..4).map(|_| cluster.get("/")).collect();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ok(_))), "{outcomes:?}");
    let killed = wait_for("the kill", || cluster.events_named("killing").into_iter().next());
    assert_eq!(killed["class"], "unresponsive");
    assert!(cluster.total("redispatched_total") >= 1);
    cluster.stop();
}
