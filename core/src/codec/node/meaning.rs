//! What a worker's line means to the primary, free of the line's bytes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::handle_kind::HandleKind;
use super::host::Host;
use super::lines::Piece;
use super::parse::{self, Cluster, Line, Message};
use super::query::{Query, Server};
use super::skipped::Skipped;
use super::{js, write};
use crate::{DecodeError, Errno, FromWorker, ListenerId, Seq};

/// What a line means, without borrowing its bytes.
pub(crate) enum Said {
    Acked,
    Refused,
    /// A `NODE_HANDLE` without its handle.
    Unladen,
    Laden(Option<HandleKind>, Meant),
    Message(Meant),
}

pub(crate) enum Meant {
    Nothing,
    /// It answers or names nothing that could exist.
    Stray,
    User(String),
    Skipped(Skipped),
    /// It wants this line as its answer.
    Answer(Vec<u8>),
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

/// Reads a line, with which a handle came or not.
pub(crate) fn read(piece: &Piece<'_>, laden: bool, host: &Host) -> Result<Said, DecodeError> {
    Ok(match parse::piece(piece)? {
        Line::HandleAck => Said::Acked,
        Line::HandleNack => Said::Refused,
        Line::Plain(_) if laden => return Err(DecodeError::UnexpectedHandles),
        Line::Plain(msg) => Said::Message(own(msg, host)),
        Line::Laden(kind, msg) if laden => Said::Laden(kind, own(msg, host)),
        Line::Laden(..) => Said::Unladen,
    })
}

fn own(msg: Message<'_>, host: &Host) -> Meant {
    match msg {
        Message::Cluster(cluster) => meaning(&cluster, host),
        Message::User(json) => Meant::User(String::from(json)),
        Message::Skipped(why) => Meant::Skipped(why),
        // Connections that a program sends are closed at once, so none is ever left.
        Message::NotifyClose(key) => Meant::Answer(write::all_closed(key)),
        Message::GetCount(key) => Meant::Answer(write::none_left(key)),
        Message::Unknown => Meant::Nothing,
    }
}

/// Values are read as JavaScript would read them; what makes no sense to JavaScript either answers
/// nothing.
fn meaning(cluster: &Cluster<'_>, host: &Host) -> Meant {
    let seq = cluster.seq().and_then(parse::seq);
    if let Some(ack) = cluster.ack {
        let accepted = cluster.accepted.is_some_and(js::is_truthy);
        return match parse::count(ack) {
            Some(ack) => Meant::Answered { ack, accepted },
            None => Meant::Stray,
        };
    }
    match (cluster.act().as_deref(), seq) {
        (Some("online"), _) => Meant::Say(FromWorker::Online),
        (Some("exitedAfterDisconnect"), Some(seq)) => {
            Meant::Say(FromWorker::ExitedAfterDisconnect { seq })
        }
        (Some("close"), _) => Meant::Close(cluster.key.and_then(listener)),
        (Some("listening"), _) => Meant::Listening(cluster.server()),
        (Some("queryServer"), Some(seq)) => {
            let query = cluster.query(host).map(Box::new);
            Meant::Query { seq, server: cluster.server(), query }
        }
        // Without a number, nothing shows which message an answer is for.
        (Some("exitedAfterDisconnect" | "queryServer"), None) => Meant::Stray,
        _ => Meant::Nothing,
    }
}

fn listener(key: &RawValue) -> Option<ListenerId> {
    js::text(key)?.parse().ok().and_then(ListenerId::from_raw)
}
