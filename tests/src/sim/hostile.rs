//! Bytes that no honest worker sends.

use std::net::SocketAddr;

use roundel_core::wire;
use roundel_core::{Address, Codec, FromWorker, ListenKey, ListenerId, Seq, Signal, WorkerId};

use super::Sim;
use super::rng::Rng;
use super::socket::Handle;

impl Sim {
    /// A worker sends what it should not, and is not believed any more.
    pub(super) fn send_hostile(&mut self, id: WorkerId, seed: u64) {
        let mut rng = Rng::new(seed);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.alive || process.hangs {
            return;
        }
        let codec = match process.link.codec() {
            Some(codec) => codec,
            None if rng.one_in(2) => Codec::Native,
            None => Codec::Node,
        };
        let fresh = process.link.codec().is_none();
        let (bytes, handles) = hostile_bytes(codec, fresh, &mut rng);
        process.hostile = true;
        self.hostile.insert(id);
        let _ = process.channel.up.write(&bytes, (0..handles).map(|_| Handle::Other));
        self.note(Some(id), || format!("sends {} hostile bytes", bytes.len()));
    }

    /// A worker begins a message and does not end it.
    pub(super) fn send_half(&mut self, id: WorkerId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.alive || process.hangs {
            return;
        }
        let bytes: &[u8] = match process.link.codec() {
            Some(Codec::Node) => b"{\"cmd\":\"NODE_",
            _ => &[9, 0, 0],
        };
        process.hostile = true;
        self.hostile.insert(id);
        let _ = process.channel.up.write(bytes, []);
    }
}

/// Bytes, and how many handles ride on them.
fn hostile_bytes(codec: Codec, fresh: bool, rng: &mut Rng) -> (Vec<u8>, usize) {
    let handles = if rng.one_in(6) { rng.within(1..4) as usize } else { 0 };
    let mut bytes = Vec::new();
    match (rng.below(8), codec) {
        (0, _) => bytes.extend((0..rng.within(1..120)).map(|_| rng.byte())),
        (1, _) if fresh => {
            let hello: &[u8] = if rng.one_in(2) { b"\xFFRNDL\x09\x09\x00" } else { b"\xFFROUND" };
            bytes.extend(hello);
        }
        (1, Codec::Native) => {
            bytes.extend((1_u32 << 30).to_le_bytes());
            bytes.extend([0; 8]);
        }
        (1, _) => bytes.extend(std::iter::repeat_n(b'[', 200)),
        (2, Codec::Native) => {
            // A frame that is longer than its message.
            let _ = wire::encode(&FromWorker::Ready, 100, &mut bytes);
            bytes[0] += 1;
            bytes.push(0);
        }
        (2, _) => {
            let deep = rng.within(1..300) as usize;
            let deep = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
            // The cluster's own, or the program's.
            let line = if rng.one_in(2) { cluster(&format!("\"data\":{deep}")) } else { deep };
            bytes.extend(format!("{line}\n").bytes());
        }
        (3, Codec::Node) => {
            let opening: &[u8] =
                if rng.one_in(2) { b"{\"cmd\":\"NODE_CLUSTER\"," } else { b"{\"text\":\"" };
            bytes.extend(opening);
            bytes.extend(std::iter::repeat_n(b' ', 5_000));
            bytes.extend(b"\"}\n");
        }
        (3..=4, _) => {
            // One bit is wrong in something right.
            message(codec, rng, &mut bytes);
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        _ => {
            for _ in 0..rng.within(1..4) {
                message(codec, rng, &mut bytes);
            }
        }
    }
    if fresh && codec == Codec::Native && rng.one_in(2) {
        let mut hello = Vec::new();
        wire::encode_hello(&mut hello);
        hello.append(&mut bytes);
        bytes = hello;
    }
    (bytes, handles)
}

/// A message that is one, about anything.
fn message(codec: Codec, rng: &mut Rng, bytes: &mut Vec<u8>) {
    let raw = rng.within(1..12);
    if codec == Codec::Node {
        let line = match rng.below(10) {
            0 => r#"{"cmd":"NODE_HANDLE_ACK"}"#.to_owned(),
            1 => r#"{"cmd":"NODE_HANDLE_NACK"}"#.to_owned(),
            2 => r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":7}"#.to_owned(),
            3 => cluster(r#""act":"online""#),
            4 => cluster(&format!(r#""act":"close","key":"{raw}""#)),
            5 => cluster(r#""act":"exitedAfterDisconnect""#),
            6 => cluster(&format!(
                r#""act":"queryServer","index":0,"address":"127.0.0.1","port":{},"addressType":4"#,
                raw * 9_000
            )),
            7 => cluster(r#""act":"listening","address":"nowhere","port":-1,"addressType":4"#),
            8 => format!("\"{raw}\""),
            _ => cluster(&format!(r#""ack":{},"accepted":{}"#, raw * 2, rng.one_in(2))),
        };
        bytes.extend(line.bytes());
        bytes.push(b'\n');
        return;
    }
    let (Some(seq), Some(listener)) = (Seq::from_raw(raw), ListenerId::from_raw(raw)) else {
        return;
    };
    let address = match rng.below(4) {
        0 => Address::Fd(raw as i32),
        1 => Address::Nth(raw as u32 - 1),
        // One that an operator's listener is only a part of, or one of its own.
        2 => Address::Any { port: if rng.one_in(2) { 80 } else { 0 } },
        _ => Address::Ip(SocketAddr::from(([127, 0, 0, 1], 80))),
    };
    let msg = match rng.below(12) {
        0 => FromWorker::Online,
        1 => FromWorker::Query {
            seq,
            key: Box::new(ListenKey::stream(address)),
            backlog: 0,
            data: vec![0; rng.below(300) as usize],
        },
        2 => FromWorker::Listening { listener },
        3 => FromWorker::Close { listener },
        4 => FromWorker::Suicide { seq },
        5 => FromWorker::ExitedAfterDisconnect { seq },
        6 => FromWorker::Pong { ack: seq },
        7 => FromWorker::Ready,
        8 => FromWorker::StopSignal { signal: rng.one_in(2).then_some(Signal::Interrupt) },
        9 => FromWorker::Lag { millis: raw as u32 },
        _ => FromWorker::Ack { ack: seq, accepted: rng.one_in(2) },
    };
    let _ = wire::encode(&msg, u32::MAX, bytes);
}

fn cluster(fields: &str) -> String {
    format!(r#"{{"cmd":"NODE_CLUSTER",{fields},"seq":3}}"#)
}
