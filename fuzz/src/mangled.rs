//! A primary and its workers over channels that lose, change, cut and repeat bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use roundel_core::wire::{Decoder, encode, encode_hello};
use roundel_core::{
    Address, Attach, Codec, Command, Config, ConnId, ConnRange, Custody, ExitStatus, FromWorker,
    Inbox, Input, ListenKey, Output, Primary, SockName, Time, Violation, Worker, WorkerId,
    WorkerInput, WorkerOutput,
};

use crate::MAX_FRAME;
use crate::script::Script;

/// No matter what a channel does to bytes, the primary keeps its invariants, a worker whose bytes
/// make no sense is ended, and nobody but that worker's own connections is touched: each connection
/// is held or released, once. At the end, a shutdown ends.
pub fn mangled_channels(data: &[u8]) {
    let mut script = Script::new(data);
    let mut cluster = Cluster::new();
    cluster.settle();
    while !script.is_over() {
        let at = script.byte();
        match script.below(8) {
            0 | 1 => cluster.connect(),
            2..5 => cluster.carry(at, &mut script, false),
            5 => cluster.carry(at, &mut script, true),
            6 if script.byte() < 32 => cluster.crash(at),
            6 => cluster.want(at),
            _ => cluster.pass(Duration::from_millis(u64::from(at) * u64::from(at))),
        }
        cluster.settle();
    }
    cluster.end();
}

/// A worker with both directions of its channel.
struct Peer {
    worker: Worker,
    custody: Custody<ConnId>,
    inbox: Inbox<ConnId>,
    /// Towards the worker, and the handles on it, each at its place in the stream.
    there: Vec<u8>,
    handles: Vec<(usize, ConnId)>,
    /// Towards the primary.
    back: Vec<u8>,
    decoder: Decoder<FromWorker>,
    greeted: bool,
    asked: bool,
}

struct Cluster {
    primary: Primary,
    now: Time,
    peers: BTreeMap<WorkerId, Peer>,
    held: Custody<()>,
    listening: bool,
    stopped: bool,
}

impl Cluster {
    fn new() -> Self {
        let key = ListenKey::stream(Address::Any { port: 80 });
        let config = Config::builder().workers(2).window(2).max_pending(16).listeners(vec![key]);
        Cluster {
            primary: Primary::new(config.build().expect("a valid configuration")),
            now: Time::from_millis(1),
            peers: BTreeMap::new(),
            held: Custody::new(),
            listening: false,
            stopped: false,
        }
    }

    fn input(&mut self, input: Input) {
        if let Err(misuse) = self.primary.handle_input(self.now, input) {
            panic!("misuse: {misuse}");
        }
    }

    fn connect(&mut self) {
        if self.listening && self.held.len() < 64 {
            let listener = roundel_core::ListenerId::from_raw(1).expect("not zero");
            let conn = self.held.admit(());
            self.input(Input::Incoming { listener, conn });
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.input(Input::Wake);
    }

    fn chosen(&mut self, at: u8) -> Option<WorkerId> {
        self.peers.keys().copied().nth(usize::from(at) % self.peers.len().max(1))
    }

    /// The program of a worker takes a connection, or declines it.
    fn want(&mut self, at: u8) {
        let Some(id) = self.chosen(at) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let input = if at < 200 {
            WorkerInput::Take { listener: None }
        } else {
            WorkerInput::Decline { listener: None }
        };
        let _ = peer.worker.handle_input(self.now, input);
    }

    fn crash(&mut self, at: u8) {
        let Some(id) = self.chosen(at) else { return };
        self.hang_up(id);
    }

    /// The process ends; what it has written is still read.
    fn hang_up(&mut self, id: WorkerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let bytes = std::mem::take(&mut peer.back);
        self.hear(id, &bytes);
        if self.peers.remove(&id).is_some() {
            self.input(Input::ChannelClosed { worker: id });
            self.input(Input::Exited { worker: id, status: ExitStatus::Signal(9) });
        }
    }

    /// Some bytes arrive, in one direction; perhaps not as they were sent.
    fn carry(&mut self, at: u8, script: &mut Script<'_>, mangle: bool) {
        let Some(id) = self.chosen(at / 2) else { return };
        let count = 1 + usize::from(script.byte());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if at.is_multiple_of(2) {
            let mut bytes: Vec<u8> = peer.back.drain(..count.min(peer.back.len())).collect();
            if mangle {
                spoil(&mut bytes, script);
            }
            self.hear(id, &bytes);
        } else {
            let mut count = count.min(peer.there.len());
            // A read ends before the next message with handles.
            if let Some((place, _)) = peer.handles.iter().find(|(place, _)| *place > 0) {
                count = count.min(*place);
            }
            let mut bytes: Vec<u8> = peer.there.drain(..count).collect();
            let (now, later): (Vec<_>, Vec<_>) =
                peer.handles.drain(..).partition(|(place, _)| *place == 0 && count > 0);
            peer.handles = later.into_iter().map(|(place, it)| (place - count, it)).collect();
            let mut handles: Vec<ConnId> = now.into_iter().map(|(_, it)| it).collect();
            if mangle {
                spoil(&mut bytes, script);
                // At its limit of open files, a process gets the bytes alone.
                handles.truncate(usize::from(script.flag()));
            }
            self.tell(id, &bytes, handles);
        }
    }

    /// The primary reads.
    fn hear(&mut self, id: WorkerId, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if bytes.is_empty() {
            return;
        }
        let hello = !std::mem::replace(&mut peer.greeted, true);
        peer.decoder.feed(bytes);
        let mut heard = Vec::new();
        let error = loop {
            match peer.decoder.poll() {
                Ok(Some((msg, _))) => heard.push(msg),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let unfinished = peer.decoder.is_mid_frame();
        if hello {
            self.input(Input::Hello { worker: id, codec: Codec::Native });
        }
        for msg in heard {
            self.input(Input::Message { worker: id, msg });
        }
        if let Some(error) = error {
            self.input(Input::Violation { worker: id, what: Violation::Decode(error) });
        } else if unfinished {
            self.input(Input::FrameBegun { worker: id });
        }
    }

    /// A worker reads.
    fn tell(&mut self, id: WorkerId, bytes: &[u8], handles: Vec<ConnId>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if bytes.is_empty() {
            return;
        }
        peer.inbox.feed(bytes, handles);
        loop {
            match peer.inbox.poll() {
                Ok(Some(received)) => {
                    let handles: Vec<ConnId> =
                        (0..received.handles).filter_map(|_| peer.inbox.take_handle()).collect();
                    let handles: ConnRange = peer.custody.admit_all(handles);
                    let input = WorkerInput::Message { msg: received.msg, handles };
                    if let Err(misuse) = peer.worker.handle_input(self.now, input) {
                        panic!("misuse: {misuse}");
                    }
                }
                Ok(None) => break,
                // A worker that understands nothing any more ends.
                Err(_) => return self.hang_up(id),
            }
        }
    }

    /// Carries all outputs out. What workers say waits in their channels.
    fn settle(&mut self) {
        loop {
            while let Some(output) = self.primary.poll_output() {
                self.obey(output);
            }
            for peer in self.peers.values_mut() {
                peer.speak(self.now);
            }
            if !self.primary.has_output() {
                break;
            }
        }
        if let Err(broken) = self.primary.check() {
            panic!("{broken}");
        }
        assert_eq!(self.primary.held().len(), self.held.len(), "one is lost, or held twice");
        for peer in self.peers.values() {
            if let Err(broken) = peer.worker.check() {
                panic!("{broken}");
            }
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Bind { listener, .. } => {
                let result = Ok(SockName::Ip(([0, 0, 0, 0], 80).into()));
                self.input(Input::Bound { listener, result });
            }
            Output::ResumeAccept { .. } => self.listening = true,
            Output::PauseAccept { .. } => self.listening = false,
            Output::Unbind { listener } | Output::Close { listener } => {
                self.listening = false;
                self.input(Input::Unbound { listener });
            }
            Output::Spawn { worker, .. } => {
                self.input(Input::Spawned { worker, pid: 1 });
                self.peers.insert(worker, Peer::new());
            }
            Output::Send { worker, msg, attach } => {
                let Some(peer) = self.peers.get_mut(&worker) else { return };
                let place = peer.there.len();
                encode(&msg, MAX_FRAME, &mut peer.there).expect("a short message");
                if let Some(Attach::Conn(conn)) = attach {
                    assert!(self.held.get(conn).is_some(), "{conn} is handed off and not held");
                    peer.handles.push((place, conn));
                }
            }
            Output::Kill { worker, .. } | Output::ShutdownRead { worker } => self.hang_up(worker),
            Output::Release { conn, .. } => {
                assert!(self.held.release(conn).is_some(), "{conn} is released twice");
            }
            Output::Stopped(_) => self.stopped = true,
            _ => {}
        }
    }

    /// Everybody is as slow as can be, and nobody can hold up the end.
    fn end(mut self) {
        self.input(Input::Command(Command::Stop));
        self.settle();
        for _ in 0..64 {
            let Some(deadline) = self.primary.poll_timeout() else { break };
            self.now = self.now.max(deadline.at);
            self.input(Input::Wake);
            self.settle();
        }
        assert!(self.stopped, "the shutdown does not end");
        assert!(self.held.is_empty(), "something is held at the end");
    }
}

impl Peer {
    fn new() -> Peer {
        let mut there = Vec::new();
        encode_hello(&mut there);
        let mut back = Vec::new();
        encode_hello(&mut back);
        Peer {
            worker: Worker::new(),
            custody: Custody::new(),
            inbox: Inbox::new(MAX_FRAME),
            there,
            handles: Vec::new(),
            back,
            decoder: Decoder::new(MAX_FRAME),
            greeted: false,
            asked: false,
        }
    }

    fn speak(&mut self, now: Time) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                WorkerOutput::Send(msg) => {
                    encode(&msg, MAX_FRAME, &mut self.back).expect("a short message");
                    let _ = self.worker.handle_input(now, WorkerInput::Sent);
                    if !std::mem::replace(&mut self.asked, true) {
                        let key = Box::new(ListenKey::stream(Address::Nth(0)));
                        let ask = WorkerInput::Listen { ask: 0, key, backlog: 0, data: Vec::new() };
                        let _ = self.worker.handle_input(now, ask);
                    }
                }
                WorkerOutput::Deliver { conn, .. }
                | WorkerOutput::Discard { conn }
                | WorkerOutput::Granted { handle: Some(conn), .. } => {
                    assert!(self.custody.release(conn).is_some(), "{conn} is delivered twice");
                }
                _ => {}
            }
        }
    }
}

/// Changes some bytes, loses some, repeats some.
fn spoil(bytes: &mut Vec<u8>, script: &mut Script<'_>) {
    let place = usize::from(script.byte());
    match script.below(4) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << script.below(8);
            }
        }
        1 => bytes.truncate(place),
        2 => {
            let again = bytes.get(place..).unwrap_or_default().to_vec();
            bytes.extend(again);
        }
        _ => {
            let at = place.min(bytes.len());
            bytes.splice(at..at, script.bytes());
        }
    }
}
