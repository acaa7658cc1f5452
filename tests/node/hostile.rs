//! Node programs that misbehave on their channel: it is the end of them, or nothing, and never
//! anybody else's matter.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::*;
use crate::harness::*;

/// A cluster of three of which one is to misbehave, with what the primary had open before.
struct Scene {
    cluster: Cluster,
    hostile: i32,
    base: usize,
}

fn misbehave(mode: &str) -> Option<Scene> {
    if beyond_node("it trusts its workers") {
        return None;
    }
    let cluster = fixture("hostile.js")?.workers(3).arg(mode).start();
    for _ in 0..30 {
        get(cluster.addr(0), "/").pid();
    }
    eventually("their end", || (cluster.count("accepted") == 30).then_some(()));
    let (hostile, base) = (cluster.ready(3)[0], open_fds(cluster.pid()));
    signal(hostile, Signal::SIGUSR2);
    Some(Scene { cluster, hostile, base })
}

impl Scene {
    /// All are served, nobody else has ended, and nothing is left over.
    fn leaves_the_others_alone(self) {
        let Scene { cluster, hostile, base } = self;
        let answers = plain_load(&[cluster.addr(0)], 2, 100);
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Ok { .. })), "{answers:?}");
        let pid = |event: &Value| event["pid"].as_i64();
        assert!(cluster.events("exited").iter().all(|it| pid(it) == Some(hostile.into())));
        cluster.ready(3);
        cluster.expect_descriptors(base);
        assert!(rss_kib(cluster.pid()) < 64 * 1024, "{} KiB", rss_kib(cluster.pid()));
        cluster.stop();
    }
}

/// It is ended, for this reason.
fn ends(mode: &str, reason: &str) {
    let Some(scene) = misbehave(mode) else { return };
    let killing = scene.cluster.event("killing", |event| event["pid"] == scene.hostile);
    assert_eq!((&killing["class"], &killing["reason"]), (&"violations".into(), &reason.into()));
    assert_eq!(scene.cluster.exit_of(scene.hostile)["class"], "violations");
    scene.leaves_the_others_alone();
}

/// It goes on, and serves.
fn lives(mode: &str) -> Option<Scene> {
    let scene = misbehave(mode)?;
    let addr = scene.cluster.addr(0);
    let answers = plain_load(&[addr], 1, 60);
    assert!(spread(&answers).contains_key(&scene.hostile), "{:?}", spread(&answers));
    assert_eq!((scene.cluster.count("killing"), scene.cluster.count("exited")), (0, 0));
    Some(scene)
}

#[test]
fn input_that_is_not_json() {
    ends("no-json", "bad_message");
}

#[test]
fn input_that_is_not_utf8() {
    ends("no-utf8", "bad_message");
}

#[test]
fn a_message_of_the_cluster_that_is_nested_deep() {
    ends("deep", "nested_too_deep");
}

#[test]
fn a_message_of_the_cluster_of_100_megabytes() {
    ends("long", "frame_too_long");
}

/// What a program says is no attack, whatever it is.
#[test]
fn messages_that_are_none() {
    let Some(scene) = lives("messages") else { return };
    let skipped = || scene.cluster.events("message_skipped");
    eventually("all of them", || (skipped().len() == 7).then_some(()));
    let reasons: Vec<Value> = skipped().iter().map(|event| event["reason"].clone()).collect();
    let not_json = "not_json";
    let wanted = [not_json, not_json, not_json, not_json, "not_utf8", "nested_too_deep", not_json];
    assert_eq!(reasons, wanted);
    scene.leaves_the_others_alone();
}

/// Each is a byte, and would be a hundred in the event log.
#[test]
fn a_hundred_thousand_empty_lines_are_not_told_one_by_one() {
    let Some(scene) = lives("blank") else { return };
    let total = || {
        let events = scene.cluster.events("message_skipped");
        events.iter().map(|event| 1 + event["untold"].as_u64().unwrap()).sum::<u64>()
    };
    // What came after the last event is told with the next one.
    eventually("most of them", || {
        signal(scene.hostile, Signal::SIGUSR2);
        (total() > 100_000).then_some(())
    });
    let told = scene.cluster.count("message_skipped");
    assert!(told < 500, "{told} events");
    scene.leaves_the_others_alone();
}

#[test]
fn a_message_of_100_megabytes() {
    let Some(scene) = lives("long-message") else { return };
    let skipped = scene.cluster.event("message_skipped", |_| true);
    assert_eq!((&skipped["reason"], &skipped["bytes"]), (&"too_long".into(), &100_000_100.into()));
    scene.leaves_the_others_alone();
}

#[test]
fn a_storm_of_handles_that_never_came() {
    ends("nacks", "stray_messages");
}

#[test]
fn a_storm_of_answers_to_nothing() {
    ends("acks", "stray_messages");
}

#[test]
fn one_answer_to_nothing_is_no_crime() {
    let Some(scene) = lives("one-ack") else { return };
    scene.leaves_the_others_alone();
}

#[test]
fn messages_unknown_to_the_primary() {
    let Some(scene) = lives("unknown") else { return };
    scene.leaves_the_others_alone();
}

#[test]
fn a_flood_of_messages_is_read_more_slowly() {
    let Some(scene) = misbehave("flood") else { return };
    let addr = scene.cluster.addr(0);
    // The program writes without a pause, and so answers no request meanwhile.
    let others = scene.cluster.ready(3);
    let served = spread(&plain_load(&[addr], 2, 50));
    assert!(others[1..].iter().all(|pid| served.contains_key(pid)), "{served:?}");
    scene.cluster.report(1);
    assert_eq!(scene.cluster.count("killing"), 0);
    scene.leaves_the_others_alone();
}

#[test]
fn handles_that_nobody_asked_for() {
    let Some(scene) = lives("handles") else { return };
    let came = || {
        let events = scene.cluster.events("user_message");
        events.iter().filter(|event| event["handle"] == true).count()
    };
    eventually("all handles", || (came() == 1_000).then_some(()));
    scene.leaves_the_others_alone();
}

/// What fits is served, and what does not is refused to the program, not held against it.
#[test]
fn one_that_asks_for_more_listeners_than_it_may_have_serves_with_those() {
    if beyond_node("it has no limit") {
        return;
    }
    let Some(setup) = fixture("failing.js") else { return };
    let cluster = setup.workers(1).arg("70").start();
    let refused = &cluster.report(1)[0]["refused"];
    assert_eq!(*refused, Value::from(vec!["EMFILE"; 6]));
    assert_eq!((cluster.count("bound"), cluster.count("killing")), (64, 0));
    get(cluster.addr(63), "/").pid();
    signal(cluster.pid(), Signal::SIGINT);
    signal(cluster.pid(), Signal::SIGINT);
}

/// A worker takes nearly all that its slot may have, says that it fails, and again.
#[test]
fn generations_of_failing_workers_never_hold_more_than_one_may() {
    if beyond_node("it has no limit") {
        return;
    }
    let Some(setup) = fixture("failing.js") else { return };
    let cluster = setup.workers(1).arg("63").start();
    for generation in 1..=16 {
        cluster.report(generation);
        let newest = cluster.bound(cluster.count("bound") - 1);
        assert!(matches!(get(reachable(&newest), "/"), Answer::Ok { .. }));
        eventually("its successor", || (cluster.count("ready") > generation).then_some(()));
    }
    cluster.with_events(|events| {
        let mut open: u32 = 0;
        for event in events {
            open += u32::from(event["event"] == "bound");
            open -= u32::from(event["event"] == "unbound");
            // Those of a slot that changes hands, until the old ones are closed.
            assert!(open <= 2 * 64, "{event}");
        }
    });
    assert_eq!(cluster.count("given_up"), 0);
    signal(cluster.pid(), Signal::SIGINT);
    signal(cluster.pid(), Signal::SIGINT);
}

/// 64 listeners are what a worker may have; what it asks for beyond them is refused.
#[test]
fn listeners_without_end() {
    let Some(scene) = lives("queries") else { return };
    eventually("as many as it may have", || (scene.cluster.count("bound") == 64).then_some(()));
    signal(scene.hostile, Signal::SIGKILL);
    scene.cluster.exit_of(scene.hostile);
    // They were its alone.
    eventually("their end", || (scene.cluster.count("unbound") == 63).then_some(()));
    scene.leaves_the_others_alone();
}
