//! The Node codec, both ends.

use roundel_core::node::{PrimaryEvent, PrimarySide, WorkerEvent, WorkerSide};
use roundel_core::{Errno, FromWorker, Granted, ListenerId, SockName, ToWorker};

/// The longest line in the targets here: short, so that the limit is in reach.
pub const MAX_LINE: u32 = 4_096;

/// One read: its bytes, and the handle that came along.
type Read<'a> = (&'a [u8], Option<u8>);

/// Reads as two bytes of length, of which the highest bit says that a handle came, and the bytes.
fn reads(mut data: &[u8]) -> Vec<Read<'_>> {
    let mut reads = Vec::new();
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let head = u16::from_le_bytes(*head);
        let (bytes, rest) = rest.split_at(usize::from(head & 0x7FFF).min(rest.len()));
        reads.push((bytes, (head & 0x8000 != 0).then_some(reads.len() as u8)));
        data = rest;
    }
    reads
}

/// Any bytes of a worker, with any handles, lead to events or to one lasting error, the same
/// however they are cut; and whatever the primary says to them is whole lines.
pub fn node_primary_side(data: &[u8]) {
    let reads = reads(data);
    let whole = hear_as_primary(&reads);
    if reads.iter().all(|(_, handle)| handle.is_none()) {
        let bytes: Vec<Read<'_>> =
            reads.iter().flat_map(|(bytes, _)| bytes.chunks(1).map(|byte| (byte, None))).collect();
        assert_eq!(hear_as_primary(&bytes), whole, "cut into single bytes");
    }
}

fn hear_as_primary(reads: &[Read<'_>]) -> Vec<String> {
    let mut side = PrimarySide::new(MAX_LINE);
    let mut told = Vec::new();
    for (bytes, handle) in reads {
        side.feed(bytes, *handle);
        loop {
            match side.poll() {
                Ok(Some(event)) => {
                    respond(&mut side, &event, told.len() as u64);
                    told.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(side.poll(), Err(error), "an error stays");
                    assert!(!side.is_mid_line());
                    told.push(format!("{error:?}"));
                    return told;
                }
            }
        }
    }
    told
}

/// Grants every query and hands a connection off at each `listening`, so that what answers them
/// is in reach.
fn respond(side: &mut PrimarySide<u8>, event: &PrimaryEvent<u8>, number: u64) {
    let sockname = SockName::Ip(([127, 0, 0, 1], 4_711).into());
    let msg = match event {
        PrimaryEvent::Answer(bytes) => return whole_lines(bytes),
        PrimaryEvent::Message(FromWorker::Query { seq, data, key, .. }) => {
            let Some(listener) = ListenerId::from_raw(number % 3 + 1) else { return };
            let shared = key.index % 2 == 1;
            let granted = Granted { listener, sockname, shared, data: data.clone() };
            let result = if number % 5 == 4 { Err(Errno::EMFILE) } else { Ok(Box::new(granted)) };
            ToWorker::QueryReply { ack: *seq, result }
        }
        PrimaryEvent::Message(FromWorker::Listening { listener }) => {
            let Some(first_seq) = roundel_core::Seq::from_raw(number + 1) else { return };
            ToWorker::NewConn { first_seq, listener: *listener, count: 1 }
        }
        PrimaryEvent::Message(
            FromWorker::Suicide { seq } | FromWorker::ExitedAfterDisconnect { seq },
        ) => ToWorker::Ack { ack: *seq },
        _ => return,
    };
    side.note(&msg);
    let mut bytes = Vec::new();
    side.encode(&msg, &mut bytes);
    whole_lines(&bytes);
}

/// As [`node_primary_side`], for what a primary says.
pub fn node_worker_side(data: &[u8]) {
    let mut side = WorkerSide::new(MAX_LINE);
    for (bytes, handle) in reads(data) {
        side.feed(bytes, handle);
        loop {
            match side.poll() {
                Ok(Some(WorkerEvent::Answer(bytes))) => whole_lines(&bytes),
                Ok(Some(WorkerEvent::Message { msg, .. })) => {
                    let mut bytes = Vec::new();
                    if let ToWorker::NewConn { first_seq, .. } = msg {
                        side.encode(
                            &FromWorker::Ack { ack: first_seq, accepted: true },
                            &mut bytes,
                        );
                    }
                    whole_lines(&bytes);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return assert_eq!(side.poll(), Err(error), "an error stays"),
            }
        }
    }
}

fn whole_lines(bytes: &[u8]) {
    assert!(bytes.last().is_none_or(|&last| last == b'\n'), "half a line is said");
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(std::str::from_utf8(line).is_ok() && line.first() == Some(&b'{'), "{line:?}");
    }
}
