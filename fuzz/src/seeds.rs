//! What the corpus begins with: real encodings, and the faults that the decoder names.

use std::path::Path;

use roundel_core::journal::Replay;
use roundel_core::wire::{Message, encode, encode_hello};
use roundel_core::{
    Address, Errno, FromWorker, Granted, ListenKey, ListenerId, Seq, Signal, SockName, ToWorker,
    Transport,
};

use crate::MAX_FRAME;

/// A seed: its target, its file name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, bytes) in streams() {
        seeds.push(("native_decoder", name, bytes));
    }
    for (name, bytes) in reads() {
        seeds.push(("native_inbox", name, bytes));
    }
    for (target, direction) in
        [("node_primary_side", "worker->primary"), ("node_worker_side", "primary->worker")]
    {
        let captured = captured(direction);
        seeds.extend(captured.into_iter().map(|(name, bytes)| (target, name, bytes)));
        seeds.extend(odd().into_iter().map(|(name, bytes)| (target, name.to_owned(), bytes)));
    }
    for target in ["primary_inputs", "worker_inputs", "mangled_channels"] {
        seeds.extend((1..=4).map(|nth| (target, format!("noise-{nth}"), noise(nth))));
    }
    let recorded = recorded();
    seeds.push(("journal", "whole".into(), recorded.clone()));
    seeds.push(("journal", "cut".into(), recorded[..recorded.len() / 2].to_vec()));
    let snapshots = snapshots(&recorded);
    seeds.extend(snapshots.into_iter().map(|(name, bytes)| ("snapshot", name, bytes)));
    seeds
}

/// A kilobyte without meaning, always the same (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..1_024).map(|_| next()).collect()
}

/// The run that the docs show.
fn recorded() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.journal");
    std::fs::read(path).expect("the example is there")
}

/// The primary of a run, at some places.
fn snapshots(journal: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut replay = Replay::new();
    replay.feed(journal);
    let mut seeds = Vec::new();
    while let Ok(Some(_)) = replay.step() {
        if let (0 | 15 | 30 | 40 | 60, Some(primary)) = (replay.entries(), replay.primary()) {
            let json = serde_json::to_vec(primary).expect("a primary is data");
            seeds.push((format!("entry-{}", replay.entries()), json));
        }
    }
    seeds
}

/// What Node's own primary and workers say, as it was captured, a read for each line.
fn captured(direction: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/captured");
    let files = std::fs::read_dir(&folder).expect("the captures are there");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let seed = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a capture is text");
        let of_direction = text.lines().filter(|line| line.contains(direction));
        let reads: Vec<u8> = of_direction.flat_map(captured_read).collect();
        let name = path.file_stem()?.to_str()?.to_owned();
        (!reads.is_empty()).then_some((name, reads))
    };
    paths.into_iter().filter_map(seed).collect()
}

/// What programs say that is too large or odd, and handles where they should not be.
fn odd() -> Vec<(&'static str, Vec<u8>)> {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let long = "x".repeat(2 * crate::MAX_LINE as usize);
    let cluster = |fields: &str| format!("{{\"cmd\":\"NODE_CLUSTER\",{fields},\"seq\":1}}\n");
    let laden =
        |msg: &str| format!("{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{msg}}}\n");
    let udp = r#""act":"queryServer","index":0,"addressType":"udp4","fd":-1"#;
    let read = |text: &str, laden: bool| {
        let length = u16::try_from(text.len()).expect("a short read");
        let head = length | if laden { 0x8000 } else { 0 };
        [&head.to_le_bytes()[..], text.as_bytes()].concat()
    };
    let reads = |texts: &[&str], laden| texts.iter().flat_map(|text| read(text, laden)).collect();
    vec![
        ("odd-long", reads(&[&format!("\"{long}\"\n7\n")], false)),
        ("odd-long-laden", reads(&[&laden(&format!("\"{long}\""))], true)),
        ("odd-long-cluster", reads(&[&cluster(&format!("\"data\":\"{long}\""))], false)),
        ("odd-deep", reads(&[&format!("{deep}\n{}", laden(&deep))], true)),
        ("odd-deep-cluster", reads(&[&cluster(&format!("\"data\":{deep}"))], false)),
        ("odd-no-json", reads(&["\n{}{}\nnul\n{\"cmd\":\"NODE_HANDLE\",\n"], false)),
        ("odd-surrogates", reads(&["{\"\\ud800\":\"\\udfff\",\"a\":1e999,\"a\":-0}\n"], false)),
        ("odd-handles", reads(&[" ", " ", " "], true)),
        (
            "odd-sockets",
            reads(
                &[
                    "{\"cmd\":\"NODE_SOCKET_NOTIFY_CLOSE\",\"key\":\"6::::80\"}\n",
                    "{\"cmd\":\"NODE_SOCKET_GET_COUNT\",\"key\":\"6::::80\"}\n",
                ],
                false,
            ),
        ),
        (
            "odd-queries",
            reads(
                &[
                    &cluster(&format!("{udp},\"address\":\"0.0.0.0\",\"port\":\" 0x35 \"")),
                    &cluster(&format!("{udp},\"address\":\"fe80::1%eth0\",\"port\":true")),
                    &cluster("\"act\":\"queryServer\",\"address\":{},\"port\":[],\"fd\":1e99"),
                    &cluster("\"ack\":{},\"accepted\":1"),
                ],
                false,
            ),
        ),
    ]
}

fn captured_read(line: &str) -> Vec<u8> {
    let message = line.split_once("\"message\": ").map_or("", |(_, message)| message);
    // The last brace is that of the line.
    let message = message.strip_suffix('}').unwrap_or(message);
    let laden = !line.contains("\"handle\": \"none\"");
    let length = u16::try_from(message.len() + 1).expect("a short line");
    let head = length | if laden { 0x8000 } else { 0 };
    [&head.to_le_bytes()[..], message.as_bytes(), b"\n"].concat()
}

/// Every kind of message that a worker sends.
pub fn from_worker() -> Vec<FromWorker> {
    let mut messages = vec![
        FromWorker::Online,
        FromWorker::Listening { listener: listener(3) },
        FromWorker::Ack { ack: seq(u64::MAX), accepted: true },
        FromWorker::Ack { ack: seq(251), accepted: false },
        FromWorker::Close { listener: listener(3) },
        FromWorker::Suicide { seq: seq(2) },
        FromWorker::ExitedAfterDisconnect { seq: seq(3) },
        FromWorker::Pong { ack: seq(4) },
        FromWorker::Load { open: 70_000 },
        FromWorker::Ready,
        FromWorker::Lag { millis: 20 },
        FromWorker::StopSignal { signal: Some(Signal::Interrupt) },
    ];
    let addresses = [
        Address::Any { port: 0 },
        Address::Ip(([127, 0, 0, 1], 8080).into()),
        Address::Ip(([0, 0, 0, 0, 0, 0, 0, 1], 80).into()),
        Address::Unix("/run/a path".into()),
        Address::Fd(3),
        Address::Nth(0),
    ];
    for address in addresses {
        let key = ListenKey { address, transport: Transport::Datagram, v6_only: true, index: 1 };
        let query =
            FromWorker::Query { seq: seq(1), key: key.into(), backlog: 511, data: vec![7; 9] };
        messages.push(query);
    }
    messages
}

/// Every kind of message that the primary sends.
pub fn to_worker() -> Vec<ToWorker> {
    let grant = |sockname, shared| ToWorker::QueryReply {
        ack: seq(1),
        result: Ok(Box::new(Granted { listener: listener(1), sockname, shared, data: vec![1, 2] })),
    };
    vec![
        grant(SockName::Ip(([127, 0, 0, 1], 8080).into()), false),
        grant(SockName::Unix("/run/a path".into()), true),
        ToWorker::QueryReply { ack: seq(1), result: Err(Errno::EADDRINUSE) },
        new_conn(1),
        new_conn(3),
        ToWorker::Ack { ack: seq(1) },
        ToWorker::Disconnect,
        ToWorker::Drain { deadline_ms: 30_000 },
        ToWorker::Ping { seq: seq(1) },
        ToWorker::PassListener { listener: listener(1) },
        ToWorker::Shutdown,
    ]
}

fn streams() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![
        ("valid-worker".to_owned(), stream(&from_worker())),
        ("valid-primary".to_owned(), stream(&to_worker())),
    ];
    for (nth, msg) in from_worker().iter().enumerate() {
        seeds.push((format!("body-worker-{nth:02}"), body(msg)));
    }
    for (nth, msg) in to_worker().iter().enumerate() {
        seeds.push((format!("body-primary-{nth:02}"), body(msg)));
    }
    let online = stream(&[FromWorker::Online]);
    let after = |bytes: &[u8]| [&online[..], bytes].concat();
    let faults: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("bad-magic", b"\xFFRNDX\x01\x00\x00".to_vec()),
        ("bad-version", b"\xFFRNDL\x02\x00\x00".to_vec()),
        ("json", b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}\n".to_vec()),
        ("long-frame", after(&u32::MAX.to_le_bytes())),
        ("bad-message", after(&[1, 0, 0, 0, 250])),
        ("trailing-bytes", after(&[2, 0, 0, 0, 0, 0])),
        ("half-header", after(&[2, 0])),
        ("half-body", after(&[9, 0, 0, 0, 1])),
    ];
    seeds.extend(faults.map(|(name, bytes)| (name.to_owned(), bytes)));
    // Paths, and data, that claim to be 15 MB long.
    let claims: [(&str, &[u8]); 4] = [
        ("path", &[1, 1, 2]),
        ("data", &[1, 1, 0, 0, 0, 0, 0, 0]),
        ("granted-path", &[0, 1, 0, 1, 1]),
        ("granted-data", &[0, 1, 0, 1, 0, 0, 127, 0, 0, 1, 80, 0]),
    ];
    for (name, before) in claims {
        let bytes = [before, &[0xFC, 0x00, 0xE1, 0xF5, 0x00]].concat();
        seeds.push((format!("claim-{name}"), bytes));
    }
    seeds
}

/// Reads in the form of `native_inbox`.
fn reads() -> Vec<(String, Vec<u8>)> {
    let whole = |msg: &ToWorker, handles: u8| read(&frame(msg), handles);
    let split = |msg: &ToWorker, handles: u8, rest: u8| {
        let frame = frame(msg);
        let (first, last) = frame.split_at(frame.len() / 2);
        [read(first, handles), read(last, rest)].concat()
    };
    let seeds: [(&str, Vec<u8>); 9] = [
        ("one", whole(&new_conn(1), 1)),
        ("seven", whole(&new_conn(7), 7)),
        ("fewer", [whole(&new_conn(3), 2), whole(&new_conn(1), 0)].concat()),
        ("split", split(&new_conn(2), 2, 0)),
        ("plain-before", {
            read(&[frame(&ToWorker::Ping { seq: seq(1) }), frame(&new_conn(1))].concat(), 1)
        }),
        ("too-many", whole(&new_conn(1), 2)),
        ("unasked", whole(&ToWorker::Disconnect, 1)),
        ("after-error", {
            [whole(&ToWorker::Disconnect, 1), whole(&new_conn(1), 1), whole(&new_conn(1), 1)]
                .concat()
        }),
        ("late", split(&new_conn(2), 0, 2)),
    ];
    seeds.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}

fn read(bytes: &[u8], handles: u8) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short message");
    [&[length, handles], bytes].concat()
}

fn stream<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_hello(&mut bytes);
    for msg in messages {
        encode(msg, MAX_FRAME, &mut bytes).expect("a short message");
    }
    bytes
}

fn frame<M: Message>(msg: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(msg, MAX_FRAME, &mut bytes).expect("a short message");
    bytes
}

fn body<M: Message>(msg: &M) -> Vec<u8> {
    frame(msg).split_off(4)
}

fn new_conn(count: u32) -> ToWorker {
    ToWorker::NewConn { first_seq: seq(5), listener: listener(1), count }
}

fn seq(raw: u64) -> Seq {
    Seq::from_raw(raw).expect("not zero")
}

fn listener(raw: u64) -> ListenerId {
    ListenerId::from_raw(raw).expect("not zero")
}
