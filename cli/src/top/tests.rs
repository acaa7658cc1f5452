//! What is shown of a status, without a terminal and without a primary.

mod drawing;
mod keys;
mod panic;
mod rates;
mod size;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::state::{self, State};
use super::view::View;
use roundel_runtime::observe::status::Status;

/// A status with these workers, of a primary that has been up for an hour and two minutes.
fn status(workers: Vec<Value>) -> Value {
    json!({
        "primary": {
            "pid": 4711, "uptime_s": 3725, "pending": 2, "in_flight": 3, "accepted_total": 1000,
            "redispatched_total": 0, "declined_total": 0, "refused_total": 1, "unknown_total": 0,
            "stalled_total": 0, "messages_skipped_total": 0, "open_fds": 20, "rss_kb": 4096,
            "wanted": 2, "generation": 1,
        },
        "listeners": [{
            "address": "127.0.0.1:8080", "policy": "round-robin", "pending": 2, "accepting": true,
            "accept_queue": 5,
        }],
        "workers": workers,
    })
}

/// A worker, in the slot below its id.
fn worker(id: u64, accepted: u64) -> Value {
    json!({
        "id": id, "slot": id - 1, "pid": 4711 + id, "generation": 1, "state": "ready",
        "codec": "native", "in_flight": id, "accepted": accepted, "declined": 0, "restarts": 0,
        "last_exit": null, "uptime_s": 60, "cpu_ms": 1000, "rss_kb": 20480,
    })
}

fn sample(status: &Value) -> Status {
    state::read(&status.to_string()).unwrap()
}

/// The first sample, and when it came.
fn begin(status: &Value) -> (State, Instant) {
    let now = Instant::now();
    (State::new(now, sample(status)), now)
}

/// A view of two samples, a second apart, and the time of the second.
fn view(before: &Value, after: &Value) -> (View, Instant) {
    let (state, begun) = begin(before);
    let mut view = View::new(state, false);
    let now = begun + Duration::from_secs(1);
    view.on_answer(now, sample(after));
    (view, now)
}

/// Two workers, which accept 120 and 30 connections in the second.
fn usual() -> (Value, Value) {
    let before = status(vec![worker(1, 700), worker(2, 300)]);
    let mut after = status(vec![worker(1, 820), worker(2, 330)]);
    after["primary"]["accepted_total"] = 1150.into();
    after["workers"][0]["cpu_ms"] = 1255.into();
    after["workers"][1]["open"] = 7.into();
    (before, after)
}
