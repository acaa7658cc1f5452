//! The primary's end of the channel to one worker.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::outbox::{Outbox, Transmit};
use crate::node::{self, Host, PrimaryEvent, PrimarySide};
use crate::wire::{self, Decoder};
use crate::{
    Attach, ChannelEvent, Codec, Config, DecodeError, Errno, FromWorker, ToWorker, Violation,
};

/// While more than this waits to be sent to a worker, nothing is read from it: that slows a worker
/// that does not read, and bounds what waits.
const MAX_UNSENT: usize = 256;

/// The same for the data that workers leave with a listener, in bytes: each answer to a query
/// contains it.
const MAX_UNSENT_DATA: usize = 1024 * 1024;

/// The primary's end of the channel to one worker, whichever codec the worker speaks.
///
/// Coming in: while it [wants to read](WorkerChannel::wants_read), [`feed`](WorkerChannel::feed) it
/// what one recvmsg(2) brought, then [`poll`](WorkerChannel::poll) events until there are none; at
/// the end of file, [`end`](WorkerChannel::end). Each event that is
/// [an input](ChannelEvent::into_input) goes to the [`Primary`](crate::Primary).
///
/// Going out: [`push`](WorkerChannel::push) the message of each
/// [`Output::Send`](crate::Output::Send); then send what
/// [`poll_transmit`](WorkerChannel::poll_transmit) gives and report the result, until there is
/// nothing, or the channel is full. A connection that was released before its handoff has begun to
/// be sent can't be lent to sendmsg(2): report [`not_sent`](WorkerChannel::not_sent) with EBADF.
#[derive(Debug)]
pub struct WorkerChannel {
    /// The codec that the worker must speak; `None` if any will do.
    wanted: Option<Codec>,
    max_frame: u32,
    max_line: u32,
    host: Host,
    speech: Speech,
    outbox: Outbox<ToWorker, Attach>,
    events: VecDeque<ChannelEvent>,
    /// What could not be sent.
    unsent: VecDeque<ChannelEvent>,
    /// The other end is closed: nothing more can be sent, but acks may still be unread.
    peer_closed: bool,
    read_shut: bool,
}

/// What is spoken on a channel.
#[derive(Debug)]
enum Speech {
    /// Nothing was read yet.
    Fresh,
    Native(Decoder<FromWorker>),
    /// The primary has no use for a worker's handles: they are closed as they arrive, and only
    /// that they did is known.
    Node(Box<PrimarySide<()>>),
    /// What comes no longer follows the protocol; it is read and thrown away, to reach the end of
    /// file.
    Discarding,
}

impl WorkerChannel {
    /// A channel at its start. `wanted` is the codec that the worker must speak (`None` if any will
    /// do), and `host` answers what a Node worker's queries ask about the system. Without the
    /// feature `node`, Node workers are ended with [`Violation::UnknownCodec`].
    pub fn new(wanted: Option<Codec>, config: &Config, host: Host) -> Self {
        let max_line = config.max_line();
        let mut channel = WorkerChannel {
            wanted,
            max_frame: config.max_frame(),
            max_line,
            host,
            speech: Speech::Fresh,
            outbox: Outbox::new(),
            events: VecDeque::new(),
            unsent: VecDeque::new(),
            peer_closed: false,
            read_shut: false,
        };
        if config.pass_listeners() {
            // The primary speaks first, so there is nothing to find out.
            channel.speech = channel.node().unwrap_or(Speech::Discarding);
        }
        channel
    }

    fn node(&self) -> Option<Speech> {
        let side = node::primary_side(self.max_line, self.host)?;
        Some(Speech::Node(Box::new(side)))
    }

    /// Whether to read. While much waits to be sent to a worker, nothing is read from it, unless
    /// nothing more can be sent.
    pub fn wants_read(&self) -> bool {
        let data = |msg: &ToWorker| {
            let ToWorker::QueryReply { result: Ok(granted), .. } = msg else { return 0 };
            granted.data.len()
        };
        let clogged = self.outbox.len() > MAX_UNSENT
            || self.outbox.waiting().map(data).sum::<usize>() > MAX_UNSENT_DATA;
        !clogged || self.read_shut || self.peer_closed
    }

    /// Whether a read should have room for a handle. Only Node workers have handles to send;
    /// elsewhere the kernel discards what comes without room for it (recvmsg(2), MSG_CTRUNC).
    pub const fn wants_handles(&self) -> bool {
        matches!(self.speech, Speech::Node(_))
    }

    /// Takes in what one read brought, and how many handles came with it. Poll until nothing comes
    /// before feeding more.
    pub fn feed(&mut self, bytes: &[u8], handles: usize) {
        if let (Speech::Fresh, Some(&first)) = (&self.speech, bytes.first()) {
            self.find_codec(first);
        }
        match &mut self.speech {
            Speech::Native(decoder) => decoder.feed(bytes),
            // Node sends one handle per message; the others would belong to no message.
            Speech::Node(_) if handles > 1 => {
                self.give_up(DecodeError::TooManyHandles.into());
            }
            Speech::Node(side) => side.feed(bytes, (handles == 1).then_some(())),
            Speech::Fresh | Speech::Discarding => {}
        }
    }

    fn find_codec(&mut self, first: u8) {
        let codec = Codec::detect(first).filter(|codec| self.wanted.is_none_or(|w| w == *codec));
        let speech = match codec {
            Some(Codec::Native) => Some(Speech::Native(Decoder::new(self.max_frame))),
            Some(Codec::Node) => self.node(),
            None => None,
        };
        let (Some(codec), Some(speech)) = (codec, speech) else {
            return self.give_up(Violation::UnknownCodec);
        };
        if codec == Codec::Native {
            let mut hello = Vec::new();
            wire::encode_hello(&mut hello);
            self.outbox.interject(&hello);
        }
        self.speech = speech;
        self.events.push_back(ChannelEvent::Hello(codec));
    }

    fn give_up(&mut self, what: Violation) {
        self.speech = Speech::Discarding;
        self.events.push_back(ChannelEvent::Violation(what));
    }

    /// The next event of what was fed.
    pub fn poll(&mut self) -> Option<ChannelEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match &mut self.speech {
                Speech::Native(decoder) => match decoder.poll() {
                    Ok(msg) => return msg.map(|(msg, _)| ChannelEvent::Message(msg)),
                    Err(error) => self.give_up(error.into()),
                },
                Speech::Node(side) => match side.poll() {
                    Ok(Some(event)) => {
                        if let Some(event) = self.on_node_event(event) {
                            return Some(event);
                        }
                    }
                    Ok(None) => return None,
                    Err(error) => self.give_up(error.into()),
                },
                Speech::Fresh | Speech::Discarding => return None,
            }
        }
    }

    /// Sends what the codec wants sent; the rest is for the primary.
    fn on_node_event(&mut self, event: PrimaryEvent<()>) -> Option<ChannelEvent> {
        Some(match event {
            PrimaryEvent::Message(msg) => ChannelEvent::Message(msg),
            PrimaryEvent::NotArrived { seq } => ChannelEvent::NotArrived { seq },
            PrimaryEvent::InDoubt { seq } => ChannelEvent::InDoubt { seq },
            PrimaryEvent::Stray => ChannelEvent::Stray,
            PrimaryEvent::User { json, handle } => {
                ChannelEvent::User { json, handle: handle.map(|(kind, ())| kind) }
            }
            PrimaryEvent::Skipped { reason, length, with_handle } => {
                ChannelEvent::Skipped { reason, length, with_handle }
            }
            PrimaryEvent::Answer(bytes) => {
                if !self.peer_closed {
                    self.outbox.interject(&bytes);
                }
                return None;
            }
            PrimaryEvent::Resend { msg, attach } => {
                if !self.peer_closed {
                    self.outbox.push(msg, [attach]);
                }
                return None;
            }
            // The primary's program sends no handles here.
            PrimaryEvent::UserNotArrived => return None,
        })
    }

    /// Notes that a read found nothing more for now, and that everything was polled: an unfinished
    /// frame must then complete in time. An unfinished line of Node need not: a program may work
    /// for long before it writes the rest.
    pub fn would_block(&mut self) {
        if matches!(&self.speech, Speech::Native(decoder) if decoder.is_mid_frame()) {
            self.events.push_back(ChannelEvent::FrameBegun);
        }
    }

    /// The channel was read to its end. ECONNRESET is not the end: end of file follows (unix(7)).
    pub fn end(&mut self) {
        self.events.push_back(ChannelEvent::Closed);
    }

    /// Queues a message. If a native handoff follows another one to the same worker that is not on
    /// its way yet, both go in one message; true if they do.
    pub fn push(&mut self, msg: ToWorker, attach: Option<Attach>) -> bool {
        if self.peer_closed {
            return false;
        }
        match &mut self.speech {
            Speech::Node(side) => side.note(&msg),
            Speech::Fresh | Speech::Native(_) | Speech::Discarding => {
                if self.outbox.merge(|last| last.merge(&msg), attach) {
                    return true;
                }
            }
        }
        self.outbox.push(msg, attach);
        false
    }

    /// As [`PrimarySide::wished_mode`].
    pub fn wished_mode(&self, msg: &ToWorker) -> Option<u32> {
        match &self.speech {
            Speech::Node(side) => side.wished_mode(msg),
            Speech::Fresh | Speech::Native(_) | Speech::Discarding => None,
        }
    }

    /// What to send next, in one sendmsg(2); `None` if nothing waits. Then call
    /// [`sent`](WorkerChannel::sent), [`not_sent`](WorkerChannel::not_sent) or
    /// [`hung_up`](WorkerChannel::hung_up), or nothing if the channel is full: this gives the same
    /// again.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_, Attach>> {
        loop {
            let (speech, max_frame) = (&self.speech, self.max_frame);
            let encode = |msg: &ToWorker, bytes: &mut Vec<u8>| match speech {
                Speech::Native(_) => {
                    // It can't be too long: what workers give the primary to send back is bounded.
                    let _ = wire::encode(msg, max_frame, bytes);
                }
                Speech::Node(side) => side.encode(msg, bytes),
                // No codec is active, so there is nothing to encode.
                Speech::Fresh | Speech::Discarding => {}
            };
            match self.outbox.prepare(encode) {
                Some(msg) => self.failed(&msg, Errno::EMSGSIZE),
                None => return self.outbox.transmit(),
            }
        }
    }

    /// Notes that `count` bytes of it were sent, with its handles.
    pub fn sent(&mut self, count: usize) {
        self.outbox.sent(count);
    }

    /// What [`poll_transmit`](WorkerChannel::poll_transmit) gave can never be sent, and not one
    /// byte of it was. Would-block and ETOOMANYREFS are not such errors; EPIPE, and any error of a
    /// message without handles, means that the other end [hung up](WorkerChannel::hung_up).
    pub fn not_sent(&mut self, errno: Errno) {
        match self.outbox.take_unsendable() {
            Some(msg) => self.failed(&msg, errno),
            None => self.hung_up(),
        }
    }

    /// The next event of what could not be sent. Look after each turn of sending.
    pub fn poll_unsent(&mut self) -> Option<ChannelEvent> {
        self.unsent.pop_front()
    }

    fn failed(&mut self, msg: &ToWorker, errno: Errno) {
        if let Speech::Node(side) = &mut self.speech {
            side.unsent(msg);
        }
        if let ToWorker::NewConn { first_seq, count, .. } = msg {
            let lost = first_seq.following(*count);
            self.unsent.extend(lost.map(|seq| ChannelEvent::NotSent { seq, errno }));
        }
    }

    /// The other end is closed: nothing can be sent any more. What it wrote before must still be
    /// read.
    pub fn hung_up(&mut self) {
        self.peer_closed = true;
        self.outbox.clear();
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The receiving side was shut down: from here on only what the worker wrote before is read,
    /// then end of file.
    pub fn read_was_shut(&mut self) {
        self.read_shut = true;
    }

    /// What is spoken, once that is known and as long as it is.
    pub const fn codec(&self) -> Option<Codec> {
        match self.speech {
            Speech::Native(_) => Some(Codec::Native),
            Speech::Node(_) => Some(Codec::Node),
            Speech::Fresh | Speech::Discarding => None,
        }
    }
}

#[cfg(test)]
mod tests;
