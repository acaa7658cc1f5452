//! A primary played by hand that hands connections over at many listeners, in either codec.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use roundel_core::node::{PrimaryEvent, PrimarySide};
use roundel_core::wire::{self, Decoder};
use roundel_core::{Codec, Errno, FromWorker, Granted, ListenerId, Seq, SockName, ToWorker};
use roundel_runtime::unix::channel;
use roundel_runtime::worker::WorkerDriver;

const MAX: u32 = wire::MAX_FRAME_DEFAULT;
/// As errno(3) numbers it on Linux: the other end is closed.
const EPIPE: Errno = Errno(32);

enum Speech {
    Native(Decoder<FromWorker>),
    Node(Box<PrimarySide<OwnedFd>>),
}

/// The other end of a worker's channel.
pub struct Dealer {
    fd: OwnedFd,
    /// The worker's end, to write there what the worker did not.
    worker: Arc<OwnedFd>,
    speech: Speech,
    is_greeted: bool,
    /// What is handed over, again and again.
    cargo: (OwnedFd, OwnedFd),
    /// Listeners that were granted and of which no close was heard.
    pub listeners: Vec<ListenerId>,
    granted: u64,
    /// Asks that were heard and not granted yet.
    asks: Vec<Seq>,
    last: u64,
    /// Handoffs without an answer.
    in_flight: BTreeSet<u64>,
    is_dismissed: bool,
    clogged: usize,
}

impl Dealer {
    /// One of a worker in this process, which speaks like this.
    pub fn new(codec: Codec) -> (Dealer, WorkerDriver) {
        // The first end does not block, as a worker's must not.
        let (worker, fd) = channel::pair().unwrap();
        let driver = WorkerDriver::new(Some((worker, codec)));
        let worker = Arc::clone(driver.channel_fd().unwrap());
        let speech = match codec {
            Codec::Node => Speech::Node(Box::new(PrimarySide::new(MAX))),
            _ => Speech::Native(Decoder::new(MAX)),
        };
        let dealer = Dealer {
            fd,
            worker,
            speech,
            is_greeted: codec == Codec::Node,
            cargo: channel::pair().unwrap(),
            listeners: Vec::new(),
            granted: 0,
            asks: Vec::new(),
            last: 0,
            in_flight: BTreeSet::new(),
            is_dismissed: false,
            clogged: 0,
        };
        (dealer, driver)
    }

    /// How many handoffs are not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn send(&mut self, msg: &ToWorker, with_handle: bool) {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.is_greeted, true) {
            wire::encode_hello(&mut bytes);
        }
        match &mut self.speech {
            Speech::Native(_) => wire::encode(msg, MAX, &mut bytes).unwrap(),
            Speech::Node(side) => {
                side.note(msg);
                side.encode(msg, &mut bytes);
            }
        }
        let handles = [self.cargo.0.as_fd()];
        let handles = if with_handle { &handles[..] } else { &[] };
        let sent = channel::send(self.fd.as_fd(), &bytes, handles);
        // A worker that was told to leave may have left before it hears its last answers.
        let has_left = self.is_dismissed && sent == Err(EPIPE);
        assert!(has_left || sent == Ok(bytes.len()), "{msg:?}: {sent:?}");
    }

    /// Hands a connection over at the nth listener that is open.
    pub fn deal(&mut self, nth: usize) {
        self.last += 1;
        self.in_flight.insert(self.last);
        let (first_seq, listener) = (Seq::from_raw(self.last).unwrap(), self.listeners[nth]);
        self.send(&ToWorker::NewConn { first_seq, listener, count: 1 }, true);
    }

    /// Tells the worker to leave.
    pub fn dismiss(&mut self) {
        self.is_dismissed = true;
        self.send(&ToWorker::Drain { deadline_ms: 60_000 }, false);
    }

    /// Waits for an ask, and grants it.
    pub fn grant(&mut self) {
        self.unclog();
        while !self.grant_asked() {
            // Until there is something to hear.
            let stream = UnixStream::from(self.fd.try_clone().unwrap());
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut byte = [0];
            assert_eq!((&stream).read(&mut byte).unwrap(), 1, "the channel has ended");
            self.feed(&byte);
        }
    }

    /// Grants what was asked for; false if nothing was.
    pub fn grant_asked(&mut self) -> bool {
        self.hear();
        let asks = std::mem::take(&mut self.asks);
        asks.iter().for_each(|ask| self.grant_to(*ask));
        !asks.is_empty()
    }

    fn grant_to(&mut self, ask: Seq) {
        self.granted += 1;
        let listener = ListenerId::from_raw(self.granted).unwrap();
        let port = u16::try_from(self.granted).unwrap();
        let sockname = SockName::Ip(([127, 0, 0, 1], port).into());
        let granted = Granted { listener, sockname, shared: false, data: b"null".to_vec() };
        self.listeners.push(listener);
        self.send(&ToWorker::QueryReply { ack: ask, result: Ok(Box::new(granted)) }, false);
    }

    fn feed(&mut self, bytes: &[u8]) {
        match &mut self.speech {
            Speech::Native(decoder) => decoder.feed(bytes),
            Speech::Node(side) => side.feed(bytes, None),
        }
    }

    /// Hears everything that the worker has said.
    pub fn hear(&mut self) {
        let mut heard = Vec::new();
        if self.clogged > 0 {
            return;
        }
        let mut buffer = [0; 4096];
        loop {
            self.decode(&mut heard);
            let Ok(count @ 1..) = channel::recv(self.fd.as_fd(), &mut buffer) else { break };
            self.feed(&buffer[..count]);
        }
        for msg in &heard {
            match msg {
                FromWorker::Ack { ack, .. } => {
                    assert!(self.in_flight.remove(&ack.get()), "{msg:?} answers nothing");
                }
                FromWorker::Query { seq, .. } => self.asks.push(*seq),
                FromWorker::Close { listener } => self.listeners.retain(|other| other != listener),
                FromWorker::ExitedAfterDisconnect { seq } => {
                    self.send(&ToWorker::Ack { ack: *seq }, false);
                }
                _ => {}
            }
        }
    }

    fn decode(&mut self, heard: &mut Vec<FromWorker>) {
        match &mut self.speech {
            Speech::Native(decoder) => {
                while let Some((msg, _)) = decoder.poll().unwrap() {
                    heard.push(msg);
                }
            }
            Speech::Node(side) => {
                while let Some(event) = side.poll().unwrap() {
                    match event {
                        PrimaryEvent::Message(msg) => heard.push(msg),
                        PrimaryEvent::InDoubt { .. } => {}
                        event => panic!("{event:?} behind {heard:?}"),
                    }
                }
            }
        }
    }

    /// Leaves the worker no room to write to.
    pub fn clog(&mut self) {
        self.hear();
        for size in [4096, 1] {
            while let Ok(written) = channel::send(self.worker.as_fd(), &[b'#'; 4096][..size], &[]) {
                self.clogged += written;
            }
        }
    }

    /// Makes room again.
    pub fn unclog(&mut self) {
        let mut bytes = vec![0; std::mem::take(&mut self.clogged)];
        UnixStream::from(self.fd.try_clone().unwrap()).read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'#'));
    }
}

/// Numbers that depend on nothing but a seed.
pub struct Dice(u64);

impl Dice {
    /// Different ones for each seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below this.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % below
    }
}
