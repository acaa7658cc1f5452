//! The native codec: a hello, then frames of a length and a bincode body.
//!
//! | part | bytes |
//! |---|---|
//! | hello | `FF 52 4E 44 4C` (`\xFFRNDL`), [version](VERSION) as u16 little-endian, one zero |
//! | frame | length of the body as u32 little-endian, body |
//!
//! Each direction begins with a hello. No text in UTF-8, and so no JSON, begins with `FF`: the
//! first byte of a channel shows its codec. The body is in bincode's standard configuration
//! (variable-length integers), and its message must use all of it. Only this file names bincode. A
//! journal consists of the same frames after a hello of its own.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::FromWorker;

/// The version of the protocol that this crate speaks. Each side also reads the version before and
/// the one after, so that workers and primaries can be built one version apart; others are refused
/// with [`DecodeError::BadVersion`].
///
/// For that, a new version only adds: variants at the end of a message enum, and no fields to those
/// there are. Both sides speak the lower of the two versions; until a worker has read the primary's
/// hello, it says only what the version before its own has.
pub const VERSION: u16 = 1;
/// The longest frame in bytes unless [`Config::max_frame`](crate::Config::max_frame) says
/// otherwise. A worker, which has no configuration, takes this.
pub const MAX_FRAME_DEFAULT: u32 = 1 << 20;

const HELLO: usize = 8;
const HEADER: usize = 4;

/// bincode must not claim more than this for one message: twice the longest frame there can be,
/// since it counts a short integer at its full width. The frame itself bounds a decode: its length
/// is checked before, and nothing in a message is allocated by a claimed length (`lean.rs`).
const CLAIM: usize = 1 << 25;
const BODY: Configuration<LittleEndian, Varint, Limit<CLAIM>> =
    config::standard().with_limit::<CLAIM>();

/// The codec that is spoken on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Codec {
    /// This crate's own.
    Native,
    /// Node's `child_process` and `cluster`: JSON lines.
    Node,
}

impl Codec {
    /// The codec of a channel, by the first byte that the worker sends; `None` for a byte that
    /// begins neither.
    pub const fn detect(first: u8) -> Option<Codec> {
        match first {
            0xFF => Some(Codec::Native),
            b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b' ' => {
                Some(Codec::Node)
            }
            _ => None,
        }
    }

    /// As `status` and the event log write it.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Native => "native",
            Codec::Node => "node",
        }
    }
}

/// A message that travels in frames.
pub trait Message: Serialize + DeserializeOwned + framed::Framed {}

impl<T: Serialize + DeserializeOwned + framed::Framed> Message for T {}

/// What comes in frames, and after which hello.
pub(crate) mod framed {
    pub trait Framed {
        const MAGIC: [u8; 5] = *b"\xFFRNDL";
        const VERSION: u16 = super::VERSION;
        /// How much older or newer the other side may be.
        const SKEW: u16 = 1;
    }
    impl Framed for crate::FromWorker {}
    impl Framed for crate::ToWorker {}
}

/// Whether two sides of these versions understand each other. There is no version 0.
const fn are_compatible(own: u16, other: u16, skew: u16) -> bool {
    other != 0 && own.abs_diff(other) <= skew
}

/// Appends the hello that begins each direction.
pub fn encode_hello(bytes: &mut Vec<u8>) {
    hello::<FromWorker>(bytes);
}

/// Appends the hello that comes before such frames.
pub(crate) fn hello<M: framed::Framed>(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&M::MAGIC);
    bytes.extend_from_slice(&M::VERSION.to_le_bytes());
    bytes.push(0);
}

/// Appends a message as a frame.
///
/// # Errors
/// [`DecodeError::FrameTooLong`] if the body is longer than `max_frame` bytes, as the receiver
/// would report; nothing is appended then.
pub fn encode<M: Message>(msg: &M, max_frame: u32, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
    encode_frame(msg, max_frame, bytes)
}

/// Like [`encode`], also for a borrowed value.
pub(crate) fn encode_frame(
    msg: &impl Serialize,
    max_frame: u32,
    bytes: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER]);
    let written = bincode::serde::encode_into_writer(msg, Appender(bytes), BODY);
    let body = bytes.len() - start - HEADER;
    if written.is_err() || body > max_frame as usize {
        bytes.truncate(start);
        return Err(DecodeError::FrameTooLong);
    }
    if let Some(header) = bytes.get_mut(start..start + HEADER) {
        header.copy_from_slice(&(body as u32).to_le_bytes());
    }
    Ok(())
}

/// Passes the encoding of a value to `sink`, piece by piece.
#[cfg(feature = "journal")]
pub(crate) fn encoding(value: &impl Serialize, sink: impl FnMut(&[u8])) {
    // It fails only for types without an encoding, of which there are none here.
    let _ = bincode::serde::encode_into_writer(value, Sink(sink), BODY);
}

struct Appender<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(feature = "journal")]
struct Sink<F>(F);

#[cfg(feature = "journal")]
impl<F: FnMut(&[u8])> bincode::enc::write::Writer for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        (self.0)(bytes);
        Ok(())
    }
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DecodeError {
    /// The hello does not begin as it must.
    BadMagic,
    /// The version of what comes is not one that is read here.
    BadVersion {
        /// The version of this side.
        own: u16,
        /// The version that the hello names.
        other: u16,
    },
    /// A frame is longer than allowed.
    FrameTooLong,
    /// A body is not a message.
    BadMessage,
    /// A body goes on after its message.
    TrailingBytes,
    /// Handles came that no message announced.
    UnexpectedHandles,
    /// Arrays and objects are nested too deep.
    NestedTooDeep,
    /// Too many handles wait for their inner acknowledgement.
    TooManyHandles,
}

impl DecodeError {
    /// As `status` and the event log write it.
    pub const fn name(self) -> &'static str {
        match self {
            DecodeError::BadMagic => "bad_magic",
            DecodeError::BadVersion { .. } => "bad_version",
            DecodeError::FrameTooLong => "frame_too_long",
            DecodeError::BadMessage => "bad_message",
            DecodeError::TrailingBytes => "trailing_bytes",
            DecodeError::UnexpectedHandles => "unexpected_handles",
            DecodeError::NestedTooDeep => "nested_too_deep",
            DecodeError::TooManyHandles => "too_many_handles",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::BadMagic => "the stream does not begin with the hello",
            DecodeError::BadVersion { own, other } => {
                return write!(f, "its version is {other}, and that of this program {own}");
            }
            DecodeError::FrameTooLong => "a frame is longer than allowed",
            DecodeError::BadMessage => "a frame is not a message",
            DecodeError::TrailingBytes => "a frame has bytes left after its message",
            DecodeError::UnexpectedHandles => "handles arrived that no message announced",
            DecodeError::NestedTooDeep => "a message is nested too deeply",
            DecodeError::TooManyHandles => "too many handles wait for their acknowledgement",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Turns bytes into messages, however the reads cut them. After an error every call returns it
/// again.
#[derive(Clone, Debug)]
pub struct Decoder<M> {
    max_frame: u32,
    buffer: Vec<u8>,
    /// How much of `buffer` is used up.
    used: usize,
    /// The position of the start of `buffer` in the stream.
    offset: u64,
    greeted: bool,
    error: Option<DecodeError>,
    message: PhantomData<M>,
}

impl<M: Message> Decoder<M> {
    /// A decoder at the start of a stream.
    pub const fn new(max_frame: u32) -> Self {
        Decoder {
            max_frame,
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            greeted: false,
            error: None,
            message: PhantomData,
        }
    }

    /// Takes bytes in. If you poll until nothing comes before you feed more, only an unfinished
    /// frame and the last feed are kept.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.buffer.drain(..self.used);
        self.offset += self.used as u64;
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, and the bytes of the stream that its frame takes up; `None` if it is not
    /// complete yet.
    ///
    /// # Errors
    /// [`DecodeError`], which every later call returns again.
    pub fn poll(&mut self) -> Result<Option<(M, Range<u64>)>, DecodeError> {
        match self.error {
            Some(error) => Err(error),
            None => self.step().inspect_err(|error| {
                self.error = Some(*error);
                self.buffer = Vec::new();
                self.used = 0;
            }),
        }
    }

    /// Whether an unfinished hello or frame is there.
    pub fn is_mid_frame(&self) -> bool {
        self.error.is_none() && self.used < self.buffer.len()
    }

    fn step(&mut self) -> Result<Option<(M, Range<u64>)>, DecodeError> {
        if !self.greeted && !self.greet()? {
            return Ok(None);
        }
        let Some((header, rest)) =
            self.buffer.get(self.used..).and_then(|unread| unread.split_first_chunk::<HEADER>())
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header);
        if length > self.max_frame {
            return Err(DecodeError::FrameTooLong);
        }
        let Some(body) = rest.get(..length as usize) else { return Ok(None) };
        let (msg, taken) =
            bincode::serde::decode_from_slice(body, BODY).map_err(|_| DecodeError::BadMessage)?;
        if taken != body.len() {
            return Err(DecodeError::TrailingBytes);
        }
        let start = self.offset + self.used as u64;
        let size = HEADER + body.len();
        self.used += size;
        Ok(Some((msg, start..start + size as u64)))
    }

    /// Reads the hello; false if it is not complete yet. A wrong magic is detected at its first
    /// wrong byte.
    fn greet(&mut self) -> Result<bool, DecodeError> {
        let magic = self.buffer.iter().zip(&M::MAGIC);
        if magic.into_iter().any(|(got, wanted)| got != wanted) {
            return Err(DecodeError::BadMagic);
        }
        let Some(&[.., low, high, reserved]) = self.buffer.first_chunk::<HELLO>() else {
            return Ok(false);
        };
        if reserved != 0 {
            return Err(DecodeError::BadMagic);
        }
        let (own, other) = (M::VERSION, u16::from_le_bytes([low, high]));
        if !are_compatible(own, other, M::SKEW) {
            return Err(DecodeError::BadVersion { own, other });
        }
        self.used = HELLO;
        self.greeted = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
