//! How connections are distributed, under load and under kills.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{on_all, skip};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    a_thousand_connections_spread_exactly,
    a_blocked_worker_holds_up_one_connection_at_most,
    a_stopped_worker_that_is_killed_loses_nothing,
    with_all_workers_killed_connections_wait,
    connections_that_come_while_no_worker_lives_are_served,
    under_load_the_death_of_all_workers_refuses_nobody,
    a_grandchild_that_holds_the_channel_does_not_hold_up_redispatch,
    a_primary_that_was_stopped_kills_nobody_for_it,
    a_primary_that_was_stopped_reads_answers_before_the_clock,
    ab_sees_no_failure,
}

fn spread(outcomes: &[Outcome]) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome.pid()).or_default() += 1;
    }
    counts
}

fn a_thousand_connections_spread_exactly(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "4"]);
    let pids = cluster.ready(4);
    let outcomes: Vec<Outcome> = (0..1_000).map(|_| cluster.get("/")).collect();
    let counts = spread(&outcomes);
    assert_eq!(counts, pids.into_iter().map(|pid| (pid, 250)).collect());
    cluster.stop();
}

fn a_blocked_worker_holds_up_one_connection_at_most(on: Pair) {
    let _load = alone();
    // The others take 5 ms each, so that they, and not the cores of this machine, set the pace.
    let cluster = on.run(&["-w", "4"], &on.test_worker(&["block", "200", "5"]));
    let pids = cluster.ready(4);
    let outcomes = under_load(cluster.addr, 8, || {
        wait_for("enough of them", || (cluster.total("accepted_total") > 3_000).then_some(()));
    });
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ok(_))));
    let counts = spread(&outcomes);
    let of = |pid| counts.get(pid).copied().unwrap_or(0);
    let (least, most) = (pids[1..].iter().map(of).min(), pids[1..].iter().map(of).max());
    let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
    // How long each is busy is the machine's doing; who is next is not: see below.
    assert!((most - least) * 10 <= most, "answers by pid: {counts:?}");
    assert!(of(&pids[0]) * 10 < least, "the first one was to be blocked: {counts:?}");
    check_the_rotation(&cluster, on.window());
    cluster.stop();
}

/// Each connection goes to the worker with the fewest in flight, among equals to the one that has
/// been at that count longest, and none to one whose window is full. So equal workers get equally
/// many, and a blocked one is passed over.
fn check_the_rotation(cluster: &Cluster, window: u64) {
    // In flight, and the place in the log since when.
    let mut workers: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    for (place, event) in cluster.events().into_iter().enumerate() {
        let Some(worker) = event["worker"].as_u64() else { continue };
        let count = match event["event"].as_str() {
            Some("ready") => 0,
            Some("accepted" | "declined") => workers[&worker].0 - 1,
            Some("handed_off") => {
                let free = workers.iter().filter(|(_, (count, _))| *count < window);
                let next = free.min_by_key(|(_, turn)| **turn).map(|(worker, _)| *worker);
                assert_eq!(next, Some(worker), "{event}, {workers:?}");
                workers[&worker].0 + 1
            }
            _ => continue,
        };
        workers.insert(worker, (count, place));
    }
}

fn ab_sees_no_failure(on: Pair) {
    let _load = alone();
    if Command::new("ab").arg("-V").output().is_err() {
        return skip("no ab");
    }
    let cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    // Each spin takes milliseconds in a build for tests: where kinds are mixed, fewer have to do.
    let spins = if on.primary == on.worker { "5000" } else { "500" };
    for (path, requests) in [("/", "5000"), ("/spin", spins)] {
        let url = format!("http://{}{path}", cluster.addr);
        let args = ["-q", "-c", "10", "-n", requests, "-r", &url];
        let ab = Command::new("ab").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&ab.stdout);
        assert_eq!(failures(&text), Some(0), "{path}: {text}");
        assert!(!text.contains("Non-2xx responses"), "{path}: {text}");
        let complete = format!("Complete requests:      {requests}");
        assert!(text.contains(&complete), "{path}: {text}");
    }
    cluster.stop();
}

/// What `ab` counts as failed, apart from answers that differ in length, as those of workers
/// whose pids do.
fn failures(report: &str) -> Option<u32> {
    let number = |heading: &str| -> Option<u32> {
        report.split(heading).nth(1)?.split([',', ')', '\n']).next()?.trim().parse().ok()
    };
    Some(number("Failed requests:")? - number("Length:").unwrap_or(0))
}

/// Waits until of so many connections all are accepted but those in flight at one worker; how many
/// these are, at least one.
fn hung_at(cluster: &Cluster, pid: i32, connections: u64) -> u64 {
    wait_for("all others to be accepted", || {
        let status = cluster.status();
        let workers = status["workers"].as_array()?;
        let hung = workers.iter().find(|it| it["pid"] == pid)?["in_flight"].as_u64()?;
        let accepted = status["primary"]["accepted_total"].as_u64()?;
        (hung > 0 && accepted + hung == connections).then_some(hung)
    })
}

fn a_stopped_worker_that_is_killed_loses_nothing(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "3"]);
    let pids = cluster.ready(3);
    let base = cluster.total("open_fds");
    kill(Pid::from_raw(pids[1]), Signal::SIGSTOP).unwrap();
    let streams: Vec<_> = (0..200).map(|_| send(cluster.addr, "/").unwrap()).collect();
    let hung = hung_at(&cluster, pids[1], 200);
    assert!(hung <= on.window(), "{hung} connections hang");
    kill(Pid::from_raw(pids[1]), Signal::SIGKILL).unwrap();
    for stream in streams {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    assert_eq!(cluster.total("redispatched_total"), hung);
    cluster.ready(3);
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    cluster.stop();
}

/// Workers whose death is no early failure: each has accepted a connection.
fn three_that_have_served(on: Pair) -> (Cluster, Vec<i32>) {
    let cluster = on.demo(&["-w", "3"]);
    let pids = cluster.ready(3);
    for _ in 0..3 {
        cluster.get("/").pid();
    }
    (cluster, pids)
}

fn with_all_workers_killed_connections_wait(on: Pair) {
    let _load = alone();
    let (cluster, pids) = three_that_have_served(on);
    for pid in &pids {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    let late: Vec<Outcome> = thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| cluster.get("/"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for outcome in late {
        assert!(!pids.contains(&outcome.pid()));
    }
    assert_eq!(cluster.total("refused_total"), 0);
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
}

/// As the primary is stopped meanwhile, no worker can be back before all have connected.
fn connections_that_come_while_no_worker_lives_are_served(on: Pair) {
    let _load = alone();
    let (cluster, pids) = three_that_have_served(on);
    cluster.signal(Signal::SIGSTOP);
    for pid in &pids {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    wait_for("their end", || (!pids.iter().any(|pid| is_running(*pid))).then_some(()));
    let streams: Vec<_> = (0..50).map(|_| send(cluster.addr, "/").unwrap()).collect();
    cluster.signal(Signal::SIGCONT);
    for stream in streams {
        assert!(!pids.contains(&receive(stream).pid()));
    }
    assert_eq!(cluster.total("refused_total"), 0);
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
}

/// Workers die again and again under load: whoever they had taken is lost with them, nobody else.
fn under_load_the_death_of_all_workers_refuses_nobody(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "3"]);
    let outcomes = under_load(cluster.addr, 8, || {
        for _ in 0..3 {
            let pids = cluster.ready(3);
            let enough = cluster.total("accepted_total") + 100;
            wait_for("load", || (cluster.total("accepted_total") > enough).then_some(()));
            for pid in &pids {
                kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
            }
            // Until the primary knows, its status has them as ready.
            wait_for("their end", || {
                let ended = cluster.events_named("exited");
                let is_known = |pid: &i32| ended.iter().any(|event| event["pid"] == *pid);
                pids.iter().all(is_known).then_some(())
            });
        }
        cluster.ready(3);
    });
    let lost: Vec<&Outcome> = outcomes.iter().filter(|o| !matches!(o, Outcome::Ok(_))).collect();
    // Each client has one request at a time.
    assert!(lost.len() <= 3 * 8, "{lost:?}");
    assert!(!lost.contains(&&Outcome::Refused), "{lost:?}");
    assert_eq!(cluster.total("refused_total"), 0);
    assert_eq!(cluster.events_named("given_up").len(), 0);
    assert_eq!(cluster.events_named("respawn_delayed").len(), 0);
    cluster.stop();
}

fn a_grandchild_that_holds_the_channel_does_not_hold_up_redispatch(on: Pair) {
    let cluster = on.run(&["-w", "2"], &on.test_worker(&["grandchild"]));
    let pids = cluster.ready(2);
    kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
    let streams: Vec<_> = (0..4).map(|_| send(cluster.addr, "/").unwrap()).collect();
    let hung = hung_at(&cluster, pids[0], 4);
    assert!(hung <= on.window(), "{hung} connections hang");
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    for stream in streams {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    // The log may be behind.
    let first =
        |name: &str| wait_for("the event", || cluster.events_named(name).into_iter().next());
    let (exited, back) = (first("exited"), first("redispatched"));
    let at = |event: &serde_json::Value| event["at_ms"].as_u64().unwrap();
    assert!(at(&back) - at(&exited) <= 100, "{exited} {back}");
    cluster.stop();
}

fn a_primary_that_was_stopped_kills_nobody_for_it(on: Pair) {
    let cluster = on.run(&["-w", "2", "--ack-timeout", "1s"], &on.test_worker(&["block", "1000"]));
    let pids = cluster.ready(2);
    // Slot 0 has taken its connection and is busy, so the next one hangs in flight there.
    let streams: Vec<_> = (0..2).map(|_| send(cluster.addr, "/").unwrap()).collect();
    wait_for("both to be taken", || (cluster.total("accepted_total") == 2).then_some(()));
    cluster.signal(Signal::SIGSTOP);
    let more: Vec<_> = (0..2).map(|_| send(cluster.addr, "/").unwrap()).collect();
    // Past the time-out and past what counts as late: that span is what is tested.
    thread::sleep(Duration::from_secs(3));
    cluster.signal(Signal::SIGCONT);
    for stream in streams.into_iter().chain(more) {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    assert_eq!(cluster.pids("ready"), pids);
    cluster.stop();
}

/// Answers that lie in the channel count, however long ago their time was up.
fn a_primary_that_was_stopped_reads_answers_before_the_clock(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "1", "--ack-timeout", "1s"]);
    let pids = cluster.ready(1);
    kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
    let stream = send(cluster.addr, "/").unwrap();
    wait_for("it to hang", || (cluster.total("in_flight") == 1).then_some(()));
    cluster.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(pids[0]), Signal::SIGCONT).unwrap();
    assert_eq!(receive(stream).pid(), pids[0]);
    // Past the time-out, but not past what counts as late: that span is what is tested.
    thread::sleep(Duration::from_millis(1_500));
    cluster.signal(Signal::SIGCONT);
    assert_eq!(cluster.get("/").pid(), pids[0]);
    assert_eq!(cluster.events_named("killing").len(), 0);
    cluster.stop();
}
