use std::time::Duration;

use serde_json::{Value, json};

use super::super::state::{Recent, Row, SECONDS, Sort, State};
use super::{begin, sample, status, usual, worker};

/// What is known of the worker with this id.
fn recent(state: &State, id: u64) -> Recent {
    let rows = state.rows(Sort::Slot);
    let mut found = rows.iter().filter_map(|row| match row {
        Row::Worker { worker, recent, .. } if worker.id == id => Some((*recent).clone()),
        _ => None,
    });
    found.next().expect("a row")
}

fn slots(state: &State, sort: Sort) -> Vec<u32> {
    let slot = |row: &Row<'_>| match row {
        Row::Worker { worker, .. } => worker.slot,
        Row::Slot(slot) => slot.slot,
    };
    state.rows(sort).iter().map(slot).collect()
}

#[test]
fn one_sample_has_no_rates() {
    let (state, _) = begin(&usual().0);
    assert_eq!((state.conns(), recent(&state, 1)), (None, Recent::default()));
}

#[test]
fn rates_are_by_the_time_that_has_passed() {
    let (before, after) = usual();
    for (millis, conns, cpu, seconds) in
        [(500, 240.0, 51.0, 1), (1_000, 120.0, 25.5, 1), (3_000, 40.0, 8.5, 3)]
    {
        let (mut state, begun) = begin(&before);
        state.take(begun + Duration::from_millis(millis), sample(&after));
        let recent = recent(&state, 1);
        assert_eq!(recent.conns, Some(conns));
        assert!((recent.cpu.unwrap() - cpu).abs() < 0.001, "{recent:?}");
        // A gap is filled with the rate over it.
        assert_eq!(recent.history, vec![conns; seconds]);
        assert_eq!(state.conns(), Some(150.0 * 1_000.0 / millis as f64));
    }
}

#[test]
fn the_past_is_a_minute() {
    let (mut state, begun) = begin(&status(vec![worker(1, 0)]));
    for second in 1..=100_u64 {
        let accepted = second * (second + 1) / 2;
        let mut next = status(vec![worker(1, accepted)]);
        next["primary"]["uptime_s"] = (4_000 + second).into();
        state.take(begun + Duration::from_secs(second), sample(&next));
    }
    let history = recent(&state, 1).history;
    assert_eq!((history.len(), history[0], history[SECONDS - 1]), (SECONDS, 41.0, 100.0));
    // A primary that was silent for an hour.
    let later = status(vec![worker(1, 5_050)]);
    state.take(begun + Duration::from_secs(3_700), sample(&later));
    let mut later = later;
    later["primary"]["uptime_s"] = 9_000.into();
    state.take(begun + Duration::from_secs(7_300), sample(&later));
    assert_eq!(recent(&state, 1).history.len(), SECONDS);
}

/// It has accepted nothing before it was started, so all that it has is of this second.
#[test]
fn a_worker_that_came_between_two_samples_began_at_zero() {
    let (before, mut after) = usual();
    after["workers"][1] = worker(3, 25);
    after["workers"][1]["slot"] = 1.into();
    after["workers"][1]["restarts"] = 1.into();
    after["workers"][1]["cpu_ms"] = 100.into();
    let (mut state, begun) = begin(&before);
    state.take(begun + Duration::from_secs(1), sample(&after));
    let third = recent(&state, 3);
    assert_eq!((third.conns, third.cpu), (Some(25.0), Some(10.0)));
    assert_eq!(slots(&state, Sort::Slot), [0, 1]);
}

/// The process id of a dead worker, given to its successor.
#[test]
fn a_process_id_used_again_is_another_worker() {
    let (before, mut after) = usual();
    after["workers"][1] = worker(3, 5);
    after["workers"][1]["slot"] = 1.into();
    after["workers"][1]["pid"] = before["workers"][1]["pid"].clone();
    let (mut state, begun) = begin(&before);
    state.take(begun + Duration::from_secs(1), sample(&after));
    assert_eq!(recent(&state, 3).conns, Some(5.0));
    assert_eq!(recent(&state, 3).history, [5.0]);
}

#[test]
fn another_primary_begins_anew() {
    let (before, after) = usual();
    // In a container it may have the same process id.
    let replaced: [fn(&mut Value); 3] = [
        |it| it["primary"]["pid"] = 9.into(),
        |it| it["primary"]["uptime_s"] = 1.into(),
        |it| it["primary"]["accepted_total"] = 3.into(),
    ];
    for replace in replaced {
        let (mut state, begun) = begin(&before);
        state.take(begun + Duration::from_secs(1), sample(&after));
        assert!(state.conns().is_some());
        let mut other = after.clone();
        replace(&mut other);
        state.take(begun + Duration::from_secs(2), sample(&other));
        assert_eq!((state.conns(), recent(&state, 1)), (None, Recent::default()));
        assert_eq!(state.status().primary.pid, other["primary"]["pid"]);
    }
}

#[test]
fn what_the_primary_does_not_see_has_no_rate() {
    let (mut before, mut after) = usual();
    for status in [&mut before, &mut after] {
        status["listeners"][0]["policy"] = "shared".into();
        status["workers"][0]["cpu_ms"] = Value::Null;
    }
    let (mut state, begun) = begin(&before);
    state.take(begun + Duration::from_secs(1), sample(&after));
    assert_eq!((state.conns(), recent(&state, 1)), (None, Recent::default()));
}

#[test]
fn the_progress_of_a_reload() {
    let (_, mut after) = usual();
    let reload = |result, generation| {
        json!({"generation": generation, "result": result,
        "cause": null, "ago_s": 3, "took_ms": null})
    };
    after["reloads"] = json!([reload("done", 2), reload("running", 3)]);
    after["workers"][1]["generation"] = 3.into();
    let (state, _) = begin(&after);
    let found = state.reload().unwrap();
    assert_eq!((found.generation, found.ready, found.seconds), (3, 1, 3));
    after["reloads"] = json!([reload("done", 2), reload("failed", 3)]);
    assert_eq!(begin(&after).0.reload(), None);
}

#[test]
fn the_order_of_the_rows() {
    let mut before = status((1..=3).map(|id| worker(id, 0)).collect());
    let mut after = before.clone();
    after["workers"][1]["accepted"] = 10.into();
    after["workers"][2]["cpu_ms"] = 2_000.into();
    after["workers"][0]["open"] = 1.into();
    after["workers"][1]["rss_kb"] = 99_999.into();
    after["workers"][2]["restarts"] = 2.into();
    let slot = |slot, state| {
        json!({"slot": slot, "state": state, "worker": null,
        "generation": 1, "restarts": 0, "last_exit": null, "next_in_ms": null})
    };
    after["slots"] = json!([slot(0, "filled"), slot(7, "given_up")]);
    before["slots"] = after["slots"].clone();
    let (mut state, begun) = begin(&before);
    state.take(begun + Duration::from_secs(1), sample(&after));
    for (sort, order) in [
        (Sort::Slot, [0, 1, 2, 7]),
        (Sort::Conns, [1, 0, 2, 7]),
        (Sort::InFlight, [2, 1, 0, 7]),
        (Sort::Open, [0, 1, 2, 7]),
        (Sort::Cpu, [2, 0, 1, 7]),
        (Sort::Memory, [1, 0, 2, 7]),
        (Sort::Restarts, [2, 0, 1, 7]),
    ] {
        assert_eq!(slots(&state, sort), order, "{sort:?}");
    }
}
