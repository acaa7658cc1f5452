//! A worker that speaks the native protocol: the real machine and codec, driven as the runtime's
//! worker API does it (`runtime/src/worker/driver.rs`).

use std::collections::BTreeMap;
use std::convert::Infallible;

use roundel_core::wire;
use roundel_core::{
    Custody, FromWorker, Inbox, ListenKey, ListenerId, Outbox, Seq, Time, ToWorker, Worker,
    WorkerInput, WorkerOutput,
};
use roundel_runtime::unix::transmit::{Sent, transmit};

use super::end::PipeEnd;
use super::pipe::Read;
use super::program::{Channel, Reading, Saw};
use super::socket::{Handle, Socket};

/// The program and its library.
#[derive(Debug)]
pub struct Native {
    core: Worker,
    inbox: Inbox<Handle>,
    custody: Custody<Handle>,
    outbox: Outbox<FromWorker, Infallible>,
    /// Asks without an answer.
    asks: BTreeMap<u32, ListenKey>,
    next_ask: u32,
    /// What it listens on.
    listeners: Vec<(ListenerId, ListenKey)>,
    /// Connections that the program was given since this was last taken.
    delivered: Vec<Socket>,
    /// The last number that it answered.
    answered: Option<Seq>,
    /// The channel closes when everything is sent.
    closing: bool,
    connected: bool,
    /// Its first message is on its way.
    online: bool,
    leaving: bool,
    said_ready: bool,
    now: Time,
    buffer: Vec<u8>,
    handles: Vec<Handle>,
    /// What happened that a test wants to know of.
    pub saw: Saw,
}

impl Native {
    /// A program that has just started: hello and `online` wait to be sent.
    pub fn new(max_frame: u32) -> Native {
        let mut outbox = Outbox::new();
        let mut hello = Vec::new();
        wire::encode_hello(&mut hello);
        outbox.interject(&hello);
        Native {
            core: Worker::new(),
            inbox: Inbox::new(max_frame),
            custody: Custody::new(),
            outbox,
            asks: BTreeMap::new(),
            next_ask: 0,
            listeners: Vec::new(),
            delivered: Vec::new(),
            answered: None,
            closing: false,
            connected: true,
            online: false,
            leaving: false,
            said_ready: false,
            now: Time::ZERO,
            buffer: Vec::new(),
            handles: Vec::new(),
            saw: Saw::default(),
        }
    }

    /// Tells the machine something and carries out what follows.
    pub fn input(&mut self, now: Time, input: WorkerInput, channel: &mut Channel) {
        self.now = now;
        self.feed(input);
        self.carry_out(channel);
    }

    /// Says once that it is ready.
    pub fn ready(&mut self, now: Time, channel: &mut Channel) {
        if !std::mem::replace(&mut self.said_ready, true) {
            self.input(now, WorkerInput::Ready, channel);
        }
    }

    fn feed(&mut self, input: WorkerInput) {
        if let Err(misuse) = self.core.handle_input(self.now, input) {
            self.saw.wrong.get_or_insert(misuse.to_string());
        }
    }

    /// Reads what is there, in the way that `reading` says.
    pub fn read(&mut self, now: Time, channel: &mut Channel, reading: &mut Reading<'_>) {
        self.now = now;
        let mut bytes = 0;
        while self.connected && bytes < reading.budget {
            self.buffer.clear();
            match channel.down.read((reading.size)(), &mut self.buffer, &mut self.handles) {
                Read::Bytes(count) => bytes += count,
                Read::Empty => break,
                Read::Reset | Read::End => {
                    self.channel_closed(channel);
                    break;
                }
            }
            let came = self.handles.len();
            // At the limit on open files the rest is lost (MSG_CTRUNC).
            self.handles.truncate(reading.room);
            self.saw.lost_handles += (came - self.handles.len()) as u64;
            if reading.swap && self.handles.len() > 1 {
                self.handles.reverse();
            }
            self.inbox.feed(&self.buffer, self.handles.drain(..));
            self.decode(channel);
        }
        self.carry_out(channel);
    }

    fn decode(&mut self, channel: &mut Channel) {
        let mut messages = 0;
        loop {
            match self.inbox.poll() {
                Ok(Some(received)) => {
                    messages += 1;
                    let (inbox, count) = (&mut self.inbox, received.handles);
                    let handles = (0..count).map_while(|_| inbox.take_handle());
                    let handles = self.custody.admit_all(handles);
                    if let ToWorker::NewConn { count, .. } = received.msg {
                        self.saw.short_batches += u64::from(handles.len() < count as usize);
                    }
                    self.feed(WorkerInput::Message { msg: received.msg, handles });
                }
                Ok(None) => break,
                Err(error) => {
                    // The primary is ours: it never says what can't be understood.
                    self.saw.wrong.get_or_insert(format!("the worker can't read: {error}"));
                    return self.channel_closed(channel);
                }
            }
        }
        self.saw.merged_reads += u64::from(messages > 1);
    }

    fn channel_closed(&mut self, channel: &mut Channel) {
        if std::mem::take(&mut self.connected) {
            self.saw.unsent_at_end += u64::from(self.core.awaits_delivery());
            channel.worker_closes();
            self.feed(WorkerInput::ChannelClosed);
        }
    }

    fn carry_out(&mut self, channel: &mut Channel) {
        loop {
            while let Some(output) = self.core.poll_output() {
                self.execute(output);
            }
            if !self.flush(channel) && !self.core.has_output() {
                return;
            }
        }
    }

    /// Sends what can be sent; true if that brought something about.
    pub fn flush(&mut self, channel: &mut Channel) -> bool {
        if !self.connected {
            return false;
        }
        let mut end = PipeEnd::new(&mut channel.down, &mut channel.up);
        let is_gone = loop {
            let encode = |msg: &FromWorker, bytes: &mut Vec<u8>| {
                let _ = wire::encode(msg, u32::MAX, bytes);
            };
            let unsendable = self.outbox.prepare(encode);
            debug_assert!(unsendable.is_none(), "no message has handles");
            let Some(next) = self.outbox.transmit() else { break false };
            match transmit(&mut end, &next, |never| match *never {}) {
                Sent::Bytes(count) => self.outbox.sent(count),
                Sent::Blocked | Sent::TooManyRefs => break false,
                Sent::Closed | Sent::Never(_) => break true,
            }
        };
        let sent = self.outbox.take_finished();
        if end.is_cut {
            self.saw.short_writes += 1;
        }
        self.online |= sent > 0;
        let all_said = self.closing && self.outbox.is_empty();
        for _ in 0..sent {
            self.feed(WorkerInput::Sent);
        }
        let closed = is_gone || all_said;
        if closed {
            self.channel_closed(channel);
        }
        sent > 0 || closed
    }

    fn execute(&mut self, output: WorkerOutput) {
        match output {
            WorkerOutput::Send(msg) => {
                if let FromWorker::Ack { ack, .. } = msg {
                    self.answered = Some(ack);
                }
                self.outbox.push(msg, []);
            }
            WorkerOutput::Deliver { conn, .. } => {
                if let Some(Handle::Conn(socket)) = self.custody.release(conn) {
                    self.delivered.push(socket);
                }
            }
            WorkerOutput::Discard { conn } => drop(self.custody.release(conn)),
            WorkerOutput::Granted { ask, listener, handle, .. } => {
                if let Some(handle) = handle {
                    drop(self.custody.release(handle));
                }
                if let Some(key) = self.asks.remove(&ask) {
                    self.listeners.push((listener, key));
                }
            }
            WorkerOutput::Refused { ask, .. } => drop(self.asks.remove(&ask)),
            WorkerOutput::Draining { .. } | WorkerOutput::PrimaryGone => self.leaving = true,
            WorkerOutput::CloseChannel => self.closing = true,
            _ => {}
        }
    }

    /// Asks to listen.
    pub fn ask(&mut self, now: Time, key: &ListenKey, channel: &mut Channel) {
        let ask = self.next_ask;
        self.next_ask += 1;
        self.asks.insert(ask, key.clone());
        let key = Box::new(key.clone());
        let input = WorkerInput::Listen { ask, key, backlog: 0, data: Vec::new() };
        self.input(now, input, channel);
    }

    /// Whether it has, or has asked for, all of these.
    pub fn lacks(&self, keys: &[ListenKey]) -> Option<ListenKey> {
        let has = |key: &ListenKey| {
            self.asks.values().chain(self.listeners.iter().map(|(_, key)| key)).any(|k| k == key)
        };
        keys.iter().find(|key| !has(key)).cloned()
    }

    /// Takes the next connection of the nth listener that has one.
    pub fn take(&mut self, now: Time, nth: usize, accepted: bool, channel: &mut Channel) {
        let waiting = self.listeners.iter().filter(|(id, _)| self.core.untaken_at(*id) > 0);
        let waiting: Vec<ListenerId> = waiting.map(|(id, _)| *id).collect();
        // Behind an answer that could not be sent yet, another one would wait as well.
        if waiting.is_empty() || (accepted && !self.outbox.is_empty()) {
            return;
        }
        let listener = waiting.get(nth % waiting.len()).copied();
        let input = match accepted {
            true => WorkerInput::Take { listener },
            false => WorkerInput::Decline { listener },
        };
        self.input(now, input, channel);
    }

    /// How many connections wait for the program.
    pub fn untaken(&self) -> usize {
        self.core.untaken()
    }

    /// Closes the nth listener.
    pub fn close(&mut self, now: Time, nth: usize, channel: &mut Channel) {
        if !self.listeners.is_empty() {
            let (listener, _) = self.listeners.remove(nth % self.listeners.len());
            self.input(now, WorkerInput::CloseListener { listener }, channel);
        }
    }

    /// Says something that its machine does not know of, once `online` is said.
    pub fn say_raw(&mut self, msg: &FromWorker, channel: &mut Channel) {
        if !self.online {
            return;
        }
        let mut bytes = Vec::new();
        let _ = wire::encode(msg, u32::MAX, &mut bytes);
        self.outbox.interject(&bytes);
        self.flush(channel);
        self.carry_out(channel);
    }

    /// The last number that it answered, if that answer is on its way.
    pub fn answered(&self) -> Option<Seq> {
        self.answered.filter(|_| self.outbox.is_empty())
    }

    /// What the program was given since the last call.
    pub fn take_delivered(&mut self) -> Vec<Socket> {
        std::mem::take(&mut self.delivered)
    }

    /// It leaves of its own will.
    pub fn set_leaving(&mut self) {
        self.leaving = true;
    }

    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether it may exit: everything is taken and said, and what it waits for is confirmed.
    pub fn is_done(&self) -> bool {
        let heard = !self.core.awaits_suicide_ack() || !self.connected;
        self.leaving && self.core.untaken() == 0 && self.outbox.is_empty() && heard
    }

    /// The machine, for snapshots.
    pub fn core_mut(&mut self) -> &mut Worker {
        &mut self.core
    }
}
