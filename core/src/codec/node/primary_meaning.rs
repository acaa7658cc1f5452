//! What a worker's cluster message means to the primary.

use alloc::boxed::Box;

use serde_json::value::RawValue;

use super::host::Host;
use super::js;
use super::parse::{self, Cluster};
use super::query::{Query, Server};
use crate::{Errno, FromWorker, ListenerId, Seq, Signal};

/// What a worker's cluster message means to the primary.
pub(crate) enum PrimaryMeaning {
    /// It answers or names nothing that could exist.
    Stray,
    Say(FromWorker),
    Answered {
        ack: u64,
        accepted: bool,
    },
    Listening(Server),
    Close(Option<ListenerId>),
    Query {
        seq: Seq,
        server: Server,
        /// An error if it makes no sense.
        query: Result<Box<Query>, Errno>,
    },
}

impl PrimaryMeaning {
    /// What this message means, if anything. Values are read as JavaScript would read them; what
    /// makes no sense to JavaScript either answers nothing.
    pub(crate) fn of(cluster: &Cluster<'_>, host: &Host) -> Option<Self> {
        let seq = cluster.seq().and_then(parse::seq);
        if let Some(ack) = cluster.ack {
            let accepted = cluster.accepted.is_some_and(js::is_truthy);
            return Some(match parse::count(ack) {
                Some(ack) => PrimaryMeaning::Answered { ack, accepted },
                None => PrimaryMeaning::Stray,
            });
        }
        Some(match (cluster.act().as_deref(), seq) {
            (Some("online"), _) => PrimaryMeaning::Say(FromWorker::Online),
            (Some("exitedAfterDisconnect"), Some(seq)) => {
                PrimaryMeaning::Say(FromWorker::ExitedAfterDisconnect { seq })
            }
            (Some("close"), _) => PrimaryMeaning::Close(cluster.key.and_then(listener)),
            // What the preload of `--node-assist` says.
            (Some("load"), _) => said(
                cluster
                    .data
                    .and_then(parse::count)
                    .map(|open| FromWorker::Load { open: u32::try_from(open).unwrap_or(u32::MAX) }),
            ),
            (Some("lag"), _) => said(cluster.data.and_then(parse::count).map(|millis| {
                FromWorker::Lag { millis: u32::try_from(millis).unwrap_or(u32::MAX) }
            })),
            (Some("stopSignal"), _) => said(cluster.data.map(|signal| FromWorker::StopSignal {
                signal: match js::text(signal).as_deref() {
                    Some("SIGTERM") => Some(Signal::Term),
                    Some("SIGINT") => Some(Signal::Interrupt),
                    _ => None,
                },
            })),
            (Some("listening"), _) => PrimaryMeaning::Listening(cluster.server()),
            (Some("queryServer"), Some(seq)) => {
                let query = cluster.query(host).map(Box::new);
                PrimaryMeaning::Query { seq, server: cluster.server(), query }
            }
            // Without a number, nothing shows which message an answer is for.
            (Some("exitedAfterDisconnect" | "queryServer"), None) => PrimaryMeaning::Stray,
            _ => return None,
        })
    }
}

fn said(msg: Option<FromWorker>) -> PrimaryMeaning {
    msg.map_or(PrimaryMeaning::Stray, PrimaryMeaning::Say)
}

fn listener(key: &RawValue) -> Option<ListenerId> {
    js::text(key)?.parse().ok().and_then(ListenerId::from_raw)
}
