//! Conversations of Node's own primary and workers, captured on the wire, are had again with one
//! side replaced by ours: what our side says must be what Node's said, message by message and
//! field by field, under a one-to-one renaming of keys, numbers and ports. What differs on
//! purpose stands in [`table::DIFFERENCES`], each with its reason.

mod compare;
mod primary;
mod table;
mod worker;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use table::Table;

/// A line of a capture.
#[derive(Clone, Debug)]
struct Captured {
    worker: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    ToWorker { message: Value, handle: String },
    ToPrimary { message: Value, handle: String },
    WorkerClosed,
    PrimaryClosed,
    Exit { code: i64 },
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/captured")
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(directory()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".jsonl")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn load(name: &str) -> Vec<Captured> {
    let text = std::fs::read_to_string(directory().join(format!("{name}.jsonl"))).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let (message, handle) = (line["message"].clone(), text("handle"));
        let what = match (&*text("dir"), &*text("event")) {
            ("primary->worker", _) => What::ToWorker { message, handle },
            ("worker->primary", _) => What::ToPrimary { message, handle },
            (_, "worker closed the channel") => What::WorkerClosed,
            (_, "primary closed the channel") => What::PrimaryClosed,
            (_, "exit") => What::Exit { code: line["code"].as_i64().unwrap() },
            other => panic!("{name}: a line of no known kind: {other:?}"),
        };
        Captured { worker: text("worker"), what }
    };
    text.lines().map(line).collect()
}

/// Every capture there is; a new one is covered by itself.
#[test]
fn our_primary_says_what_nodes_said() {
    let mut table = Table::new("primary");
    for name in names() {
        primary::replay(&name, &load(&name), &mut table);
    }
    table.assert_all_used();
}

#[test]
fn our_worker_says_what_nodes_said() {
    let mut table = Table::new("worker");
    for name in names() {
        let captured = load(&name);
        let workers: BTreeSet<&str> = captured.iter().map(|line| &*line.worker).collect();
        for worker in workers {
            if table.is_left_out(&name) {
                continue;
            }
            let of_worker: Vec<Captured> =
                captured.iter().filter(|line| line.worker == worker).cloned().collect();
            worker::replay(&name, &of_worker, &mut table);
        }
    }
    table.assert_all_used();
}

/// The comparison itself can fail: a wrong field, a missing one, one too many, and a renaming
/// that is not one-to-one.
#[test]
fn differences_are_detected() {
    use serde_json::json;
    let same = |pairs: &[(Value, Value)]| {
        let mut renaming = compare::Renaming::default();
        pairs.iter().all(|(captured, ours)| renaming.is_same("w", captured, ours).is_ok())
    };
    assert!(same(&[(json!({"seq": 1, "a": 1}), json!({"seq": 7, "a": 1}))]));
    assert!(!same(&[(json!({"a": 1}), json!({"a": 2}))]));
    assert!(!same(&[(json!({"a": 1, "b": null}), json!({"a": 1}))]));
    assert!(!same(&[(json!({"a": 1}), json!({"a": 1, "b": null}))]));
    assert!(!same(&[
        (json!({"seq": 1}), json!({"seq": 7})),
        (json!({"seq": 2}), json!({"seq": 7}))
    ]));
    assert!(!same(&[
        (json!({"key": "a"}), json!({"key": "x"})),
        (json!({"key": "a"}), json!({"key": "y"}))
    ]));
}
