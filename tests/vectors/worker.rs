//! Our worker in the place of Node's.

use std::collections::VecDeque;

use roundel_core::node::{WorkerEvent, WorkerSide};
use roundel_core::{
    Address, Custody, ListenKey, Time, Transport, Worker, WorkerInput, WorkerOutput,
};
use serde_json::Value;

use crate::compare::Renaming;
use crate::table::Table;
use crate::{Captured, What};

/// Has the captured conversation with our worker.
pub(crate) fn replay(name: &str, captured: &[Captured], table: &mut Table) {
    let mut replay = Replay {
        name: name.to_owned(),
        core: Worker::new(),
        side: WorkerSide::new(1 << 20),
        custody: Custody::new(),
        sent: VecDeque::new(),
        renaming: Renaming::default(),
        next_ask: 0,
        told_to_leave: false,
    };
    replay.carry_out();
    for line in captured {
        match &line.what {
            What::ToWorker { message, handle } => replay.hear(message, handle),
            What::ToPrimary { message, .. } => replay.expect(message, table),
            What::PrimaryClosed => replay.input(WorkerInput::ChannelClosed),
            What::WorkerClosed | What::Exit { .. } => {}
        }
    }
    for ours in &replay.sent {
        let announced = ours["act"] == "exitedAfterDisconnect";
        let allowed = announced && table.allows("leave-is-announced", name);
        assert!(allowed, "{name}: Node's worker said nothing like {ours}");
    }
}

struct Replay {
    name: String,
    core: Worker,
    side: WorkerSide<()>,
    custody: Custody<()>,
    /// What our worker said and Node's is still to say.
    sent: VecDeque<Value>,
    renaming: Renaming,
    next_ask: u32,
    /// From here on our worker has to leave by itself.
    told_to_leave: bool,
}

impl Replay {
    fn input(&mut self, input: WorkerInput) {
        self.core.handle_input(Time::ZERO, input).unwrap();
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                WorkerOutput::Send(msg) => {
                    let mut bytes = Vec::new();
                    self.side.encode(&msg, &mut bytes);
                    self.say(&bytes);
                    self.input(WorkerInput::Sent);
                }
                WorkerOutput::Deliver { conn, .. } | WorkerOutput::Discard { conn } => {
                    assert!(self.custody.release(conn).is_some());
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        self.sent.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
    }

    /// The primary's captured message reaches our worker, in our words.
    fn hear(&mut self, message: &Value, handle: &str) {
        let mut message = message.clone();
        let inner =
            if message["cmd"] == "NODE_HANDLE" { &mut message["msg"] } else { &mut message };
        self.told_to_leave |= inner["act"] == "disconnect";
        if inner["cmd"] == "NODE_CLUSTER"
            && let Some(ack) = inner.get_mut("ack")
        {
            *ack = self.renaming.ours("seq", "", ack);
        }
        let line = format!("{message}\n");
        self.side.feed(line.as_bytes(), (handle != "none").then_some(()));
        while let Some(event) = self.side.poll().unwrap() {
            match event {
                WorkerEvent::Message { msg, handle } => {
                    let handles = self.custody.admit_all(handle);
                    self.input(WorkerInput::Message { msg, handles });
                }
                WorkerEvent::Answer(bytes) => self.say(&bytes),
                WorkerEvent::User { json, .. } => {
                    let said: Value = serde_json::from_str(&json).unwrap();
                    assert!(said == message || said == message["msg"]);
                }
                other => panic!("{}: {message} leads to {other:?}", self.name),
            }
        }
    }

    /// Node's worker said this: ours must, too.
    fn expect(&mut self, message: &Value, table: &mut Table) {
        let name = self.name.clone();
        if message["addressType"] == -1 && message["address"].is_null() {
            assert!(table.allows("no-address", &name));
            return;
        }
        // When a program speaks, or wants to listen, is its own affair, and has no order with
        // answers.
        let wished = |ours: &Value| {
            ours["act"] == "queryServer"
                || ours["cmd"].as_str().is_none_or(|cmd| !cmd.starts_with("NODE_"))
        };
        let wish = wished(message);
        if self.sent.is_empty() || (wish && !self.sent.iter().any(wished)) {
            self.bring_about(message);
        }
        while self.sent.front().is_some_and(|ours| {
            ours["act"] == "close"
                && message["act"] != "close"
                && table.allows("closes-first", &name)
        }) {
            self.sent.pop_front();
        }
        while self.sent.front().is_some_and(|ours| {
            ours["cmd"] == "NODE_SOCKET_ALL_CLOSED"
                && message["cmd"] != "NODE_SOCKET_ALL_CLOSED"
                && table.allows("sockets-end-at-once", &name)
        }) {
            self.sent.pop_front();
        }
        let at = if wish { self.sent.iter().position(wished) } else { Some(0) };
        let ours = at.and_then(|at| self.sent.remove(at));
        let ours = ours.unwrap_or_else(|| panic!("{name}: ours is silent on {message}"));
        let mut captured = message.clone();
        if captured["flags"] == 0 && ours.get("flags").is_none() {
            assert!(table.allows("no-flags", &name));
            captured.as_object_mut().unwrap().remove("flags");
        }
        if let Err(why) = self.renaming.is_same("", &captured, &ours) {
            panic!("{name}: Node's worker said {captured}, ours {ours}: {why}");
        }
    }

    /// Has our worker say what Node's said of its own accord.
    fn bring_about(&mut self, message: &Value) {
        match (message["act"].as_str(), message["accepted"].as_bool()) {
            (Some("queryServer"), _) => {
                let ask = self.next_ask;
                self.next_ask += 1;
                let backlog = message["backlog"].as_u64().unwrap_or(0) as u32;
                let data = message["data"].to_string().into_bytes();
                let key = Box::new(key(message));
                self.input(WorkerInput::Listen { ask, key, backlog, data });
            }
            (Some("close"), _) if self.name == "server-close-in-worker" => {
                let listener = roundel_core::ListenerId::from_raw(1).unwrap();
                self.input(WorkerInput::CloseListener { listener });
            }
            (Some("close" | "exitedAfterDisconnect"), _) if !self.told_to_leave => {
                self.input(WorkerInput::Leave)
            }
            (_, Some(true)) => self.input(WorkerInput::Take { listener: None }),
            (_, Some(false)) => self.input(WorkerInput::Decline { listener: None }),
            _ if message["cmd"] != "NODE_CLUSTER" => {
                let line = self.side.user_line(&message.to_string(), None).unwrap();
                self.say(&line);
            }
            _ => {}
        }
    }
}

/// What a program of ours would ask for.
fn key(query: &Value) -> ListenKey {
    let port = query["port"].as_i64().unwrap();
    let address = match query["address"].as_str() {
        None => Address::Any { port: port as u16 },
        Some(path) if query["addressType"] == -1 => Address::Unix(path.into()),
        Some(ip) => Address::Ip(std::net::SocketAddr::new(ip.parse().unwrap(), port as u16)),
    };
    let mut key = ListenKey::stream(address);
    key.v6_only = query["flags"] == 1;
    if query["addressType"].as_str().is_some_and(|kind| kind.starts_with("udp")) {
        key.transport = Transport::Datagram;
    }
    key
}
