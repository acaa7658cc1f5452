//! Our primary in the place of Node's.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use roundel_core::node::{HandleKind, PrimaryEvent, PrimarySide};
use roundel_core::{
    Address, Attach, Codec, Command, Config, Custody, Errno, ExitStatus, Input, ListenKey,
    ListenerId, Output, Primary, Respawn, SockName, Time, Transport, WorkerId,
};
use serde_json::Value;

use crate::compare::Renaming;
use crate::table::Table;
use crate::{Captured, What};

/// Has the captured conversation with our primary.
pub(crate) fn replay(name: &str, captured: &[Captured], table: &mut Table) {
    let mut replay = Replay::new(name, captured);
    replay.carry_out();
    for line in captured {
        replay.now += Duration::from_secs(2);
        let worker = replay.worker(&line.worker);
        match &line.what {
            What::ToPrimary { message, handle } => replay.hear(worker, message, handle),
            What::ToWorker { message, handle } => replay.expect(worker, message, handle, table),
            What::WorkerClosed => replay.input(Input::ChannelClosed { worker }),
            What::PrimaryClosed => return,
            What::Exit { code } => {
                let status = match i32::try_from(*code).unwrap() {
                    code if code < 0 => ExitStatus::Signal(-code),
                    code => ExitStatus::Code(code),
                };
                replay.input(Input::Exited { worker, status });
                replay.gone = worker.get();
            }
        }
    }
    for (worker, sent) in &replay.sent {
        assert!(sent.is_empty(), "{name}: Node said nothing like {sent:?} to {worker}");
    }
}

struct Replay {
    name: String,
    now: Time,
    core: Primary,
    custody: Custody<()>,
    sides: BTreeMap<WorkerId, PrimarySide<()>>,
    /// What our primary said and Node's is still to say.
    sent: BTreeMap<WorkerId, VecDeque<(Value, String)>>,
    listeners: BTreeMap<ListenerId, (ListenKey, SockName)>,
    renaming: Renaming,
    next_port: u16,
    /// The last worker that has ended, where the capture has no names for them.
    gone: u64,
}

impl Replay {
    fn new(name: &str, captured: &[Captured]) -> Self {
        let fork = captured.iter().any(|line| line.worker == "?");
        let workers = captured.iter().filter_map(|line| line.worker.parse().ok()).max();
        let mut config = Config::builder()
            .workers(workers.unwrap_or(1))
            .node_window(1)
            .respawn(if fork { Respawn::Always } else { Respawn::Never });
        if name.starts_with("sched-none") {
            config = config.policy(roundel_core::Policy::Shared);
        }
        if fork {
            let listener = ListenKey::stream(Address::Any { port: 1_000 });
            config = config.listeners(vec![listener]).pass_listeners(true);
        }
        Replay {
            name: name.to_owned(),
            now: Time::ZERO,
            core: Primary::new(config.build().unwrap()),
            custody: Custody::new(),
            sides: BTreeMap::new(),
            sent: BTreeMap::new(),
            listeners: BTreeMap::new(),
            renaming: Renaming::default(),
            next_port: 40_000,
            gone: 0,
        }
    }

    fn worker(&self, captured: &str) -> WorkerId {
        let number = captured.parse().unwrap_or(self.gone + 1);
        WorkerId::from_raw(number).unwrap()
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(self.now, input).unwrap();
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Spawn { worker, .. } => {
                    self.sides.insert(worker, PrimarySide::new(1 << 20));
                    self.input(Input::Spawned { worker, pid: 1 });
                    if !self.core.config().pass_listeners() {
                        self.input(Input::Hello { worker, codec: Codec::Node });
                    }
                }
                Output::Bind { listener, key, .. } => {
                    let result = self.bind(listener, &key);
                    self.input(Input::Bound { listener, result });
                }
                Output::Unbind { listener } | Output::Close { listener } => {
                    self.input(Input::Unbound { listener })
                }
                Output::Send { worker, msg, attach } => {
                    let side = self.sides.get_mut(&worker).unwrap();
                    side.note(&msg);
                    let mut bytes = Vec::new();
                    side.encode(&msg, &mut bytes);
                    let handle = attach.map_or("none".into(), |attach| self.handle_name(attach));
                    self.say(worker, &bytes, handle);
                }
                Output::Release { conn, .. } => assert!(self.custody.release(conn).is_some()),
                _ => {}
            }
        }
    }

    /// What a kernel would say.
    fn bind(&mut self, listener: ListenerId, key: &ListenKey) -> Result<SockName, Errno> {
        let mut port = || {
            self.next_port += 1;
            self.next_port
        };
        let sockname = match &key.address {
            Address::Any { port: 0 } => SockName::Ip(SocketAddr::from(([0_u16; 8], port()))),
            Address::Any { port } => SockName::Ip(SocketAddr::from(([0_u16; 8], *port))),
            Address::Ip(addr) => SockName::Ip(*addr),
            Address::Unix(path) => SockName::Unix(path.clone()),
            other => panic!("{other:?}"),
        };
        let taken = self.listeners.values().any(|(_, name)| *name == sockname)
            || self.name.starts_with("address-in-use");
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        self.listeners.insert(listener, (key.clone(), sockname.clone()));
        Ok(sockname)
    }

    fn handle_name(&self, attach: Attach) -> String {
        let (listener, is_conn) = match attach {
            Attach::Conn(_) => (*self.listeners.keys().next().unwrap(), true),
            Attach::Listener(listener) => (listener, false),
        };
        let (key, sockname) = &self.listeners[&listener];
        let udp = key.transport == Transport::Datagram;
        let family = match sockname {
            SockName::Ip(SocketAddr::V4(_)) => "4",
            SockName::Ip(SocketAddr::V6(_)) => "6",
            _ => "",
        };
        match (sockname, udp, is_conn) {
            (SockName::Unix(_), _, true) => "unix-connection".into(),
            (_, true, _) => format!("udp{family}-socket"),
            (_, false, true) => format!("tcp{family}-connection"),
            (_, false, false) => format!("tcp{family}-listener"),
        }
    }

    fn say(&mut self, worker: WorkerId, bytes: &[u8], handle: String) {
        let mut handle = Some(handle);
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let message = serde_json::from_slice(line).unwrap();
            let entry = (message, handle.take().unwrap_or("none".into()));
            self.sent.entry(worker).or_default().push_back(entry);
        }
    }

    /// A worker's captured message reaches our primary, in our words.
    fn hear(&mut self, worker: WorkerId, message: &Value, handle: &str) {
        assert_eq!(handle, "none", "no worker sent a handle");
        let mut message = message.clone();
        let channel = worker.to_string();
        if message["cmd"] == "NODE_CLUSTER" {
            for (field, named) in [("ack", "seq"), ("key", "key"), ("port", "port")] {
                if let Some(value) = message.get_mut(field)
                    && (field != "port" || value != 0)
                {
                    *value = self.renaming.ours(named, &channel, value);
                }
            }
        }
        let line = format!("{message}\n");
        self.sides.get_mut(&worker).unwrap().feed(line.as_bytes(), None);
        while let Some(event) = self.sides.get_mut(&worker).unwrap().poll().unwrap() {
            match event {
                PrimaryEvent::Message(msg) => self.input(Input::Message { worker, msg }),
                PrimaryEvent::Answer(bytes) => self.say(worker, &bytes, "none".into()),
                PrimaryEvent::User { json, .. } => {
                    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), message);
                }
                other => panic!("{}: {message} leads to {other:?}", self.name),
            }
        }
    }

    /// Node's primary said this: ours must, too.
    fn expect(&mut self, worker: WorkerId, message: &Value, handle: &str, table: &mut Table) {
        let name = self.name.clone();
        if message["cmd"] == "NODE_SOCKET_NOTIFY_CLOSE" {
            assert!(table.allows("socket-bookkeeping", &name));
            return;
        }
        if self.sent.get(&worker).is_none_or(VecDeque::is_empty) {
            self.bring_about(worker, message);
        }
        let sent = self.sent.entry(worker).or_default().pop_front();
        let (ours, our_handle) =
            sent.unwrap_or_else(|| panic!("{name}: ours is silent on {message}"));
        let mut captured = message.clone();
        if captured["type"] == "net.Socket" && captured.get("key").is_some() {
            assert!(table.allows("socket-bookkeeping", &name));
            captured.as_object_mut().unwrap().remove("key");
        }
        let mut ours = ours;
        if captured["errno"].as_i64().is_some_and(|errno| errno < 0) {
            assert!(table.allows("key-of-a-refusal", &name));
            for refusal in [&mut captured, &mut ours] {
                refusal.as_object_mut().unwrap().remove("key").expect("a key");
            }
        }
        if let Err(why) = self.renaming.is_same(&worker.to_string(), &captured, &ours) {
            panic!("{name}: Node said {captured}, ours {ours}: {why}");
        }
        let listens = our_handle.replace("listener", "bound") == handle
            && table.allows("shared-listens", &name);
        assert!(our_handle == handle || listens, "{name}: {handle} is not {our_handle}");
    }

    /// Has our primary say what Node's said of its own accord.
    fn bring_about(&mut self, worker: WorkerId, message: &Value) {
        let inner = if message["cmd"] == "NODE_HANDLE" { &message["msg"] } else { message };
        if inner["act"] == "newconn" {
            let key = self.renaming.ours("key", "", &inner["key"]);
            let listener = ListenerId::from_raw(key.as_str().unwrap().parse().unwrap()).unwrap();
            let conn = self.custody.admit(());
            self.input(Input::Incoming { listener, conn });
        } else if inner["act"] == "disconnect" {
            self.input(Input::Command(Command::Stop));
        } else if inner["cmd"] != "NODE_CLUSTER" {
            let (kind, handle) = match message["type"].as_str() {
                Some("net.Server") => (Some(HandleKind::NetServer), "tcp6-listener"),
                Some("net.Socket") => (Some(HandleKind::NetSocket), "tcp6-connection"),
                _ => (None, "none"),
            };
            let side = self.sides.get_mut(&worker).unwrap();
            let line = side.user_line(&inner.to_string(), kind).unwrap();
            self.say(worker, &line, handle.into());
        }
    }
}
