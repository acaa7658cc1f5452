use alloc::boxed::Box;
use core::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::framed::Framed;
use super::*;
use crate::{
    Address, Errno, Granted, ListenKey, ListenerId, Seq, Signal, SockName, ToWorker, Transport,
};

const MAX: u32 = MAX_FRAME_DEFAULT;

fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

fn listener(n: u64) -> ListenerId {
    ListenerId::from_raw(n).unwrap()
}

fn from_worker() -> Vec<FromWorker> {
    let key = ListenKey::stream(Address::Unix("/run/some path".into()));
    alloc::vec![
        FromWorker::Online,
        FromWorker::Query {
            seq: seq(1),
            key: Box::new(key),
            backlog: 511,
            data: alloc::vec![7; 300],
        },
        FromWorker::Listening { listener: listener(3) },
        FromWorker::Ack { ack: seq(u64::MAX), accepted: false },
        FromWorker::Close { listener: listener(3) },
        FromWorker::Suicide { seq: seq(2) },
        FromWorker::ExitedAfterDisconnect { seq: seq(3) },
        FromWorker::Pong { ack: seq(4) },
        FromWorker::Load { open: 9 },
        FromWorker::Ready,
        FromWorker::Lag { millis: 300 },
        FromWorker::StopSignal { signal: Some(Signal::Term) },
    ]
}

fn to_worker() -> Vec<ToWorker> {
    let granted = Granted {
        listener: listener(1),
        sockname: SockName::Ip("[::1]:80".parse().unwrap()),
        shared: true,
        data: alloc::vec![1, 2],
    };
    alloc::vec![
        ToWorker::QueryReply { ack: seq(1), result: Ok(Box::new(granted)) },
        ToWorker::QueryReply { ack: seq(1), result: Err(Errno::EADDRINUSE) },
        ToWorker::NewConn { first_seq: seq(5), listener: listener(1), count: 3 },
        ToWorker::Ack { ack: seq(1) },
        ToWorker::Disconnect,
        ToWorker::Drain { deadline_ms: 30_000 },
        ToWorker::Ping { seq: seq(1) },
        ToWorker::PassListener { listener: listener(2) },
        ToWorker::Shutdown,
    ]
}

fn stream<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_hello(&mut bytes);
    for msg in messages {
        encode(msg, MAX, &mut bytes).unwrap();
    }
    bytes
}

fn decode<M: Message>(bytes: &[u8], step: usize) -> Result<Vec<M>, DecodeError> {
    let mut decoder = Decoder::new(MAX);
    let mut messages = Vec::new();
    for part in bytes.chunks(step) {
        decoder.feed(part);
        while let Some((msg, _)) = decoder.poll()? {
            messages.push(msg);
        }
    }
    assert!(!decoder.is_mid_frame());
    Ok(messages)
}

#[test]
fn every_message_comes_back_however_it_is_cut() {
    for step in [1, 2, 3, 7, 64, usize::MAX >> 1] {
        assert_eq!(decode(&stream(&from_worker()), step).as_ref(), Ok(&from_worker()));
        assert_eq!(decode(&stream(&to_worker()), step).as_ref(), Ok(&to_worker()));
    }
}

#[test]
fn the_positions_tile_the_stream() {
    let bytes = stream(&from_worker());
    let mut decoder = Decoder::<FromWorker>::new(MAX);
    let mut end = HELLO as u64;
    for part in bytes.chunks(5) {
        decoder.feed(part);
        while let Some((_, range)) = decoder.poll().unwrap() {
            assert_eq!(range.start, end);
            end = range.end;
        }
    }
    assert_eq!(end, bytes.len() as u64);
}

fn error(bytes: &[u8]) -> DecodeError {
    let mut decoder = Decoder::<FromWorker>::new(MAX);
    decoder.feed(bytes);
    let error = loop {
        match decoder.poll() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => break error,
        }
    };
    decoder.feed(&stream(&from_worker()));
    assert_eq!(decoder.poll(), Err(error), "an error is for good");
    error
}

#[test]
fn wrong_bytes_are_named() {
    let good = stream(&[FromWorker::Online]);
    assert_eq!(error(b"\xFFRNDX"), DecodeError::BadMagic);
    assert_eq!(error(b"\xFFRNDL\x01\x00\x01"), DecodeError::BadMagic);
    assert_eq!(error(&[&good[..], &[1, 0, 0, 0, 250]].concat()), DecodeError::BadMessage);
    assert_eq!(error(&[&good[..], &[2, 0, 0, 0, 0, 0]].concat()), DecodeError::TrailingBytes);
    let long = (MAX + 1).to_le_bytes();
    assert_eq!(error(&[&good[..], &long].concat()), DecodeError::FrameTooLong);
    // A length inside the body that claims more than there is.
    let claim = [&good[..], &[12, 0, 0, 0, 1, 1, 0, 0, 1, 253, 255, 255, 255, 255, 0, 0]];
    assert_eq!(error(&claim.concat()), DecodeError::BadMessage);
}

/// The messages of a stream whose hello names this version.
fn of_version(version: u16) -> Result<Vec<ToWorker>, DecodeError> {
    let mut bytes = stream(&to_worker());
    bytes[5..7].copy_from_slice(&version.to_le_bytes());
    decode(&bytes, 3)
}

#[test]
fn one_version_of_difference_is_understood_and_two_are_not() {
    assert_eq!(of_version(VERSION), Ok(to_worker()));
    assert_eq!(of_version(VERSION + 1), Ok(to_worker()), "newer");
    let refused = |other| Err(DecodeError::BadVersion { own: VERSION, other });
    assert_eq!(of_version(VERSION + 2), refused(VERSION + 2), "two newer");
    assert_eq!(of_version(0), refused(0), "never was");
    assert_eq!(of_version(u16::MAX), refused(u16::MAX));
    // What a later version of this crate does.
    for (own, other, wanted) in [
        (5, 4, true),
        (5, 5, true),
        (5, 6, true),
        (5, 3, false),
        (5, 7, false),
        (2, 1, true),
        (1, 0, false),
        (u16::MAX, u16::MAX - 1, true),
        (u16::MAX, 0, false),
    ] {
        assert_eq!(are_compatible(own, other, FromWorker::SKEW), wanted, "{own} {other}");
    }
}

#[test]
fn messages_the_receiver_would_refuse_are_not_sent() {
    let query = FromWorker::Query {
        seq: seq(1),
        key: Box::new(ListenKey::stream(Address::Any { port: 80 })),
        backlog: 0,
        data: alloc::vec![0; MAX as usize],
    };
    let mut bytes = alloc::vec![1];
    assert_eq!(encode(&query, MAX, &mut bytes), Err(DecodeError::FrameTooLong));
    assert_eq!(bytes, [1]);
}

#[test]
fn the_first_byte_tells_the_codec() {
    let mut hello = Vec::new();
    encode_hello(&mut hello);
    assert_eq!(hello.len(), HELLO);
    assert_eq!(Codec::detect(hello[0]), Some(Codec::Native));
    for first in b"{[\"-0123456789tfn" {
        assert_eq!(Codec::detect(*first), Some(Codec::Node));
    }
    for first in [0, b'<', b'G', b'\n', 0x80, 0xFE] {
        assert_eq!(Codec::detect(first), None, "{first}");
    }
}

#[test]
fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
    let query = |data: usize| FromWorker::Query {
        seq: seq(1),
        key: Box::new(ListenKey::stream(Address::Any { port: 80 })),
        backlog: 0,
        data: alloc::vec![9; data],
    };
    // The largest limit that there is, so that bincode's own limit is not reached before it.
    for max in [1_024, 1 << 24] {
        let mut bytes = Vec::new();
        encode_hello(&mut bytes);
        let data = (0..64).map(|less| max as usize - less);
        let longest = data.map(query).find(|msg| encode(msg, max, &mut bytes).is_ok()).unwrap();
        assert_eq!(bytes.len(), HELLO + HEADER + max as usize);
        let mut decoder = Decoder::<FromWorker>::new(max);
        decoder.feed(&bytes);
        assert!(decoder.poll().unwrap().is_some_and(|(msg, _)| msg == longest));
        let mut decoder = Decoder::<FromWorker>::new(max - 1);
        decoder.feed(&bytes[..HELLO + HEADER]);
        assert_eq!(decoder.poll(), Err(DecodeError::FrameTooLong), "told by the header alone");
    }
}

#[test]
fn a_begun_hello_or_frame_is_told() {
    let bytes = stream(&[FromWorker::Load { open: 1 }]);
    let mut decoder = Decoder::<FromWorker>::new(MAX);
    assert!(!decoder.is_mid_frame());
    for (at, byte) in bytes.iter().enumerate() {
        decoder.feed(&[*byte]);
        let complete = decoder.poll().unwrap().is_some();
        assert_eq!(complete, at + 1 == bytes.len());
        assert_eq!(decoder.is_mid_frame(), at + 1 != HELLO && !complete, "after byte {at}");
    }
}

#[test]
fn the_buffer_stays_as_it_is_once_warm() {
    let bytes = stream(&[FromWorker::Online]);
    let frame = &bytes[HELLO..];
    let mut decoder = Decoder::<FromWorker>::new(MAX);
    decoder.feed(&bytes[..HELLO]);
    let batch = frame.repeat(64);
    let mut warm = 0;
    // Cut so that most reads end in the middle of a frame.
    for (nth, part) in batch.repeat(100).chunks(batch.len() - 1).enumerate() {
        decoder.feed(part);
        while decoder.poll().unwrap().is_some() {}
        if nth == 10 {
            warm = decoder.buffer.capacity();
        }
        assert!(nth <= 10 || decoder.buffer.capacity() == warm);
    }
    assert!(warm > 0 && warm <= 4 * batch.len());
}

fn any_seq() -> impl Strategy<Value = Seq> {
    (1..=u64::MAX).prop_map(seq)
}

fn any_listener() -> impl Strategy<Value = ListenerId> {
    (1..=u64::MAX).prop_map(listener)
}

/// Without flow label and scope, which serde leaves out of an IPv6 address.
fn any_addr() -> impl Strategy<Value = SocketAddr> {
    any::<(core::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn any_key() -> impl Strategy<Value = Box<ListenKey>> {
    let address = prop_oneof![
        any::<u16>().prop_map(|port| Address::Any { port }),
        any_addr().prop_map(Address::Ip),
        any::<alloc::string::String>().prop_map(Address::Unix),
        any::<i32>().prop_map(Address::Fd),
        any::<u32>().prop_map(Address::Nth),
    ];
    let transport = prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)];
    (address, transport, any::<(bool, u32)>()).prop_map(|(address, transport, (v6_only, index))| {
        Box::new(ListenKey { address, transport, v6_only, index })
    })
}

fn any_from_worker() -> impl Strategy<Value = FromWorker> {
    let query = (any_seq(), any_key(), any::<u32>(), vec(any::<u8>(), 0..600));
    prop_oneof![
        Just(FromWorker::Online),
        query.prop_map(|(seq, key, backlog, data)| FromWorker::Query { seq, key, backlog, data }),
        any_listener().prop_map(|listener| FromWorker::Listening { listener }),
        (any_seq(), any::<bool>()).prop_map(|(ack, accepted)| FromWorker::Ack { ack, accepted }),
        any_listener().prop_map(|listener| FromWorker::Close { listener }),
        any_seq().prop_map(|seq| FromWorker::Suicide { seq }),
        any_seq().prop_map(|seq| FromWorker::ExitedAfterDisconnect { seq }),
        any_seq().prop_map(|ack| FromWorker::Pong { ack }),
        any::<u32>().prop_map(|open| FromWorker::Load { open }),
        any_report(),
    ]
}

fn any_report() -> impl Strategy<Value = FromWorker> {
    let stop_signal =
        |handles: bool| FromWorker::StopSignal { signal: handles.then_some(Signal::Interrupt) };
    prop_oneof![
        Just(FromWorker::Ready),
        any::<u32>().prop_map(|millis| FromWorker::Lag { millis }),
        any::<bool>().prop_map(stop_signal),
    ]
}

fn any_to_worker() -> impl Strategy<Value = ToWorker> {
    let sockname = prop_oneof![
        any_addr().prop_map(SockName::Ip),
        any::<alloc::string::String>().prop_map(SockName::Unix),
    ];
    let granted = (any_listener(), sockname, any::<bool>(), vec(any::<u8>(), 0..600)).prop_map(
        |(listener, sockname, shared, data)| {
            Ok(Box::new(Granted { listener, sockname, shared, data }))
        },
    );
    let result = prop_oneof![granted, any::<i32>().prop_map(|errno| Err(Errno(errno)))];
    prop_oneof![
        (any_seq(), result).prop_map(|(ack, result)| ToWorker::QueryReply { ack, result }),
        (any_seq(), any_listener(), any::<u32>()).prop_map(|(first_seq, listener, count)| {
            ToWorker::NewConn { first_seq, listener, count }
        }),
        any_seq().prop_map(|ack| ToWorker::Ack { ack }),
        Just(ToWorker::Disconnect),
        any::<u64>().prop_map(|deadline_ms| ToWorker::Drain { deadline_ms }),
        any_seq().prop_map(|seq| ToWorker::Ping { seq }),
    ]
}

/// Messages with their positions, the error, whether something is left unfinished.
type Decoded<M> = (Vec<(M, Range<u64>)>, Option<DecodeError>, bool);

/// All that a decoder returns when fed in pieces of these lengths, over and over.
fn tell<M: Message>(bytes: &[u8], cuts: &[usize]) -> Decoded<M> {
    let mut decoder = Decoder::new(MAX);
    let mut messages = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
        rest = after;
        decoder.feed(part);
        loop {
            match decoder.poll() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error), decoder.is_mid_frame()),
            }
        }
    }
    (messages, None, decoder.is_mid_frame())
}

fn comes_back<M: Message + Clone + PartialEq + fmt::Debug>(
    messages: &[M],
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let bytes = stream(messages);
    for cuts in [cuts, &[1], &[bytes.len()]] {
        let (got, error, is_mid_frame) = tell::<M>(&bytes, cuts);
        prop_assert_eq!((error, is_mid_frame), (None, false));
        prop_assert_eq!(got.iter().map(|(msg, _)| msg.clone()).collect::<Vec<M>>(), messages);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_messages_come_back_however_they_are_cut(
        from_worker in vec(any_from_worker(), 0..8),
        to_worker in vec(any_to_worker(), 0..8),
        cuts in vec(1..400_usize, 1..10),
    ) {
        comes_back(&from_worker, &cuts)?;
        comes_back(&to_worker, &cuts)?;
    }

    #[test]
    fn any_bytes_are_told_the_same_however_they_are_cut(
        bytes in vec(any::<u8>(), 0..300),
        cuts in vec(1..40_usize, 1..10),
        greeted in any::<bool>(),
    ) {
        let mut all = if greeted { stream::<FromWorker>(&[]) } else { Vec::new() };
        all.extend_from_slice(&bytes);
        let whole = [all.len().max(1)];
        prop_assert_eq!(tell::<FromWorker>(&all, &cuts), tell::<FromWorker>(&all, &whole));
        prop_assert_eq!(tell::<ToWorker>(&all, &cuts), tell::<ToWorker>(&all, &whole));
    }

    /// Nearly good streams get further into the decoder than random bytes do.
    #[test]
    fn damaged_streams_are_told_the_same_however_they_are_cut(
        messages in vec(any_from_worker(), 1..6),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in vec(1..40_usize, 1..10),
    ) {
        let mut bytes = stream(&messages);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let whole = [bytes.len()];
        prop_assert_eq!(tell::<FromWorker>(&bytes, &cuts), tell::<FromWorker>(&bytes, &whole));
    }
}

#[test]
fn codecs_go_by_their_names() {
    assert_eq!([Codec::Native.name(), Codec::Node.name()], ["native", "node"]);
}
