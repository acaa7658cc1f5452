//! The primary's end of a channel, with the real codecs, as the runtime has it
//! (`runtime/src/shell/link.rs`).

use roundel_core::node::{PrimaryEvent, PrimarySide};
use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Attach, Codec, Config, DecodeError, FromWorker, MESSAGES_PER_TURN, Seq, ToWorker, Violation,
};

use super::outbox::{Flush, Outbox, Trouble};
use super::pipe::{Pipe, Read};
use super::socket::Handle;

/// While more than this waits to be sent, nothing is read.
const MAX_UNSENT: usize = 256;

/// The primary's end.
#[derive(Debug)]
pub struct Link {
    max_frame: u32,
    max_line: u32,
    speech: Speech,
    outbox: Outbox<ToWorker, Attach>,
    deaf: bool,
    fenced: bool,
    buffer: Vec<u8>,
    handles: Vec<Handle>,
}

#[derive(Debug)]
enum Speech {
    Fresh,
    Native(Decoder<FromWorker>),
    Node(Box<PrimarySide<Handle>>),
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
    Doubtful(Seq),
    /// Something that answers nothing.
    Stray,
    /// The program said something.
    User,
    /// End of file.
    Closed,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// Nothing is left.
    Empty,
    /// The turn's budget ran out.
    More,
    /// Something must be sent first.
    Held,
    /// The channel has ended.
    Closed,
}

impl Link {
    /// The end of a new channel.
    pub fn new(config: &Config) -> Link {
        let max_line = *config.max_line();
        Link {
            max_frame: *config.max_frame(),
            max_line,
            speech: match config.pass_listeners() {
                true => Speech::Node(Box::new(PrimarySide::new(max_line))),
                false => Speech::Fresh,
            },
            outbox: Outbox::new(),
            deaf: false,
            fenced: false,
            buffer: Vec::new(),
            handles: Vec::new(),
        }
    }

    /// Reads up to `budget` bytes in reads as long as `size` says, and tells what was heard.
    pub fn read(
        &mut self,
        pipe: &mut Pipe<Handle>,
        budget: usize,
        mut size: impl FnMut() -> usize,
        heard: &mut Vec<Heard>,
    ) -> ReadState {
        let mut bytes = 0;
        let mut messages = 0;
        loop {
            if !self.decode(&mut messages, heard) {
                return ReadState::More;
            }
            if self.outbox.len() > MAX_UNSENT && !self.fenced && !self.deaf {
                return ReadState::Held;
            }
            if bytes >= budget {
                return ReadState::More;
            }
            self.buffer.clear();
            match pipe.read(size(), &mut self.buffer, &mut self.handles) {
                Read::Bytes(count) => {
                    bytes += count;
                    self.take_in_bytes(heard);
                }
                Read::Empty => {
                    if self.is_mid_frame() {
                        heard.push(Heard::FrameBegun);
                    }
                    return ReadState::Empty;
                }
                Read::Reset => {}
                Read::End => {
                    heard.push(Heard::Closed);
                    return ReadState::Closed;
                }
            }
        }
    }

    fn take_in_bytes(&mut self, heard: &mut Vec<Heard>) {
        if let Speech::Node(side) = &mut self.speech {
            // There is room for two.
            self.handles.truncate(2);
            let handle = self.handles.pop();
            if self.handles.is_empty() {
                side.feed(&self.buffer, handle);
            } else {
                self.handles.clear();
                let what = Violation::Decode(DecodeError::UnexpectedHandles);
                self.give_up(what, heard);
            }
            return;
        }
        // Without room for them the kernel discards handles.
        self.handles.clear();
        if let (Speech::Fresh, Some(&first)) = (&self.speech, self.buffer.first()) {
            self.find_codec(first, heard);
        }
        match &mut self.speech {
            Speech::Native(decoder) => decoder.feed(&self.buffer),
            Speech::Node(side) => side.feed(&self.buffer, None),
            Speech::Fresh | Speech::Discarding => {}
        }
    }

    fn find_codec(&mut self, first: u8, heard: &mut Vec<Heard>) {
        let codec = Codec::detect(first);
        self.speech = match codec {
            Some(Codec::Native) => {
                let mut hello = Vec::new();
                wire::encode_hello(&mut hello);
                self.outbox.interject(&hello);
                Speech::Native(Decoder::new(self.max_frame))
            }
            Some(Codec::Node) => Speech::Node(Box::new(PrimarySide::new(self.max_line))),
            Some(_) | None => return self.give_up(Violation::UnknownCodec, heard),
        };
        heard.extend(codec.map(Heard::Hello));
    }

    /// Whether an unfinished frame or line is there.
    pub fn is_mid_frame(&self) -> bool {
        match &self.speech {
            Speech::Native(decoder) => decoder.is_mid_frame(),
            Speech::Node(side) => side.is_mid_line(),
            Speech::Fresh | Speech::Discarding => false,
        }
    }

    /// What is spoken, once that is known.
    pub fn codec(&self) -> Option<Codec> {
        match self.speech {
            Speech::Native(_) => Some(Codec::Native),
            Speech::Node(_) => Some(Codec::Node),
            Speech::Fresh | Speech::Discarding => None,
        }
    }

    /// Decodes what is there; false when the turn's messages are used up.
    fn decode(&mut self, messages: &mut u32, heard: &mut Vec<Heard>) -> bool {
        loop {
            if *messages >= MESSAGES_PER_TURN {
                return false;
            }
            let step = match &mut self.speech {
                Speech::Native(decoder) => {
                    decoder.poll().map(|msg| msg.map(|(msg, _)| Heard::Message(msg)))
                }
                Speech::Node(side) => match side.poll() {
                    Ok(None) => Ok(None),
                    Ok(Some(event)) => match self.take_in(event) {
                        None => continue,
                        told => Ok(told),
                    },
                    Err(error) => Err(error),
                },
                Speech::Fresh | Speech::Discarding => Ok(None),
            };
            match step {
                Ok(Some(told)) => {
                    *messages += 1;
                    heard.push(told);
                }
                Ok(None) => return true,
                Err(error) => self.give_up(Violation::Decode(error), heard),
            }
        }
    }

    fn take_in(&mut self, event: PrimaryEvent<Handle>) -> Option<Heard> {
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
                    self.outbox.push(msg, Some(attach));
                }
                return None;
            }
            PrimaryEvent::NotArrived { seq } => Heard::NotArrived(seq),
            PrimaryEvent::Doubtful { seq } => Heard::Doubtful(seq),
            PrimaryEvent::User { .. } => Heard::User,
            _ => Heard::Stray,
        })
    }

    fn give_up(&mut self, what: Violation, heard: &mut Vec<Heard>) {
        self.speech = Speech::Discarding;
        heard.push(Heard::Violation(what));
    }

    /// Queues a message. Native handoffs that wait together travel as one; true if this one joined
    /// another.
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

    /// Sends what can be sent now.
    pub fn flush(
        &mut self,
        pipe: &mut Pipe<Handle>,
        trouble: &mut Option<Trouble>,
        resolve: impl FnMut(&Attach) -> Option<Handle>,
    ) -> Flush<ToWorker> {
        let (speech, max_frame) = (&self.speech, self.max_frame);
        let encode = |msg: &ToWorker, bytes: &mut Vec<u8>| match speech {
            Speech::Native(_) => {
                let _ = wire::encode(msg, max_frame, bytes);
            }
            Speech::Node(side) => side.encode(msg, bytes),
            Speech::Fresh | Speech::Discarding => {}
        };
        let flush = self.outbox.flush(pipe, trouble, encode, resolve, |_| {});
        match (&flush, &mut self.speech) {
            (Flush::Closed, _) => {
                self.deaf = true;
                self.outbox.clear();
            }
            (Flush::Failed(msg), Speech::Node(side)) => side.unsent(msg),
            _ => {}
        }
        flush
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether a message is half sent.
    pub fn is_cut(&self) -> bool {
        self.outbox.is_cut()
    }

    /// Nothing that is written from here on will be read.
    pub fn fence(&mut self, pipe: &mut Pipe<Handle>) {
        self.fenced = true;
        pipe.fence();
    }
}
