//! What a line says. serde_json reads it, after its nesting has been checked.

use alloc::borrow::Cow;

use serde_json::value::RawValue;

use super::handle_kind::HandleKind;
use super::js;
use super::lines::Piece;
use super::opening::Opening;
use super::skipped::Skipped;
use super::{MAX_NESTING, MAX_SOCKET_KEY};
use crate::{DecodeError, Seq};

/// A line.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    HandleAck,
    HandleNack,
    /// `NODE_HANDLE`: the wrapped message, and what its handle is; `None` for a kind that is not
    /// known here.
    Laden(Option<HandleKind>, Message<'a>),
    Plain(Message<'a>),
}

/// A message, wrapped or not.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for one line only")]
pub(crate) enum Message<'a> {
    Cluster(Cluster<'a>),
    /// The program's own: any JSON.
    User(&'a str),
    /// The program's own, which is passed over.
    Skipped(Skipped),
    /// The other side closes a server (`NODE_SOCKET_NOTIFY_CLOSE`) of which it sent connections,
    /// and waits until they have ended. The key shows which server; it is echoed.
    NotifyClose(&'a RawValue),
    /// The other side asks how many of these connections are left (`NODE_SOCKET_GET_COUNT`).
    GetCount(&'a RawValue),
    /// Internal, but of no kind that matters here.
    Unknown,
}

/// The fields of a `NODE_CLUSTER` message of either direction, as they are written.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    pub(crate) act: Option<&'a RawValue>,
    pub(crate) seq: Option<&'a RawValue>,
    pub(crate) ack: Option<&'a RawValue>,
    pub(crate) accepted: Option<&'a RawValue>,
    pub(crate) errno: Option<&'a RawValue>,
    pub(crate) key: Option<&'a RawValue>,
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) sockname: Option<&'a RawValue>,
    pub(crate) address: Option<&'a RawValue>,
    pub(crate) port: Option<&'a RawValue>,
    pub(crate) address_type: Option<&'a RawValue>,
    pub(crate) fd: Option<&'a RawValue>,
    pub(crate) flags: Option<&'a RawValue>,
    pub(crate) index: Option<&'a RawValue>,
    pub(crate) backlog: Option<&'a RawValue>,
    pub(crate) readable_all: Option<&'a RawValue>,
    pub(crate) writable_all: Option<&'a RawValue>,
}

/// The names of all fields that mean something in any line.
pub(super) const FIELDS: [&str; 20] = [
    "cmd",
    "type",
    "msg",
    "act",
    "seq",
    "ack",
    "accepted",
    "errno",
    "key",
    "data",
    "sockname",
    "address",
    "port",
    "addressType",
    "fd",
    "flags",
    "index",
    "backlog",
    "readableAll",
    "writableAll",
];

/// The values of all these fields of one object.
type Fields<'a> = [Option<&'a RawValue>; FIELDS.len()];

/// Reads what was cut off the stream.
pub(crate) fn piece<'a>(piece: &Piece<'a>) -> Result<Line<'a>, DecodeError> {
    match *piece {
        Piece::Line(line) => parse(line),
        Piece::Long { opening, .. } => unreadable(opening, Skipped::TooLong),
    }
}

/// Reads a line.
pub(crate) fn parse(line: &[u8]) -> Result<Line<'_>, DecodeError> {
    // One of the two lines that come for each connection, as Node writes it.
    if line == b"{\"cmd\":\"NODE_HANDLE_ACK\"}" {
        return Ok(Line::HandleAck);
    }
    let Ok(text) = core::str::from_utf8(line) else {
        return unreadable(Opening::of(line), Skipped::NotUtf8);
    };
    let object = js::fields(text, &FIELDS);
    if object.is_none() && !js::is_json(text) {
        return unreadable(Opening::of(line), Skipped::NotJson);
    }
    let cmd = object.as_ref().and_then(command);
    if nesting(text) > MAX_NESTING {
        let opening = match cmd.as_deref() {
            Some("NODE_CLUSTER") => Opening::Cluster,
            Some("NODE_HANDLE") => Opening::Handle,
            _ => Opening::Program,
        };
        return unreadable(opening, Skipped::NestedTooDeep);
    }
    Ok(match (cmd.as_deref(), &object) {
        (Some("NODE_HANDLE_ACK"), _) => Line::HandleAck,
        (Some("NODE_HANDLE_NACK"), _) => Line::HandleNack,
        (Some("NODE_HANDLE"), Some([_, kind, msg, ..])) => {
            let kind = kind.and_then(js::text).and_then(|kind| HandleKind::from_name(&kind));
            let msg = msg.map_or("null", RawValue::get);
            Line::Laden(kind, message(msg, js::fields(msg, &FIELDS)))
        }
        _ => Line::Plain(message(text, object)),
    })
}

/// A line that can't be read. What programs say does no harm, so only the cluster's own lines must
/// be right.
fn unreadable<'a>(opening: Opening, why: Skipped) -> Result<Line<'a>, DecodeError> {
    match (opening, why) {
        (Opening::Program, _) => Ok(Line::Plain(Message::Skipped(why))),
        (Opening::Handle, _) => Ok(Line::Laden(None, Message::Skipped(why))),
        (Opening::Cluster, Skipped::TooLong) => Err(DecodeError::FrameTooLong),
        (Opening::Cluster, Skipped::NestedTooDeep) => Err(DecodeError::NestedTooDeep),
        (Opening::Cluster, Skipped::NotUtf8 | Skipped::NotJson) => Err(DecodeError::BadMessage),
    }
}

fn message<'a>(text: &'a str, object: Option<Fields<'a>>) -> Message<'a> {
    let Some(object) = object else { return Message::User(text) };
    let cmd = command(&object);
    let [_, _, _, act, seq, ack, accepted, errno, key, data, sockname, address, port, ..] = object;
    let [.., address_type, fd, flags, index, backlog, readable_all, writable_all] = object;
    match cmd.as_deref() {
        None => Message::User(text),
        Some("NODE_CLUSTER") => Message::Cluster(Cluster {
            act,
            seq,
            ack,
            accepted,
            errno,
            key,
            data,
            sockname,
            address,
            port,
            address_type,
            fd,
            flags,
            index,
            backlog,
            readable_all,
            writable_all,
        }),
        Some("NODE_SOCKET_NOTIFY_CLOSE") => {
            key.filter(|it| is_short(it)).map_or(Message::Unknown, Message::NotifyClose)
        }
        Some("NODE_SOCKET_GET_COUNT") => {
            key.filter(|it| is_short(it)).map_or(Message::Unknown, Message::GetCount)
        }
        Some(_) => Message::Unknown,
    }
}

fn is_short(key: &RawValue) -> bool {
    key.get().len() <= MAX_SOCKET_KEY
}

/// The `cmd` of an internal message; `None` for one of the program's own.
fn command<'a>(object: &Fields<'a>) -> Option<Cow<'a, str>> {
    let [cmd, ..] = object;
    // `NODE_` alone is the program's: Node wants something after it.
    cmd.and_then(js::text).filter(|cmd| cmd.len() > 5 && cmd.starts_with("NODE_"))
}

/// Whether this is `{"act":"suicide"}`, by which workers without cluster say that they fail.
pub(crate) fn is_suicide(user: &str) -> bool {
    let act = js::fields(user, &["act"]).and_then(|[act]| act);
    act.and_then(js::text).is_some_and(|act| act == "suicide")
}

/// The deepest nesting of arrays and objects.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// A number of the other side, which counts from 0 in JavaScript's whole numbers.
pub(crate) fn seq(number: u64) -> Option<Seq> {
    if number < 1 << 53 { Seq::from_raw(number + 1) } else { None }
}

/// The number that the other side gave the message that this core number stands for.
pub(crate) fn wire_seq(seq: Seq) -> u64 {
    seq.get() - 1
}

impl Cluster<'_> {
    /// What the message is about.
    pub(crate) fn act(&self) -> Option<Cow<'_, str>> {
        self.act.and_then(js::text)
    }

    /// The number of this message, if it is one.
    pub(crate) fn seq(&self) -> Option<u64> {
        self.seq.and_then(count)
    }
}

/// A number that counts something.
pub(crate) fn count(raw: &RawValue) -> Option<u64> {
    raw.get().parse().ok().or_else(|| {
        js::whole(js::number(raw), 0, 1 << 53).and_then(|number| u64::try_from(number).ok())
    })
}

#[cfg(test)]
mod tests;
