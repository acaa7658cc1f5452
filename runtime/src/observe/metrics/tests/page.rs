//! The page, read back by a checker of the OpenMetrics text format.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roundel_core::{
    ConnId, Errno, Event, ExitClass, ExitStatus, Life, Refusal, ReloadFailure, Slot, SpawnError,
    Time, Totals, WorkerId,
};

use super::super::meter::Meter;
use super::super::page::{ListenerNow, ProcessNow, Snapshot};

fn at(millis: u64) -> Time {
    Time::default() + Duration::from_millis(millis)
}

fn worker(raw: u64) -> WorkerId {
    WorkerId::from_raw(raw).unwrap()
}

fn conn() -> ConnId {
    ConnId::from_raw(1).unwrap()
}

fn spawned(raw: u64, slot: u32, generation: u32) -> Event {
    Event::Spawned { worker: worker(raw), slot: Slot(slot), generation, pid: 1 }
}

fn snapshot(meter: Meter, now: Time) -> Snapshot {
    Snapshot {
        binary: "roundel",
        now,
        meter,
        totals: Totals::default(),
        skipped: 0,
        listeners: BTreeMap::new(),
        open: BTreeMap::new(),
        workers: Vec::new(),
        wanted: 2,
        process: ProcessNow::default(),
    }
}

/// Every sample of a page by its name and labels, as they are written.
fn read(snapshot: Snapshot) -> BTreeMap<String, f64> {
    let page = snapshot.render();
    check(str::from_utf8(&page).unwrap())
}

/// Checks a page against the format: families in one piece with a name that fits their type and
/// unit, samples that fit the type, no sample twice, buckets that add up, the end.
fn check(page: &str) -> BTreeMap<String, f64> {
    let page = page.strip_suffix("# EOF\n").expect("the end");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(families.insert(name.to_owned()), "twice: {name}");
                assert!(help.starts_with(|it: char| it.is_uppercase()) && !help.contains('\\'));
                assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
                family = name.into();
            }
            ["#", "TYPE", name, of] => {
                assert_eq!(name, family);
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                kind = of.into();
            }
            ["#", "UNIT", name, unit] => {
                assert_eq!(name, family);
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
            }
            _ => {
                let (key, value) = line.rsplit_once(' ').expect("a value");
                let name = key.split('{').next().unwrap();
                let suffix = name.strip_prefix(&family).expect("of this family");
                let allowed: &[&str] = match &*kind {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    _ => &["_bucket", "_sum", "_count"],
                };
                assert!(allowed.contains(&suffix), "{line}");
                labels(&key[name.len()..]);
                let value: f64 = value.parse().expect("a number");
                assert!(value.is_finite() && value >= 0.0, "{line}");
                assert!(samples.insert(key.to_owned(), value).is_none(), "twice: {key}");
            }
        }
    }
    for family in families {
        let of_it = samples.iter().filter(|(key, _)| key.starts_with(&format!("{family}_bucket")));
        let mut buckets: Vec<(f64, f64)> = of_it
            .map(|(key, count)| (key.split('"').nth(1).unwrap().parse().unwrap(), *count))
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((bound, count)) = buckets.last() {
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family}");
            assert_eq!((*bound, *count), (f64::INFINITY, samples[&format!("{family}_count")]));
        }
    }
    samples
}

/// Reads `{a="b",c="d"}`, with escapes.
fn labels(text: &str) {
    let Some(inner) = text.strip_prefix('{').and_then(|it| it.strip_suffix('}')) else {
        return assert_eq!(text, "");
    };
    let mut rest = inner;
    loop {
        let (name, value) = rest.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
        let mut escaped = false;
        let end = value.find(|it| {
            let ends = it == '"' && !escaped;
            escaped = it == '\\' && !escaped;
            ends
        });
        let end = end.expect("its end");
        match value[end + 1..].strip_prefix(',') {
            Some(next) => rest = next,
            None => return assert_eq!(&value[end + 1..], ""),
        }
    }
}

#[test]
fn a_life_in_numbers() {
    let mut meter = Meter::new(2);
    meter.event(&spawned(1, 0, 1), at(0));
    meter.event(&spawned(2, 1, 1), at(0));
    (0..5).for_each(|_| meter.received());
    // In flight from 100 to 160 ms, two at a time in between.
    meter.handed_off(worker(1), at(100));
    meter.handed_off(worker(1), at(130));
    meter.accepted(worker(1), at(40), at(100), at(150));
    meter.event(&Event::Declined { conn: conn(), worker: worker(1) }, at(160));
    // It goes to the other one, which dies and has two.
    meter.handed_off(worker(2), at(160));
    meter.handed_off(worker(2), at(160));
    meter.event(&Event::ChannelClosed { worker: worker(2), in_flight: 2 }, at(200));
    let exited = Event::Exited {
        worker: worker(2),
        slot: Slot(1),
        status: ExitStatus::Signal(9),
        class: ExitClass::Killed,
    };
    meter.event(&exited, at(200));
    meter.forget(worker(2));
    meter.event(&spawned(3, 1, 2), at(210));
    // One can't be sent; one is in flight to the end.
    meter.handed_off(worker(3), at(220));
    let failed = Event::HandoffFailed { conn: conn(), worker: worker(3), errno: Errno::EMFILE };
    meter.event(&failed, at(221));
    meter.handed_off(worker(3), at(230));
    meter.refused(Refusal::Overflow);
    meter.refused(Refusal::Unknown);
    // The one in slot 1 tells nothing.
    let open = BTreeMap::from([(0, 7)]);
    let found = read(Snapshot { open, ..snapshot(meter, at(330)) });
    for (key, value) in [
        ("roundel_connections_received_total", 5.0),
        (r#"roundel_connections_handed_off_total{slot="0"}"#, 2.0),
        (r#"roundel_connections_handed_off_total{slot="1"}"#, 4.0),
        (r#"roundel_connections_accepted_total{slot="0"}"#, 1.0),
        (r#"roundel_connections_declined_total{slot="0"}"#, 1.0),
        (r#"roundel_connections_in_flight{slot="0"}"#, 0.0),
        (r#"roundel_connections_in_flight{slot="1"}"#, 1.0),
        (r#"roundel_connections_open{slot="0"}"#, 7.0),
        (r#"roundel_connections_refused_total{reason="overflow"}"#, 1.0),
        (r#"roundel_connections_refused_total{reason="closed"}"#, 0.0),
        (r#"roundel_worker_busy_seconds_total{slot="0"}"#, 0.06),
        (r#"roundel_worker_busy_seconds_total{slot="1"}"#, 0.141),
        (r#"roundel_worker_exits_total{class="killed"}"#, 1.0),
        (r#"roundel_worker_exits_total{class="crashed"}"#, 0.0),
        (r#"roundel_worker_restarts_total{slot="0"}"#, 0.0),
        (r#"roundel_worker_restarts_total{slot="1"}"#, 1.0),
        ("roundel_generation", 1.0),
        ("roundel_queue_wait_seconds_sum", 0.06),
        ("roundel_ack_latency_seconds_sum", 0.05),
        (r#"roundel_queue_wait_seconds_bucket{le="0.05"}"#, 0.0),
        (r#"roundel_queue_wait_seconds_bucket{le="0.1"}"#, 1.0),
    ] {
        assert_eq!(found.get(key), Some(&value), "{key}");
    }
    assert!(!found.contains_key(r#"roundel_connections_open{slot="1"}"#));
    assert!(!found.contains_key(r#"roundel_connections_refused_total{reason="unknown"}"#));
}

/// One whose new workers have failed serves nobody.
#[test]
fn the_generation_is_one_that_serves() {
    let mut meter = Meter::new(1);
    meter.event(&spawned(1, 0, 1), at(0));
    meter.event(&spawned(2, 0, 2), at(1));
    let failure = ReloadFailure::TooFewReady;
    meter.event(&Event::ReloadFailed { generation: 2, failure }, at(2));
    assert_eq!(meter.generation, 1);
    meter.event(&Event::ReloadProgress { generation: 3, done: 1, slots: 1 }, at(3));
    assert_eq!(meter.generation, 3);
}

/// Two workers of one slot, while one leaves and its replacement serves.
#[test]
fn a_slot_is_busy_while_any_of_its_workers_is() {
    let mut meter = Meter::new(1);
    meter.event(&spawned(1, 0, 1), at(0));
    meter.event(&spawned(2, 0, 1), at(0));
    meter.handed_off(worker(1), at(10));
    meter.handed_off(worker(2), at(20));
    meter.accepted(worker(1), at(10), at(10), at(30));
    meter.accepted(worker(2), at(20), at(20), at(50));
    let found = read(snapshot(meter, at(90)));
    assert_eq!(found[r#"roundel_worker_busy_seconds_total{slot="0"}"#], 0.04);
}

#[test]
fn a_start_that_is_tried_again_is_no_end() {
    let mut meter = Meter::new(1);
    for cause in [SpawnError::Other(Errno::EMFILE), SpawnError::NotFound] {
        meter.event(&Event::SpawnFailed { worker: worker(1), slot: Slot(0), cause }, at(0));
    }
    let found = read(snapshot(meter, at(0)));
    assert_eq!(found[r#"roundel_worker_exits_total{class="spawn_failed"}"#], 1.0);
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut meter = Meter::new(1);
    let mut known = snapshot(meter.clone(), at(0));
    known.listeners.insert("unix:/tmp/a \"b\\\n".into(), ListenerNow { pending: 3, queue: None });
    let queue = Some((7, 511));
    known.listeners.insert("127.0.0.1:80".into(), ListenerNow { pending: 0, queue });
    known.workers = vec![Life::Ready, Life::Ready, Life::Leaving];
    let found = read(known);
    assert_eq!(found[r#"roundel_connections_pending{listener="unix:/tmp/a \"b\\\n"}"#], 3.0);
    assert_eq!(found[r#"roundel_accept_queue_length{listener="127.0.0.1:80"}"#], 7.0);
    assert_eq!(found[r#"roundel_accept_queue_limit{listener="127.0.0.1:80"}"#], 511.0);
    assert_eq!(found.keys().filter(|key| key.starts_with("roundel_accept_queue")).count(), 2);
    assert_eq!(found[r#"roundel_workers{state="ready"}"#], 2.0);
    assert_eq!(found[r#"roundel_workers{state="starting"}"#], 0.0);
    for name in ["process_cpu", "process_open"] {
        assert!(!found.keys().any(|key| key.starts_with(name)), "{name}");
    }
    meter.reloads.insert("failed", 2);
    assert_eq!(read(snapshot(meter, at(0)))[r#"roundel_reloads_total{result="failed"}"#], 2.0);
}
