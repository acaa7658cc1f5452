//! Arbitrary and hostile input.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::node::parse::FIELDS;

fn hostile_line() -> impl Strategy<Value = Vec<u8>> {
    let act = prop::sample::select(vec![
        "online",
        "queryServer",
        "listening",
        "close",
        "exitedAfterDisconnect",
        "newconn",
        "disconnect",
        "x",
    ]);
    let value = prop::sample::select(vec![
        "null",
        "0",
        "1",
        "2",
        "-1",
        "4",
        "1e300",
        "\"4\"",
        "\"udp4\"",
        "{}",
        "[[]]",
        "true",
        "18446744073709551615",
        "9007199254740993",
        "\"1\"",
        "\"/x\"",
        "\"127.0.0.1\"",
    ]);
    // Without `cmd`, `type`, `msg` and `act`, which say what kind of line it is.
    let field = prop::sample::select(&FIELDS[4..]);
    let cluster = (act, prop::collection::vec((field, value), 0..6)).prop_map(|(act, fields)| {
        let mut text = format!(r#"{{"cmd":"NODE_CLUSTER","act":"{act}""#);
        for (field, value) in fields {
            text.push_str(&format!(r#","{field}":{value}"#));
        }
        text.push('}');
        text
    });
    let laden = cluster
        .clone()
        .prop_map(|msg| format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{msg}}}"#));
    prop_oneof![
        cluster.prop_map(String::into_bytes),
        laden.prop_map(String::into_bytes),
        Just(HANDLE_ACK.trim_ascii_end().to_vec()),
        Just(HANDLE_NACK.trim_ascii_end().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
        Just(ONLINE.into()),
    ]
}

proptest! {
    /// Any input leads to events or to an error, which stays; and every answer meanwhile is one
    /// line.
    #[test]
    fn nothing_that_comes_does_harm(
        lines in prop::collection::vec((hostile_line(), any::<bool>()), 0..30),
        grants in prop::collection::vec(1_u64..5, 0..30),
    ) {
        let mut primary = Side::new(1 << 16);
        let mut worker = WorkerSide::<u32>::new(1 << 16);
        let mut grants = grants.into_iter();
        for (line, laden) in lines {
            let line = [&line[..], b"\n"].concat();
            primary.feed(&line, laden.then_some(1));
            worker.feed(&line, laden.then_some(1));
            while let Ok(Some(event)) = primary.poll() {
                if let PrimaryEvent::Answer(bytes) = &event {
                    prop_assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1);
                }
                if let PrimaryEvent::Message(FromWorker::Query { seq, .. }) = event {
                    let result = match grants.next() {
                        Some(n) => Ok(granted(n, n % 2 == 0)),
                        None => Err(Errno::EMFILE),
                    };
                    let line = say(&mut primary, &ToWorker::QueryReply { ack: seq, result });
                    prop_assert_eq!(line.matches('\n').count(), 1);
                }
            }
            while let Ok(Some(_)) = worker.poll() {}
            if let Err(error) = primary.poll() {
                prop_assert_eq!(primary.poll(), Err(error));
            }
        }
    }
}
