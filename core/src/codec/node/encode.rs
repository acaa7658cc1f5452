//! The primary's messages as lines.

use alloc::vec::Vec;

use super::handle_kind::HandleKind;
use super::host::Host;
use super::parse;
use super::write;
use crate::{Errno, Granted, ListenerId, Seq, ToWorker, Transport};

/// The suicide of a Node worker is a message of its program, which has no number and wants no
/// answer.
pub(super) const SUICIDE: Seq = match Seq::from_raw(u64::MAX) {
    Some(seq) => seq,
    None => Seq::FIRST,
};

/// Appends the line for a message; nothing for one that Node has no form for. `transport_of`
/// returns what a listener carries.
pub(super) fn message(
    msg: &ToWorker,
    transport_of: impl Fn(ListenerId) -> Option<Transport>,
    host: &Host,
    bytes: &mut Vec<u8>,
) {
    match msg {
        ToWorker::NewConn { first_seq, listener, .. } => {
            let seq = handoff_number(*first_seq);
            let msg = format_args!(
                r#"{{"cmd":"NODE_CLUSTER","act":"newconn","key":"{}","seq":{seq}}}"#,
                listener.get()
            );
            write::laden(bytes, HandleKind::NetNative, msg);
        }
        ToWorker::QueryReply { ack, result: Ok(granted) } => {
            let transport = transport_of(granted.listener);
            grant(*ack, granted, transport, host, bytes);
        }
        ToWorker::QueryReply { ack, result: Err(errno) } => {
            let (ack, seq, errno) = (parse::wire_seq(*ack), odd(*ack), as_libuv(*errno));
            write::line(
                bytes,
                format_args!(
                    r#"{{"cmd":"NODE_CLUSTER","errno":-{errno},"key":"-{ack}","ack":{ack},"data":null,"seq":{seq}}}"#
                ),
            );
        }
        ToWorker::Ack { ack } if *ack == SUICIDE => {}
        ToWorker::Ack { ack } => {
            let (ack, seq) = (parse::wire_seq(*ack), odd(*ack));
            write::line(bytes, format_args!(r#"{{"cmd":"NODE_CLUSTER","ack":{ack},"seq":{seq}}}"#));
        }
        ToWorker::Disconnect | ToWorker::Drain { .. } => {
            write::line(
                bytes,
                format_args!(r#"{{"cmd":"NODE_CLUSTER","act":"disconnect","seq":1}}"#),
            );
        }
        ToWorker::PassListener { .. } => {
            write::laden(bytes, HandleKind::NetServer, format_args!("\"server\""));
        }
        ToWorker::Shutdown => write::line(bytes, format_args!("\"shutdown\"")),
        ToWorker::Ping { .. } => {}
    }
}

fn grant(
    ack: Seq,
    granted: &Granted,
    transport: Option<Transport>,
    host: &Host,
    bytes: &mut Vec<u8>,
) {
    let seq = odd(ack);
    let ack = parse::wire_seq(ack);
    let key = granted.listener.get();
    // A native worker's data may be anything.
    let data = write::one_line(&granted.data);
    let data = data.as_deref().unwrap_or("null");
    if granted.shared {
        let kind = match transport {
            Some(Transport::Datagram | Transport::DatagramReuse) => HandleKind::DgramNative,
            Some(Transport::Stream) | None => HandleKind::NetNative,
        };
        let msg = format_args!(
            r#"{{"cmd":"NODE_CLUSTER","errno":0,"key":"{key}","ack":{ack},"data":{data},"seq":{seq}}}"#
        );
        write::laden(bytes, kind, msg);
    } else {
        let sockname = write::sockname(&granted.sockname, host);
        write::line(
            bytes,
            format_args!(
                r#"{{"cmd":"NODE_CLUSTER","errno":null,"key":"{key}","ack":{ack},"data":{data}{sockname},"seq":{seq}}}"#
            ),
        );
    }
}

/// libuv reports EACCES for a unix socket whose directory does not exist.
const fn as_libuv(errno: Errno) -> i32 {
    match errno {
        Errno::ENOENT => Errno::EACCES.0,
        other => other.0,
    }
}

/// The number of a handoff on the wire: even, so that an answer leads back without a table.
const fn handoff_number(seq: Seq) -> u64 {
    seq.get() * 2
}

/// The handoff behind the number that a worker answers.
pub(crate) fn handoff_of(number: u64) -> Option<Seq> {
    if number.is_multiple_of(2) { Seq::from_raw(number / 2) } else { None }
}

/// The number of a message that answers the one with this number: odd, and not the 1 of a
/// `disconnect`.
const fn odd(seq: Seq) -> u64 {
    seq.get() * 2 + 1
}
