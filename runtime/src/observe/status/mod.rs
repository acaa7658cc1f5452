//! The status of a primary, which the command `status` shows.

mod table;

use serde::{Deserialize, Serialize};

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
}

/// The primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrimaryRow {
    /// Its process id.
    pub pid: u32,
    /// Whole seconds since its start.
    pub uptime_s: u64,
    /// Connections pending, over all listeners.
    pub pending: u64,
    /// Connections in flight, over all workers.
    pub in_flight: u64,
    /// Connections that workers have accepted, since the start.
    pub accepted_total: u64,
    /// Connections that went back to their queue because their worker died.
    pub redispatched_total: u64,
    /// How often a worker declined a connection.
    pub declined_total: u64,
    /// Connections closed without having been served.
    pub refused_total: u64,
    /// Connections of which it is unknown whether a worker had them when it died.
    pub unknown_total: u64,
    /// How often a connection waited although a worker was idle: a fault of the primary.
    pub stalled_total: u64,
    /// Messages of programs that were skipped because they were too large or malformed.
    pub messages_skipped_total: u64,
    /// Descriptors that the primary has open.
    pub open_fds: u64,
    /// Resident memory of the primary, in KiB.
    pub rss_kb: u64,
    /// Where its metrics are, if it has any.
    pub metrics: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerRow {
    /// Where it is bound.
    pub address: String,
    /// The scheduling policy.
    pub policy: String,
    /// Connections pending.
    pub pending: u64,
    /// Whether the primary accepts from it at the moment.
    pub accepting: bool,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// Its id, as in the event log.
    pub id: u64,
    /// Its slot, counted from 0.
    pub slot: u32,
    /// Its process id, once the process runs.
    pub pid: Option<i32>,
    /// Its generation.
    pub generation: u32,
    /// Its stage of life.
    pub state: String,
    /// The codec it speaks, once it has sent something.
    pub codec: Option<String>,
    /// Connections in flight.
    pub in_flight: u64,
    /// Connections that it accepted.
    pub accepted: u64,
    /// How often it declined a connection.
    pub declined: u64,
    /// Workers started in its slot after the first one.
    pub restarts: u64,
    /// How its predecessor in the slot ended.
    pub last_exit: Option<String>,
    /// Whole seconds since it was started.
    pub uptime_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are a contract with every program that reads the JSON.
    #[test]
    fn json_has_these_names_in_this_order() {
        let status = Status {
            primary: PrimaryRow { pid: 7, ..PrimaryRow::default() },
            listeners: vec![ListenerRow::default()],
            workers: vec![WorkerRow::default()],
        };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"primary":{"pid":7,"uptime_s":0,"pending":0,"in_flight":0,"accepted_total":0,"#,
                r#""redispatched_total":0,"declined_total":0,"refused_total":0,"unknown_total":0,"stalled_total":0,"#,
                r#""messages_skipped_total":0,"#,
                r#""open_fds":0,"rss_kb":0,"metrics":null},"#,
                r#""listeners":[{"address":"","policy":"","pending":0,"accepting":false}],"#,
                r#""workers":[{"id":0,"slot":0,"pid":null,"generation":0,"state":"","codec":null,"#,
                r#""in_flight":0,"accepted":0,"declined":0,"restarts":0,"last_exit":null,"#,
                r#""uptime_s":0}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
