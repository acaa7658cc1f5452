//! The status of a primary, which the command `status` shows.

mod rows;
mod table;

use serde::{Deserialize, Serialize};

pub use rows::{GenerationRow, ListenerRow, PrimaryRow, ReloadRow, SlotRow, WorkerRow};
pub use table::{duration, printable};

/// A primary, its listeners and its workers at one moment: the object of `status --json`.
///
/// Its `Display` is the tables of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The primary.
    pub primary: PrimaryRow,
    /// The listeners, in the order of their ids.
    pub listeners: Vec<ListenerRow>,
    /// The live workers, in the order of their ids.
    pub workers: Vec<WorkerRow>,
    /// The generations of the live workers, the oldest one first.
    #[serde(default)]
    pub generations: Vec<GenerationRow>,
    /// The slots for the workers that are kept.
    #[serde(default)]
    pub slots: Vec<SlotRow>,
    /// The last ten reloads, the latest one last.
    #[serde(default)]
    pub reloads: Vec<ReloadRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_the_sum_of_its_workers() {
        let worker = |generation, state: &str, in_flight, open| WorkerRow {
            generation,
            state: state.into(),
            in_flight,
            open,
            ..WorkerRow::default()
        };
        let rows = GenerationRow::of(&[
            worker(3, "draining", 1, Some(5)),
            worker(4, "ready", 0, None),
            worker(3, "draining", 2, None),
            worker(3, "leaving", 0, Some(12)),
        ]);
        let old = [("draining".to_owned(), 2), ("leaving".to_owned(), 1)].into();
        let old = GenerationRow { generation: 3, workers: old, in_flight: 3, open: Some(17) };
        let workers = [("ready".to_owned(), 1)].into();
        let new = GenerationRow { generation: 4, workers, in_flight: 0, open: None };
        assert_eq!(rows, [old, new]);
    }

    /// The names are a contract with every program that reads the JSON.
    #[test]
    fn json_has_these_names_in_this_order() {
        let status = Status {
            primary: PrimaryRow { pid: 7, ..PrimaryRow::default() },
            listeners: vec![ListenerRow::default()],
            workers: vec![WorkerRow::default()],
            generations: vec![GenerationRow {
                workers: [("ready".into(), 2)].into(),
                ..GenerationRow::default()
            }],
            slots: vec![SlotRow::default()],
            reloads: vec![ReloadRow::default()],
        };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"primary":{"pid":7,"uptime_s":0,"pending":0,"in_flight":0,"accepted_total":0,"#,
                r#""redispatched_total":0,"declined_total":0,"refused_total":0,"unknown_total":0,"stalled_total":0,"#,
                r#""messages_skipped_total":0,"#,
                r#""open_fds":0,"rss_kb":0,"metrics":null,"wanted":0,"generation":0,"paused":false,"#,
                r#""stopping":false},"#,
                r#""listeners":[{"address":"","policy":"","pending":0,"accepting":false,"#,
                r#""accept_queue":null}],"#,
                r#""workers":[{"id":0,"slot":0,"pid":null,"generation":0,"state":"","codec":null,"#,
                r#""in_flight":0,"open":null,"accepted":0,"declined":0,"restarts":0,"last_exit":null,"#,
                r#""uptime_s":0,"cpu_ms":null,"rss_kb":null,"lag_ms":null,"stop_signal":null}],"#,
                r#""generations":[{"generation":0,"workers":{"ready":2},"in_flight":0,"open":null}],"#,
                r#""slots":[{"slot":0,"state":"","worker":null,"generation":0,"restarts":0,"#,
                r#""last_exit":null,"next_in_ms":null}],"#,
                r#""reloads":[{"generation":null,"result":"","cause":null,"ago_s":0,"took_ms":null}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
