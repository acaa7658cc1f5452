//! The native codec and the association of handles.

use std::fmt::Debug;
use std::ops::Range;

use roundel_core::wire::{Decoder, Message, encode, encode_hello};
use roundel_core::{DecodeError, FromWorker, Inbox, ToWorker};

/// The longest frame in the targets here: short, so that the limit is in reach.
pub const MAX_FRAME: u32 = 4_096;

/// Any bytes lead to messages or one lasting error, the same however they are cut, in both
/// directions; and what was decoded survives being encoded.
///
/// The bytes are tried as a stream, as what follows a hello, and as the body of one frame.
pub fn native_decoder(data: &[u8]) {
    let mut greeted = Vec::new();
    encode_hello(&mut greeted);
    let mut framed = greeted.clone();
    greeted.extend_from_slice(data);
    framed.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    framed.extend_from_slice(data);
    for stream in [data, &greeted, &framed] {
        decode_every_way::<FromWorker>(stream);
        decode_every_way::<ToWorker>(stream);
    }
}

fn decode_every_way<M: Message + Clone + Debug + PartialEq>(stream: &[u8]) {
    let whole = Transcript::<M>::of(stream, stream.len().max(1));
    let uneven = stream.last().map_or(1, |&last| usize::from(last) + 2);
    for step in [1, uneven] {
        assert_eq!(whole, Transcript::of(stream, step), "cut into pieces of {step}");
    }
    let mut end = None;
    for (msg, range) in &whole.messages {
        assert!(end.is_none_or(|end| end == range.start), "frames follow one another");
        assert!(range.end <= stream.len() as u64, "frames lie within the stream");
        end = Some(range.end);
        let mut again = Vec::new();
        encode_hello(&mut again);
        encode(msg, MAX_FRAME, &mut again).expect("what came in a frame fits in one");
        let copy = Transcript::<M>::of(&again, again.len());
        assert_eq!(copy.error, None);
        assert!(copy.messages.iter().map(|(msg, _)| msg).eq([msg]), "decoding undoes encoding");
    }
}

/// All that a decoder tells of a stream.
#[derive(Debug, PartialEq)]
struct Transcript<M> {
    messages: Vec<(M, Range<u64>)>,
    error: Option<DecodeError>,
    is_mid_frame: bool,
}

impl<M: Message> Transcript<M> {
    fn of(stream: &[u8], step: usize) -> Self {
        let mut decoder = Decoder::new(MAX_FRAME);
        let mut transcript = Transcript { messages: Vec::new(), error: None, is_mid_frame: false };
        for part in stream.chunks(step) {
            decoder.feed(part);
            loop {
                match decoder.poll() {
                    Ok(Some(message)) => {
                        assert_eq!(transcript.error, None, "an error is for good");
                        transcript.messages.push(message);
                    }
                    Ok(None) => {
                        assert_eq!(transcript.error, None, "an error is for good");
                        break;
                    }
                    Err(error) => {
                        assert!(transcript.error.is_none_or(|first| first == error));
                        transcript.error = Some(error);
                        break;
                    }
                }
            }
        }
        transcript.is_mid_frame = decoder.is_mid_frame();
        transcript
    }
}

/// No matter what reads a channel gives, handles come out at most once and in order, no message
/// gets more than it announced, and an error lasts and leaves every handle to be taken.
///
/// The data is a list of reads: length, number of handles modulo 8, bytes. A hello comes first.
pub fn native_inbox(data: &[u8]) {
    let mut inbox = Inbox::new(MAX_FRAME);
    let mut hello = Vec::new();
    encode_hello(&mut hello);
    inbox.feed(&hello, []);
    let mut rest = data;
    let mut fed = 0_u32;
    let mut taken = 0_u32;
    let mut error = None;
    while let [length, handles, after @ ..] = rest {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let handles = u32::from(handles % 8);
        inbox.feed(bytes, fed..fed + handles);
        fed += handles;
        loop {
            match inbox.poll() {
                Ok(Some(received)) => {
                    assert_eq!(error, None, "an error is for good");
                    assert!(received.handles <= received.msg.handles() as usize);
                    for _ in 0..received.handles {
                        assert_eq!(inbox.take_handle(), Some(taken), "handles come in order");
                        taken += 1;
                    }
                }
                Ok(None) => {
                    assert_eq!(error, None, "an error is for good");
                    break;
                }
                Err(now) => {
                    assert!(error.is_none_or(|first| first == now), "an error is for good");
                    error = Some(now);
                    break;
                }
            }
        }
    }
    while let Some(handle) = inbox.take_handle() {
        assert_eq!(handle, taken, "handles come in order");
        taken += 1;
    }
    if error.is_some() {
        assert_eq!(taken, fed, "no handle is lost");
    }
}
