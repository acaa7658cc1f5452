//! Both ends of a channel, line by line.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{
    Address, Attach, DecodeError, Errno, FromWorker, Granted, ListenKey, ListenerId, Seq, SockName,
    ToWorker, Transport,
};

type Side = PrimarySide<u32>;

const ONLINE: &str = r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#;

fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

fn listener(n: u64) -> ListenerId {
    ListenerId::from_raw(n).unwrap()
}

fn hear(side: &mut Side, line: &str, handle: Option<u32>) -> Vec<PrimaryEvent<u32>> {
    side.feed(format!("{line}\n").as_bytes(), handle);
    core::iter::from_fn(|| side.poll().unwrap()).collect()
}

fn say(side: &mut Side, msg: &ToWorker) -> String {
    side.note(msg);
    let mut bytes = Vec::new();
    side.encode(msg, &mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn new_conn(n: u64) -> ToWorker {
    ToWorker::NewConn { first_seq: seq(n), listener: listener(1), count: 1 }
}

fn granted(n: u64, shared: bool) -> Box<Granted> {
    let sockname = SockName::Ip("[::]:4711".parse().unwrap());
    Box::new(Granted { listener: listener(n), sockname, shared, data: b"null".to_vec() })
}

/// A worker that was granted listener 1, shared or not.
fn served(shared: bool) -> Side {
    let mut side = Side::new(1 << 20);
    let query = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":0,"addressType":4,"seq":1}"#;
    let events = hear(&mut side, query, None);
    let key = Box::new(ListenKey::stream(Address::Any { port: 0 }));
    let query = FromWorker::Query { seq: seq(2), key, backlog: 0, data: b"null".to_vec() };
    assert_eq!(events, [PrimaryEvent::Message(query)]);
    let line =
        say(&mut side, &ToWorker::QueryReply { ack: seq(2), result: Ok(granted(1, shared)) });
    assert!(line.contains(r#""ack":1"#), "{line}");
    side
}

#[test]
fn a_connection_is_acknowledged_twice() {
    let mut side = served(false);
    let line = say(&mut side, &new_conn(1));
    assert_eq!(
        line,
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_CLUSTER\",\
         \"act\":\"newconn\",\"key\":\"1\",\"seq\":2}}\n"
    );
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None), []);
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":true,"seq":3}"#;
    let ack = FromWorker::Ack { ack: seq(1), accepted: true };
    assert_eq!(hear(&mut side, answer, None), [PrimaryEvent::Message(ack)]);
    // What answers a message that wants none is a stray.
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":3,"accepted":true,"seq":3}"#;
    assert_eq!(hear(&mut side, answer, None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_NACK"}"#, None), [PrimaryEvent::Stray]);
}

#[test]
fn a_refused_connection_is_for_another_worker() {
    let mut side = served(false);
    say(&mut side, &new_conn(1));
    say(&mut side, &new_conn(2));
    let nack = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::NotArrived { seq: seq(1) }]);
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::NotArrived { seq: seq(2) }]);
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::Stray]);
}

#[test]
fn a_refused_listener_comes_again_and_then_not() {
    let mut side = served(true);
    let nack = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
    for _ in 0..3 {
        let msg = ToWorker::QueryReply { ack: seq(2), result: Ok(granted(1, true)) };
        let attach = Attach::Listener(listener(1));
        assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::Resend { msg, attach }]);
    }
    let events = hear(&mut side, nack, None);
    let [PrimaryEvent::Message(close), PrimaryEvent::Answer(refusal)] = &*events else {
        panic!("{events:?}")
    };
    assert_eq!(*close, FromWorker::Close { listener: listener(1) });
    assert!(refusal.windows(11).any(|w| w == b"\"errno\":-24"), "{refusal:?}");
}

#[test]
fn what_a_worker_may_hold_back_is_doubtful() {
    let ack = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
    let cargo = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    let doubtful = |n| PrimaryEvent::Doubtful { seq: seq(n) };
    let mut side = served(false);
    for n in 1..=4 {
        say(&mut side, &new_conn(n));
    }
    // The first has arrived before the worker sent its own handle, the second behind that.
    assert_eq!(hear(&mut side, ack, None), []);
    let events = hear(&mut side, cargo, Some(7));
    let user =
        PrimaryEvent::User { json: "\"take\"".into(), handle: Some((HandleKind::NetSocket, 7)) };
    assert_eq!(events, [doubtful(1), PrimaryEvent::Answer(HANDLE_ACK.to_vec()), user]);
    assert_eq!(hear(&mut side, ack, None), [doubtful(2)]);
    // It has our answer: from here on it holds nothing back.
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":true,"seq":3}"#;
    assert_eq!(hear(&mut side, answer, None).len(), 1);
    assert_eq!(hear(&mut side, ack, None), []);
}

#[test]
fn a_handle_that_did_not_come_is_refused() {
    let mut side = served(false);
    let cargo = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    assert_eq!(hear(&mut side, cargo, None), [PrimaryEvent::Answer(HANDLE_NACK.to_vec())]);
}

#[test]
fn listening_names_the_server_by_its_query() {
    let mut side = served(false);
    let listening = |port: u32, index: u32| {
        format!(
            r#"{{"cmd":"NODE_CLUSTER","act":"listening","index":{index},"data":null,"address":null,"port":{port},"addressType":4,"seq":2}}"#
        )
    };
    assert_eq!(hear(&mut side, &listening(4711, 1), None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, &listening(4712, 0), None), [PrimaryEvent::Stray]);
    let msg = FromWorker::Listening { listener: listener(1) };
    assert_eq!(hear(&mut side, &listening(4711, 0), None), [PrimaryEvent::Message(msg)]);
    assert_eq!(hear(&mut side, &listening(4711, 0), None), [PrimaryEvent::Stray], "once");
    let close = |key: &str| format!(r#"{{"cmd":"NODE_CLUSTER","act":"close","key":"{key}"}}"#);
    assert_eq!(hear(&mut side, &close("2"), None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, &close("x"), None), [PrimaryEvent::Stray]);
    let msg = FromWorker::Close { listener: listener(1) };
    assert_eq!(hear(&mut side, &close("1"), None), [PrimaryEvent::Message(msg)]);
    assert_eq!(hear(&mut side, &close("1"), None), [PrimaryEvent::Stray]);
}

#[test]
fn a_query_that_makes_no_sense_is_refused_on_the_spot() {
    let mut side = Side::new(1 << 20);
    let query = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":-1,"addressType":-1,"seq":9}"#;
    let events = hear(&mut side, query, None);
    let [PrimaryEvent::Answer(line)] = &*events else { panic!("{events:?}") };
    let line = core::str::from_utf8(line).unwrap();
    assert!(line.contains(r#""errno":-22"#) && line.contains(r#""ack":9"#), "{line}");
}

#[test]
fn what_means_nothing_is_counted() {
    let mut side = Side::new(1 << 20);
    for line in [
        r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"x"}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"dance","seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","seq":1}"#,
    ] {
        assert_eq!(hear(&mut side, line, None), []);
    }
    assert_eq!(side.ignored(), 3);
}

#[test]
fn programs_speak_of_suicide_and_readiness() {
    let mut side = Side::new(1 << 20);
    let events = hear(&mut side, r#"{"act":"suicide"}"#, None);
    let [PrimaryEvent::User { .. }, PrimaryEvent::Message(FromWorker::Suicide { seq })] = &*events
    else {
        panic!("{events:?}")
    };
    let mut bytes = Vec::new();
    side.encode(&ToWorker::Ack { ack: *seq }, &mut bytes);
    assert!(bytes.is_empty(), "the program wants no answer");
    let events = hear(&mut side, "\"ready\"", None);
    assert_eq!(events.last(), Some(&PrimaryEvent::Message(FromWorker::Ready)));
}

#[test]
fn a_passed_listener_makes_a_worker_ready_when_it_has_arrived() {
    let mut side = Side::new(1 << 20);
    let line = say(&mut side, &ToWorker::PassListener { listener: listener(1) });
    assert_eq!(line, "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Server\",\"msg\":\"server\"}\n");
    let events = hear(&mut side, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None);
    let listening = FromWorker::Listening { listener: listener(1) };
    let wanted = [PrimaryEvent::Message(FromWorker::Online), PrimaryEvent::Message(listening)];
    assert_eq!(events, wanted);
}

#[test]
fn handles_that_nobody_acknowledges_have_an_end() {
    let mut side = served(false);
    for n in 1..=MAX_UNACKED as u64 + 1 {
        side.note(&new_conn(n));
    }
    assert_eq!(side.poll(), Err(DecodeError::TooManyHandles));
    // As have those that arrive after they were answered.
    let mut side = served(false);
    let mut error = None;
    for n in 1..=2 * MAX_UNACKED as u64 {
        side.note(&new_conn(n));
        side.feed(b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n", None);
        while error.is_none() {
            match side.poll() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(why) => error = Some(why),
            }
        }
    }
    assert_eq!(error, Some(DecodeError::TooManyHandles));
}

#[test]
fn data_of_others_is_one_line_of_json_or_nothing() {
    let side = served(false);
    let encode = |data: &[u8]| {
        let mut granted = granted(1, false);
        granted.data = data.to_vec();
        let mut bytes = Vec::new();
        side.encode(&ToWorker::QueryReply { ack: seq(1), result: Ok(granted) }, &mut bytes);
        String::from_utf8(bytes).unwrap()
    };
    assert!(encode(b"{\n\"a\":1}").contains(r#""data":{ "a":1}"#));
    assert!(encode(b"\xff\x00").contains(r#""data":null"#));
    assert!(encode(b"").contains(r#""data":null"#));
    assert!(encode(b"1}\n{").contains(r#""data":null"#));
}

/// What our worker says is what our primary hears, and the other way round.
#[test]
fn the_two_ends_understand_each_other() {
    let mut primary = Side::new(1 << 20);
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    let keys = [
        ListenKey::stream(Address::Any { port: 80 }),
        ListenKey::stream(Address::Ip("127.0.0.1:81".parse().unwrap())),
        ListenKey { v6_only: true, ..ListenKey::stream(Address::Ip("[::]:82".parse().unwrap())) },
        ListenKey::stream(Address::Unix("/run/\"quoted\"\n".into())),
        ListenKey::stream(Address::Fd(5)),
        ListenKey {
            transport: Transport::Datagram,
            ..ListenKey::stream(Address::Ip("0.0.0.0:53".parse().unwrap()))
        },
        ListenKey { index: 1, ..ListenKey::stream(Address::Any { port: 0 }) },
    ];
    for (n, key) in (1..).zip(keys) {
        let shared = key.transport == Transport::Datagram;
        let query =
            FromWorker::Query { seq: seq(n), key: Box::new(key.clone()), backlog: 7, data: vec![] };
        let mut bytes = Vec::new();
        worker.encode(&query, &mut bytes);
        primary.feed(&bytes, None);
        let event = primary.poll().unwrap().unwrap();
        let PrimaryEvent::Message(FromWorker::Query { seq: asked, key: heard, .. }) = event else {
            panic!("{event:?}")
        };
        assert_eq!(*heard, key);
        let sockname = if let Address::Unix(path) = &key.address {
            SockName::Unix(path.clone())
        } else {
            SockName::Ip("127.0.0.1:4711".parse().unwrap())
        };
        let grant = Granted { listener: listener(n), sockname, shared, data: b"[1]".to_vec() };
        let reply = ToWorker::QueryReply { ack: asked, result: Ok(Box::new(grant.clone())) };
        let line = say(&mut primary, &reply);
        worker.feed(line.as_bytes(), shared.then_some(9));
        let mut events: Vec<_> = core::iter::from_fn(|| worker.poll().unwrap()).collect();
        let Some(WorkerEvent::Message { msg: ToWorker::QueryReply { ack, result }, handle }) =
            events.pop()
        else {
            panic!("{events:?}")
        };
        assert_eq!((ack, handle), (seq(n), shared.then_some(9)));
        let heard = result.unwrap();
        assert_eq!((heard.shared, &heard.data), (shared, &grant.data));
        let listening = FromWorker::Listening { listener: heard.listener };
        let mut bytes = Vec::new();
        worker.encode(&listening, &mut bytes);
        primary.feed(&bytes, None);
        let wanted = FromWorker::Listening { listener: listener(n) };
        assert_eq!(primary.poll().unwrap(), Some(PrimaryEvent::Message(wanted)), "{key:?}");
    }
    // A refusal.
    let key = Box::new(ListenKey::stream(Address::Any { port: 83 }));
    let mut bytes = Vec::new();
    worker.encode(&FromWorker::Query { seq: seq(99), key, backlog: 0, data: vec![] }, &mut bytes);
    primary.feed(&bytes, None);
    assert!(primary.poll().unwrap().is_some());
    let refusal = ToWorker::QueryReply { ack: seq(200), result: Err(Errno::EADDRINUSE) };
    let line = say(&mut primary, &refusal);
    worker.feed(line.as_bytes(), None);
    let wanted = ToWorker::QueryReply { ack: seq(99), result: Err(Errno::EADDRINUSE) };
    assert_eq!(worker.poll().unwrap(), Some(WorkerEvent::Message { msg: wanted, handle: None }));
    // An address that Node has no form for.
    let key = Box::new(ListenKey::stream(Address::Nth(0)));
    let mut bytes = Vec::new();
    worker.encode(&FromWorker::Query { seq: seq(100), key, backlog: 0, data: vec![] }, &mut bytes);
    assert!(bytes.is_empty());
    let wanted = ToWorker::QueryReply { ack: seq(100), result: Err(Errno::EINVAL) };
    assert_eq!(worker.poll().unwrap(), Some(WorkerEvent::Message { msg: wanted, handle: None }));
}

#[test]
fn a_leaving_worker_declines_what_comes_behind_its_close() {
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    let key = Box::new(ListenKey::stream(Address::Any { port: 80 }));
    let mut bytes = Vec::new();
    worker.encode(&FromWorker::Query { seq: seq(1), key, backlog: 0, data: vec![] }, &mut bytes);
    worker.feed(b"{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"k\",\"ack\":3}\n", None);
    assert!(worker.poll().unwrap().is_some());
    let conn =
        b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_CLUSTER\",\
                 \"act\":\"newconn\",\"key\":\"k\",\"seq\":12}}\n";
    worker.feed(conn, Some(1));
    let events: Vec<_> = core::iter::from_fn(|| worker.poll().unwrap()).collect();
    assert!(matches!(
        &*events,
        [WorkerEvent::Answer(_), WorkerEvent::Message { msg: ToWorker::NewConn { .. }, .. }]
    ));
    let mut bytes = Vec::new();
    worker.encode(&FromWorker::ExitedAfterDisconnect { seq: seq(2) }, &mut bytes);
    let said = String::from_utf8(bytes).unwrap();
    let (close, leave) = said.trim_end().split_once('\n').unwrap();
    assert!(close.contains("\"close\"") && leave.contains("\"exitedAfterDisconnect\""), "{said}");
    worker.feed(conn, Some(2));
    let events: Vec<_> = core::iter::from_fn(|| worker.poll().unwrap()).collect();
    let [WorkerEvent::Answer(ack), WorkerEvent::Answer(answer)] = &*events else {
        panic!("{events:?}")
    };
    assert_eq!(ack, HANDLE_ACK);
    let answer = core::str::from_utf8(answer).unwrap();
    assert!(answer.contains("\"ack\":12,\"accepted\":false"), "{answer}");
}

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
    let field = prop::sample::select(vec![
        "seq",
        "ack",
        "accepted",
        "errno",
        "key",
        "data",
        "sockname",
        "address",
        "port",
        "addressType",
        "fd",
        "flags",
        "index",
        "backlog",
    ]);
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
    /// Whatever comes leads to events or to an error, which stays; and whatever is said
    /// meanwhile is one line.
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
