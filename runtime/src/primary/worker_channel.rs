//! What is spoken on one worker's channel, as the primary has it, apart from the socket.

use std::io;
use std::ops::ControlFlow;

use roundel_core::node::{PrimaryEvent, PrimarySide, Skipped};
use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Attach, BYTES_PER_TURN, Codec, Config, DecodeError, Errno, FromWorker, Input,
    MESSAGES_PER_TURN, READS_PER_TURN, Seq, ToWorker, Violation, WorkerId,
};

use crate::outbox::{Flush, Outbox};
use crate::primary::host;
use crate::unix::channel::{End, NODE_ROOM};

/// While more than this waits to be sent to a worker, nothing is read from it: who does not read
/// is slowed, and what waits stays bounded.
const MAX_UNSENT: usize = 256;

/// The same in bytes of what workers leave with a listener, which each answer to a query has in it.
const MAX_UNSENT_DATA: usize = 1024 * 1024;

/// The primary's side of a channel. Its owner lends the channel's end to each call.
#[derive(Debug)]
pub struct WorkerChannel {
    /// The codec that the worker must speak, if not any.
    wanted: Option<Codec>,
    max_frame: u32,
    max_line: u32,
    speech: Speech,
    outbox: Outbox<ToWorker, Attach>,
    /// The other end is closed: nothing more can be sent, but acks may still be unread.
    deaf: bool,
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
    /// What comes is no protocol any more; it is read and thrown away, to reach the end of file.
    Discarding,
}

/// What a read brought.
#[derive(Debug)]
pub enum Heard {
    /// The first byte told the codec.
    Hello(Codec),
    /// A message.
    Message(FromWorker),
    /// No message.
    Violation(Violation),
    /// An unfinished frame or line is left over.
    FrameBegun,
    /// The worker got a handoff without its handle.
    NotArrived(Seq),
    /// The worker may hold its answer to this handoff back.
    InDoubt(Seq),
    /// Something that answers nothing.
    Stray,
    /// The worker's program said something that is passed over.
    Skipped {
        /// Why.
        reason: Skipped,
        /// How many bytes it has.
        length: u64,
        /// Whether a handle came along.
        with_handle: bool,
    },
    /// The worker's program said something. A handle that came along is closed.
    User {
        /// What.
        json: String,
        /// Whether a handle came along.
        with_handle: bool,
    },
    /// End of file.
    Closed,
}

impl Heard {
    /// What it is to the primary's machine; `None` for what programs say.
    pub fn into_input(self, worker: WorkerId) -> Option<Input> {
        Some(match self {
            Heard::Hello(codec) => Input::Hello { worker, codec },
            Heard::Message(msg) => Input::Message { worker, msg },
            Heard::Violation(what) => Input::Violation { worker, what },
            Heard::FrameBegun => Input::FrameBegun { worker },
            Heard::NotArrived(seq) => Input::HandoffFailed { worker, seq, errno: Errno::EMFILE },
            Heard::InDoubt(seq) => Input::InDoubt { worker, seq },
            Heard::Stray => Input::Stray { worker },
            Heard::User { .. } | Heard::Skipped { .. } => return None,
            Heard::Closed => Input::ChannelClosed { worker },
        })
    }
}

/// Whether a channel was read to would-block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// Nothing more is there, or it is of no use to go on before something was sent: either way,
    /// readiness will tell.
    Wait,
    /// The budget ran out.
    More,
    /// The channel has ended.
    Closed,
}

impl WorkerChannel {
    /// The side of a new channel; `wanted` is the codec that the worker must speak, if not any.
    pub fn new(wanted: Option<Codec>, config: &Config) -> Self {
        let max_line = *config.max_line();
        let speech = match config.pass_listeners() {
            // The primary speaks first, so there is nothing to find out.
            true => node(max_line),
            false => Speech::Fresh,
        };
        WorkerChannel {
            wanted,
            max_frame: *config.max_frame(),
            max_line,
            speech,
            outbox: Outbox::new(),
            deaf: false,
            read_shut: false,
        }
    }

    /// Reads within the budget of a turn and tells what was heard, in order.
    pub fn read(
        &mut self,
        end: &mut impl End,
        buffer: &mut [u8],
        mut heard: impl FnMut(Heard),
    ) -> ReadState {
        let mut messages = 0;
        let mut bytes = 0;
        let mut reads = 0;
        loop {
            match self.decode(&mut messages, &mut heard) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => return ReadState::More,
            }
            if self.is_clogged() && !self.read_shut && !self.deaf {
                return ReadState::Wait;
            }
            if bytes >= BYTES_PER_TURN || reads >= READS_PER_TURN {
                return ReadState::More;
            }
            reads += 1;
            match self.receive(end, buffer, &mut heard) {
                Ok(0) => {
                    heard(Heard::Closed);
                    return ReadState::Closed;
                }
                Ok(count) => bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.is_mid_frame() {
                        heard(Heard::FrameBegun);
                    }
                    return ReadState::Wait;
                }
                // The other end died with something unread: end of file comes next (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(_) => {
                    heard(Heard::Closed);
                    return ReadState::Closed;
                }
            }
        }
    }

    /// One read. Only Node workers have handles to send; elsewhere the kernel discards them.
    fn receive(
        &mut self,
        end: &mut impl End,
        buffer: &mut [u8],
        heard: &mut impl FnMut(Heard),
    ) -> io::Result<usize> {
        if let Speech::Node(side) = &mut self.speech {
            let mut handles = Vec::new();
            let count = end.recv_handles(buffer, NODE_ROOM, &mut handles)?;
            let came = handles.len();
            drop(handles);
            if came > 1 {
                // Node sends one a message; the others would belong to nothing.
                self.give_up(Violation::Decode(DecodeError::TooManyHandles), heard);
            } else {
                side.feed(&buffer[..count], (came == 1).then_some(()));
            }
            return Ok(count);
        }
        let count = end.recv(buffer)?;
        let bytes = &buffer[..count];
        if let (Speech::Fresh, Some(&first)) = (&self.speech, bytes.first()) {
            self.find_codec(first, heard);
        }
        match &mut self.speech {
            Speech::Native(decoder) => decoder.feed(bytes),
            Speech::Node(side) => side.feed(bytes, None),
            Speech::Fresh | Speech::Discarding => {}
        }
        Ok(count)
    }

    fn find_codec(&mut self, first: u8, heard: &mut impl FnMut(Heard)) {
        let codec = Codec::detect(first).filter(|codec| self.wanted.is_none_or(|w| w == *codec));
        self.speech = match codec {
            Some(Codec::Native) => {
                let mut hello = Vec::new();
                wire::encode_hello(&mut hello);
                self.outbox.interject(&hello);
                Speech::Native(Decoder::new(self.max_frame))
            }
            Some(Codec::Node) => node(self.max_line),
            Some(_) | None => return self.give_up(Violation::UnknownCodec, heard),
        };
        if let Some(codec) = codec {
            heard(Heard::Hello(codec));
        }
    }

    fn is_clogged(&self) -> bool {
        let data = |msg: &ToWorker| match msg {
            ToWorker::QueryReply { result: Ok(granted), .. } => granted.data.len(),
            _ => 0,
        };
        self.outbox.len() > MAX_UNSENT
            || self.outbox.waiting().map(data).sum::<usize>() > MAX_UNSENT_DATA
    }

    /// Whether a frame is begun that must complete in time. A program of Node may be at work for
    /// long before it writes the rest of a line.
    fn is_mid_frame(&self) -> bool {
        match &self.speech {
            Speech::Native(decoder) => decoder.is_mid_frame(),
            Speech::Node(_) | Speech::Fresh | Speech::Discarding => false,
        }
    }

    /// Decodes what is there; breaks off when the turn's messages are used up.
    fn decode(&mut self, messages: &mut u32, heard: &mut impl FnMut(Heard)) -> ControlFlow<()> {
        loop {
            if *messages >= MESSAGES_PER_TURN {
                return ControlFlow::Break(());
            }
            let step = match &mut self.speech {
                Speech::Native(decoder) => {
                    decoder.poll().map(|msg| msg.map(|(msg, _)| Heard::Message(msg)))
                }
                Speech::Node(side) => match side.poll() {
                    Ok(None) => Ok(None),
                    Ok(Some(event)) => match self.take_in(event) {
                        None => continue,
                        Some(told) => Ok(Some(told)),
                    },
                    Err(error) => Err(error),
                },
                Speech::Fresh | Speech::Discarding => Ok(None),
            };
            match step {
                Ok(Some(told)) => {
                    *messages += 1;
                    heard(told);
                }
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => self.give_up(Violation::Decode(error), heard),
            }
        }
    }

    /// What there is to tell of an event of the Node codec.
    fn take_in(&mut self, event: PrimaryEvent<()>) -> Option<Heard> {
        Some(match event {
            PrimaryEvent::Message(msg) => Heard::Message(msg),
            PrimaryEvent::Answer(bytes) => {
                if !self.deaf {
                    self.outbox.interject(&bytes);
                }
                return None;
            }
            PrimaryEvent::Resend { msg, attach } => {
                if !self.deaf {
                    self.outbox.push(msg, [attach]);
                }
                return None;
            }
            PrimaryEvent::NotArrived { seq } => Heard::NotArrived(seq),
            PrimaryEvent::InDoubt { seq } => Heard::InDoubt(seq),
            PrimaryEvent::User { json, handle } => {
                Heard::User { json, with_handle: handle.is_some() }
            }
            PrimaryEvent::Skipped { reason, length, with_handle } => {
                Heard::Skipped { reason, length, with_handle }
            }
            _ => Heard::Stray,
        })
    }

    fn give_up(&mut self, what: Violation, heard: &mut impl FnMut(Heard)) {
        self.speech = Speech::Discarding;
        heard(Heard::Violation(what));
    }

    /// Queues a message. A native handoff that follows another one to the same worker goes with
    /// it in one message, if that one is not on its way yet; true if it does.
    pub fn push(&mut self, msg: ToWorker, attach: Option<Attach>) -> bool {
        if self.deaf {
            return false;
        }
        match &mut self.speech {
            Speech::Node(side) => side.note(&msg),
            Speech::Fresh | Speech::Native(_) | Speech::Discarding => {
                if let Some(last) = self.outbox.last_mut()
                    && last.merge(&msg)
                {
                    self.outbox.extend_last(attach);
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

    /// Sends what can be sent now.
    pub fn flush<'a, E: End>(
        &mut self,
        end: &mut E,
        resolve: impl FnMut(&Attach) -> Option<E::Lent<'a>>,
    ) -> Flush<ToWorker, Attach> {
        let (speech, max_frame) = (&self.speech, self.max_frame);
        let encode = |msg: &ToWorker, bytes: &mut Vec<u8>| match speech {
            Speech::Native(_) => {
                // It can't be too long: what workers give the primary to send back is bounded.
                let _ = wire::encode(msg, max_frame, bytes);
            }
            Speech::Node(side) => side.encode(msg, bytes),
            // Nobody listens who would understand.
            Speech::Fresh | Speech::Discarding => {}
        };
        let flush = self.outbox.flush(end, encode, resolve, |_| {});
        match (&flush, &mut self.speech) {
            (Flush::Closed, _) => {
                self.deaf = true;
                self.outbox.clear();
            }
            (Flush::Failed { msg, .. }, Speech::Node(side)) => side.unsent(msg),
            _ => {}
        }
        flush
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// From here on only what the worker wrote before is read, then end of file.
    pub fn shutdown_read(&mut self, end: &mut impl End) {
        self.read_shut = true;
        end.shutdown_read();
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

/// The start of a channel to a Node worker.
fn node(max_line: u32) -> Speech {
    Speech::Node(Box::new(PrimarySide::new(max_line).on(host::HOST)))
}

#[cfg(test)]
mod tests;
