//! A worker's end of a channel to a primary of Node.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::handle_kind::HandleKind;
use super::handles::{Full, Refused, Unacked};
use super::lines::{Cut, Lines};
use super::meaning::{self, Meant, Said};
use super::parse;
use super::query::UDP_REUSEADDR;
use super::worker_event::WorkerEvent;
use super::worker_meaning::{Reply, WorkerMeaning};
use super::{HANDLE_ACK, HANDLE_NACK, write};
use crate::{
    Address, DecodeError, Errno, FromWorker, Granted, ListenKey, ListenerId, Seq, SockName,
    ToWorker, Transport,
};

/// Lines from a primary of Node, and lines to it.
///
/// [`feed`](WorkerSide::feed) it what was read, [`poll`](WorkerSide::poll) events until there are
/// none. [`encode`](WorkerSide::encode) each message when it is sent.
#[derive(Clone, Debug)]
pub struct WorkerSide<T> {
    lines: Lines<T>,
    events: VecDeque<WorkerEvent<T>>,
    /// Queries that were not answered yet.
    asked: Vec<(Seq, ListenKey, String)>,
    listeners: Vec<Held>,
    next_listener: ListenerId,
    /// Handles of the program that were not answered yet.
    unacked: Unacked<()>,
    /// Counts the messages that want no answer, for their numbers.
    said: u64,
}

#[derive(Clone, Debug)]
struct Held {
    listener: ListenerId,
    /// What the primary calls it.
    key: String,
    /// The query's fields, for `listening`.
    fields: String,
    port: i64,
}

impl<T> WorkerSide<T> {
    /// A channel at its start.
    pub const fn new(max_line: u32) -> Self {
        WorkerSide {
            lines: Lines::new(max_line as usize),
            events: VecDeque::new(),
            asked: Vec::new(),
            listeners: Vec::new(),
            next_listener: ListenerId::FIRST,
            unacked: Unacked::new(),
            said: 0,
        }
    }

    /// Takes in what one read brought. Poll until nothing comes before feeding more.
    pub fn feed(&mut self, bytes: &[u8], handle: Option<T>) {
        self.lines.feed(bytes, handle);
    }

    /// The next event.
    ///
    /// # Errors
    /// [`DecodeError`], which every later call returns again.
    pub fn poll(&mut self) -> Result<Option<WorkerEvent<T>>, DecodeError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(Cut { piece, handle }) = self.lines.poll()? else { return Ok(None) };
            let length = piece.length();
            match meaning::read(&piece, handle.is_some(), WorkerMeaning::of) {
                Ok(said) => self.hear(said, handle, length),
                Err(error) => return Err(self.lines.fail(error)),
            }
        }
    }

    fn hear(&mut self, said: Said<WorkerMeaning>, handle: Option<T>, length: u64) {
        let (kind, meant) = match said {
            Said::Acked => {
                let _ = self.unacked.acked();
                return;
            }
            Said::Refused => return self.on_refused(),
            Said::Unladen => return self.answer(HANDLE_NACK.to_vec()),
            Said::Laden(kind, meant) => {
                self.answer(HANDLE_ACK.to_vec());
                (kind, meant)
            }
            Said::Message(meant) => (None, meant),
        };
        match meant {
            Meant::Nothing => {}
            Meant::User(json) => {
                let handle = kind.zip(handle);
                self.events.push_back(WorkerEvent::User { json, handle });
            }
            Meant::Skipped(reason) => {
                self.events.push_back(WorkerEvent::Skipped { reason, length });
            }
            Meant::Answer(line) => self.answer(line),
            Meant::Cluster(WorkerMeaning::Disconnect) => self.say(ToWorker::Disconnect, handle),
            Meant::Cluster(WorkerMeaning::NewConn { seq, key }) => {
                self.on_new_conn(seq, key.as_deref(), handle);
            }
            Meant::Cluster(WorkerMeaning::Answered { ack, reply }) => {
                self.on_answered(ack, reply, handle);
            }
        }
    }

    fn say(&mut self, msg: ToWorker, handle: Option<T>) {
        self.events.push_back(WorkerEvent::Message { msg, handle });
    }

    fn answer(&mut self, bytes: Vec<u8>) {
        self.events.push_back(WorkerEvent::Answer(bytes));
    }

    fn on_refused(&mut self) {
        if self.unacked.refused() != Refused::Stray {
            self.events.push_back(WorkerEvent::UserNotArrived);
        }
    }

    fn on_new_conn(&mut self, seq: u64, key: Option<&str>, handle: Option<T>) {
        let held = self.listeners.iter().find(|held| Some(&*held.key) == key);
        match (held.map(|held| held.listener), parse::seq(seq)) {
            (Some(listener), Some(first_seq)) => {
                self.say(ToWorker::NewConn { first_seq, listener, count: 1 }, handle);
            }
            // As Node does for a server that it has closed.
            _ => {
                let mut bytes = Vec::new();
                self.write_ack(seq, false, &mut bytes);
                self.answer(bytes);
            }
        }
    }

    fn on_answered(&mut self, ack: u64, reply: Reply, handle: Option<T>) {
        // Messages that want an answer have odd numbers.
        let Some(ack) = Seq::from_raw(ack / 2).filter(|_| ack % 2 == 1) else {
            return;
        };
        let Some(at) = self.asked.iter().position(|(seq, ..)| *seq == ack) else {
            return self.say(ToWorker::Ack { ack }, handle);
        };
        let (_, key, fields) = self.asked.swap_remove(at);
        let result = match reply {
            Reply { errno: 0, key: Some(name), data, sockname } => {
                let listener = self.hold(name, fields, &sockname, &key);
                let sockname = sockname.unwrap_or_else(|| asked_name(&key.address));
                let shared = handle.is_some();
                Ok(Box::new(Granted { listener, sockname, shared, data }))
            }
            Reply { errno, .. } => Err(Errno(match errno.unsigned_abs() {
                0 => Errno::EINVAL.0,
                positive => i32::try_from(positive).unwrap_or(Errno::EINVAL.0),
            })),
        };
        self.say(ToWorker::QueryReply { ack, result }, handle);
    }

    fn hold(
        &mut self,
        name: String,
        fields: String,
        sockname: &Option<SockName>,
        key: &ListenKey,
    ) -> ListenerId {
        let listener = self.next_listener;
        self.next_listener = listener.next();
        let asked = key.address.port().map_or(-1, i64::from);
        let port = sockname.as_ref().and_then(SockName::port).map_or(asked, i64::from);
        self.listeners.retain(|held| held.key != name);
        self.listeners.push(Held { listener, key: name, fields, port });
        listener
    }

    /// A message of the program as a line to queue behind everything else, with the handle, if
    /// there is one, on its first byte.
    ///
    /// # Errors
    /// [`DecodeError::BadMessage`] if `json` is not JSON, [`DecodeError::TooManyHandles`] if too
    /// many handles are not answered yet.
    pub fn user_line(
        &mut self,
        json: &str,
        handle: Option<HandleKind>,
    ) -> Result<Vec<u8>, DecodeError> {
        let line = write::user_line(json, handle)?;
        if handle.is_some() {
            self.unacked.sent_once(()).map_err(|Full| DecodeError::TooManyHandles)?;
        }
        Ok(line)
    }

    /// Appends the line for a message; nothing for one that Node has no form for.
    pub fn encode(&mut self, msg: &FromWorker, bytes: &mut Vec<u8>) {
        match msg {
            FromWorker::Online => {
                let seq = self.number();
                write::line(
                    bytes,
                    format_args!(r#"{{"cmd":"NODE_CLUSTER","act":"online","seq":{seq}}}"#),
                );
            }
            FromWorker::Query { seq, key, backlog, data } => {
                self.encode_query(*seq, key, *backlog, data, bytes);
            }
            FromWorker::Listening { listener } => {
                let seq = self.number();
                let held = self.listeners.iter().find(|held| held.listener == *listener);
                let Some(Held { fields, port, .. }) = held else { return };
                let fields = fields.replacen(PORT, &alloc::format!("{port}"), 1);
                write::line(
                    bytes,
                    format_args!(
                        r#"{{"cmd":"NODE_CLUSTER","act":"listening",{fields},"seq":{seq}}}"#
                    ),
                );
            }
            FromWorker::Ack { ack, accepted } => {
                self.write_ack(parse::wire_seq(*ack), *accepted, bytes);
            }
            FromWorker::Close { listener } => {
                if let Some(at) = self.listeners.iter().position(|h| h.listener == *listener) {
                    let held = self.listeners.swap_remove(at);
                    self.write_close(&held, bytes);
                }
            }
            FromWorker::Suicide { seq } => {
                self.close_all(bytes);
                write::line(bytes, format_args!(r#"{{"act":"suicide"}}"#));
                // Nobody will confirm it.
                self.say(ToWorker::Ack { ack: *seq }, None);
            }
            FromWorker::ExitedAfterDisconnect { seq } => {
                // So that no connection comes after the answer.
                self.close_all(bytes);
                let seq = wanting_answer(*seq);
                write::line(
                    bytes,
                    format_args!(
                        r#"{{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":{seq}}}"#
                    ),
                );
            }
            FromWorker::Ready => write::line(bytes, format_args!("\"ready\"")),
            FromWorker::Pong { .. }
            | FromWorker::Load { .. }
            | FromWorker::Lag { .. }
            | FromWorker::StopSignal { .. } => {}
        }
    }

    fn encode_query(
        &mut self,
        seq: Seq,
        key: &ListenKey,
        backlog: u32,
        data: &[u8],
        bytes: &mut Vec<u8>,
    ) {
        let Some((fields, port)) = fields(key, backlog, data) else {
            let result = Err(Errno::EINVAL);
            return self.say(ToWorker::QueryReply { ack: seq, result }, None);
        };
        let number = wanting_answer(seq);
        let asked = fields.replacen(PORT, &alloc::format!("{port}"), 1);
        write::line(
            bytes,
            format_args!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer",{asked},"seq":{number}}}"#),
        );
        self.asked.retain(|(other, ..)| *other != seq);
        self.asked.push((seq, key.clone(), fields));
    }

    fn write_close(&mut self, held: &Held, bytes: &mut Vec<u8>) {
        let (key, seq) = (write::quoted(&held.key), self.number());
        write::line(
            bytes,
            format_args!(r#"{{"cmd":"NODE_CLUSTER","act":"close","key":{key},"seq":{seq}}}"#),
        );
    }

    /// Closes every listener: Node hands connections to every worker that has not done so.
    fn close_all(&mut self, bytes: &mut Vec<u8>) {
        for held in core::mem::take(&mut self.listeners) {
            self.write_close(&held, bytes);
        }
    }

    fn write_ack(&mut self, ack: u64, accepted: bool, bytes: &mut Vec<u8>) {
        let seq = self.number();
        write::line(
            bytes,
            format_args!(
                r#"{{"cmd":"NODE_CLUSTER","ack":{ack},"accepted":{accepted},"seq":{seq}}}"#
            ),
        );
    }

    /// The next number for a message that wants no answer: even.
    fn number(&mut self) -> u64 {
        let number = self.said;
        self.said += 2;
        number
    }
}

/// The number of a message that wants an answer: odd, so that the answer leads back.
const fn wanting_answer(seq: Seq) -> u64 {
    seq.get() * 2 + 1
}

/// Where the port belongs in a query's fields, which are written twice with different ports.
const PORT: &str = "\u{0}";

/// The fields of a query, and the port; `None` for an address that Node has no form for.
fn fields(key: &ListenKey, backlog: u32, data: &[u8]) -> Option<(String, i64)> {
    let udp = key.transport != Transport::Stream;
    let reuse = if key.transport == Transport::DatagramReuse { UDP_REUSEADDR } else { 0 };
    let flags = u16::from(key.v6_only) | reuse;
    let kind = |addr: &SocketAddr| match (udp, addr.is_ipv4()) {
        (false, true) => "4",
        (false, false) => "6",
        (true, true) => "\"udp4\"",
        (true, false) => "\"udp6\"",
    };
    let (address, port, kind, tail) = match &key.address {
        Address::Any { port } if udp => {
            let tail = alloc::format!(r#","fd":-1,"flags":{reuse}"#);
            ("\"::\"".to_owned(), i64::from(*port), "\"udp6\"", tail)
        }
        Address::Any { port } => ("null".to_owned(), i64::from(*port), "4", String::new()),
        Address::Ip(addr) => {
            let fd = if udp { r#","fd":-1"# } else { "" };
            let tail = alloc::format!(r#"{fd},"flags":{flags}"#);
            (alloc::format!("\"{}\"", addr.ip()), i64::from(addr.port()), kind(addr), tail)
        }
        Address::Unix(path) => (write::quoted(path), -1, "-1", String::new()),
        Address::Fd(fd) => ("null".to_owned(), -1, "null", alloc::format!(r#","fd":{fd}"#)),
        Address::Nth(_) => return None,
    };
    let data = write::one_line(data);
    let data = data.as_deref().unwrap_or("null");
    let index = key.index;
    let backlog = if udp { String::new() } else { alloc::format!(r#","backlog":{backlog}"#) };
    let fields = alloc::format!(
        r#""index":{index},"data":{data},"address":{address},"port":{PORT},"addressType":{kind}{tail}{backlog}"#
    );
    Some((fields, port))
}

/// The name of a listener if the primary did not send one: what was asked for.
fn asked_name(address: &Address) -> SockName {
    match address {
        Address::Unix(path) => SockName::Unix(path.clone()),
        Address::Ip(addr) => SockName::Ip(*addr),
        Address::Any { port } => SockName::Ip(SocketAddr::from(([0_u16; 8], *port))),
        Address::Fd(_) | Address::Nth(_) => SockName::Unix(String::new()),
    }
}
