//! What a worker's line means to the primary, free of the line's bytes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::parse::{self, Cluster, HandleKind, Line, Message, Server};
use crate::{DecodeError, FromWorker, ListenKey, ListenerId, Seq};

/// What a line says, free of its bytes.
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
    User(String),
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
        /// `None` if it makes no sense.
        query: Option<Query>,
    },
}

pub(crate) struct Query {
    pub(crate) key: Box<ListenKey>,
    pub(crate) backlog: u32,
    pub(crate) data: Vec<u8>,
}

/// Reads a line, with which a handle came or not.
pub(crate) fn read(line: &[u8], laden: bool) -> Result<Said, DecodeError> {
    Ok(match parse::parse(line)? {
        Line::HandleAck => Said::Acked,
        Line::HandleNack => Said::Refused,
        Line::Plain(_) if laden => return Err(DecodeError::UnexpectedHandles),
        Line::Plain(msg) => Said::Message(own(msg)?),
        Line::Laden(kind, msg) if laden => Said::Laden(kind, own(msg)?),
        Line::Laden(..) => Said::Unladen,
    })
}

fn own(msg: Message<'_>) -> Result<Meant, DecodeError> {
    match msg {
        Message::Cluster(cluster) => meaning(&cluster),
        Message::User(json) => Ok(Meant::User(String::from(json))),
        Message::Unknown => Ok(Meant::Nothing),
    }
}

fn meaning(cluster: &Cluster<'_>) -> Result<Meant, DecodeError> {
    let bad = DecodeError::BadMessage;
    let seq = || cluster.seq.and_then(parse::seq).ok_or(bad);
    let act = cluster.act.as_ref().map(|act| &*act.0);
    Ok(match (act, cluster.ack) {
        (_, Some(ack)) => Meant::Answered { ack, accepted: cluster.accepted.ok_or(bad)? },
        (Some("online"), _) => Meant::Say(FromWorker::Online),
        (Some("exitedAfterDisconnect"), _) => {
            Meant::Say(FromWorker::ExitedAfterDisconnect { seq: seq()? })
        }
        (Some("close"), _) => {
            let key = cluster.key.as_ref().and_then(|key| key.0.parse().ok());
            Meant::Close(key.and_then(ListenerId::from_raw))
        }
        (Some("listening"), _) => Meant::Listening(cluster.server().ok_or(bad)?),
        (Some("queryServer"), _) => {
            let server = cluster.server().ok_or(bad)?;
            let query = cluster.listen_key().map(|key| Query {
                key: Box::new(key),
                backlog: cluster.backlog(),
                data: cluster.data.map_or("null", |data| data.get()).into(),
            });
            Meant::Query { seq: seq()?, server, query }
        }
        _ => Meant::Nothing,
    })
}
