//! The primary's end of a channel, line by line.

mod assist;
mod ends;
mod hostile;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

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

/// A channel whose worker was granted listener 1, shared or not.
fn served(shared: bool) -> Side {
    let mut side = Side::new(1 << 20);
    let query = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":0,"addressType":4,"seq":1}"#;
    let events = hear(&mut side, query, None);
    let key = Box::new(ListenKey::stream(Address::Any { port: 0 }));
    let query = FromWorker::Query { seq: seq(2), key, backlog: 0, data: b"null".to_vec() };
    assert_eq!(events, [PrimaryEvent::Message(query)]);
    let line =
        say(&mut side, &ToWorker::QueryReply { ack: seq(2), result: Ok(granted(1, shared)) });
    assert!(line.contains(r#""ack":1,"#) && line.contains(r#""seq":5"#), "{line}");
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
    // An answer to a message that wants none is a stray.
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":3,"accepted":true,"seq":3}"#;
    assert_eq!(hear(&mut side, answer, None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None), [PrimaryEvent::Stray]);
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_NACK"}"#, None), [PrimaryEvent::Stray]);
}

#[test]
fn answers_to_unsent_messages_are_strays() {
    let mut side = served(false);
    for n in 1..=3 {
        say(&mut side, &new_conn(n));
    }
    side.unsent(&new_conn(3));
    side.unsent(&ToWorker::Disconnect);
    let nack = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
    for n in 1..=2 {
        assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::NotArrived { seq: seq(n) }]);
    }
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::Stray]);
}

#[test]
fn a_program_is_told_that_its_handle_did_not_arrive() {
    let mut side = Side::new(1 << 20);
    side.user_line("1", Some(HandleKind::NetSocket)).unwrap();
    let nack = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::UserNotArrived]);
    assert_eq!(hear(&mut side, nack, None), [PrimaryEvent::Stray], "it is not sent again");
}

#[test]
fn a_handle_comes_with_a_line_that_says_so() {
    let mut side = Side::new(1 << 20);
    side.feed(format!("{ONLINE}\n").as_bytes(), Some(1));
    assert_eq!(side.poll(), Err(DecodeError::UnexpectedHandles));
    let mut side = Side::new(1 << 20);
    assert!(!side.is_mid_line());
    side.feed(ONLINE.as_bytes(), None);
    assert_eq!(side.poll(), Ok(None));
    assert!(side.is_mid_line());
    assert_eq!(hear(&mut side, "", None).len(), 1);
    assert!(!side.is_mid_line());
}

#[test]
fn a_number_names_one_query_at_a_time() {
    let mut side = Side::new(1 << 20);
    let query = |seq: u32| {
        format!(
            r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":80,"addressType":4,"seq":{seq}}}"#
        )
    };
    for n in [1, 3] {
        let events = hear(&mut side, &query(n), None);
        assert!(
            matches!(&*events, [PrimaryEvent::Message(FromWorker::Query { .. })]),
            "{events:?}"
        );
        assert_eq!(hear(&mut side, &query(n), None), [PrimaryEvent::Stray]);
    }
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
    // Of the others it holds what it held.
    let mut side = served(true);
    let query = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":81,"addressType":4,"seq":3}"#;
    assert_eq!(hear(&mut side, query, None).len(), 1);
    let reply = ToWorker::QueryReply { ack: seq(4), result: Ok(granted(2, true)) };
    let line = say(&mut side, &reply);
    assert!(line.contains(r#""seq":9"#), "{line}");
    for _ in 0..6 {
        assert_eq!(hear(&mut side, nack, None).len(), 1);
    }
    assert_eq!(hear(&mut side, nack, None).len(), 2, "the first one is given up");
    let close = |key: u32| format!(r#"{{"cmd":"NODE_CLUSTER","act":"close","key":"{key}"}}"#);
    assert_eq!(hear(&mut side, &close(1), None), [PrimaryEvent::Stray]);
    let msg = FromWorker::Close { listener: listener(2) };
    assert_eq!(hear(&mut side, &close(2), None), [PrimaryEvent::Message(msg)]);
}

#[test]
fn acks_a_worker_may_hold_back_are_in_doubt() {
    let ack = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
    let cargo = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    let in_doubt = |n| PrimaryEvent::InDoubt { seq: seq(n) };
    let mut side = served(false);
    for n in 1..=4 {
        say(&mut side, &new_conn(n));
    }
    // The first has arrived before the worker sent its own handle, the second after that.
    assert_eq!(hear(&mut side, ack, None), []);
    let events = hear(&mut side, cargo, Some(7));
    let user =
        PrimaryEvent::User { json: "\"take\"".into(), handle: Some((HandleKind::NetSocket, 7)) };
    assert_eq!(events, [in_doubt(1), PrimaryEvent::Answer(HANDLE_ACK.to_vec()), user]);
    assert_eq!(hear(&mut side, ack, None), [in_doubt(2)]);
    // An answered connection is not in doubt; the others that have arrived are.
    let mut answered = served(false);
    for n in 1..=3 {
        say(&mut answered, &new_conn(n));
        assert_eq!(hear(&mut answered, ack, None), []);
    }
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":3}"#;
    assert_eq!(hear(&mut answered, answer, None).len(), 1);
    assert_eq!(hear(&mut answered, cargo, Some(7))[..2], [in_doubt(1), in_doubt(3)]);
    // The worker has our answer, so from here on it holds nothing back.
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":true,"seq":3}"#;
    assert_eq!(hear(&mut side, answer, None).len(), 1);
    assert_eq!(hear(&mut side, ack, None), []);
}

#[test]
fn a_handle_that_did_not_come_is_refused() {
    let mut side = served(false);
    say(&mut side, &new_conn(1));
    assert_eq!(hear(&mut side, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None), []);
    let cargo = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    // Its answers wait behind a handle that got lost as well.
    let in_doubt = PrimaryEvent::InDoubt { seq: seq(1) };
    let events = hear(&mut side, cargo, None);
    assert_eq!(events, [in_doubt, PrimaryEvent::Answer(HANDLE_NACK.to_vec())]);
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
fn meaningless_messages_are_counted() {
    let mut side = Side::new(1 << 20);
    for line in [
        r#"{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"x"}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"dance","seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","seq":1}"#,
    ] {
        assert_eq!(hear(&mut side, line, None), []);
    }
    assert_eq!(side.ignored(), 3);
}

#[test]
fn impossible_names_are_strays() {
    let mut side = Side::new(1 << 20);
    for fields in [
        r#""act":"queryServer","address":null,"port":80,"addressType":4"#,
        r#""act":"queryServer","address":null,"port":80,"addressType":4,"seq":-1"#,
        r#""act":"exitedAfterDisconnect","seq":1e300"#,
        r#""ack":{},"accepted":true"#,
        r#""ack":"x""#,
        r#""ack":-2,"accepted":true"#,
        r#""act":"listening","address":{},"port":[],"index":-7"#,
        r#""act":"close","key":{}"#,
    ] {
        let line = format!(r#"{{"cmd":"NODE_CLUSTER",{fields}}}"#);
        assert_eq!(hear(&mut side, &line, None), [PrimaryEvent::Stray], "{line}");
    }
}

/// `if (reply.accepted)`, says Node.
#[test]
fn answers_without_accepted_decline() {
    for (said, accepted) in
        [("true", true), ("1", true), ("false", false), ("0", false), ("null", false)]
    {
        let mut side = served(false);
        say(&mut side, &new_conn(1));
        let answer = format!(r#"{{"cmd":"NODE_CLUSTER","ack":2,"accepted":{said},"seq":3}}"#);
        let ack = FromWorker::Ack { ack: seq(1), accepted };
        assert_eq!(hear(&mut side, &answer, None), [PrimaryEvent::Message(ack)], "{said}");
    }
    let mut side = served(false);
    let ack = FromWorker::Ack { ack: seq(1), accepted: false };
    let answer = r#"{"cmd":"NODE_CLUSTER","ack":2}"#;
    assert_eq!(hear(&mut side, answer, None), [PrimaryEvent::Message(ack)]);
}

#[test]
fn a_closing_server_is_told_that_no_connection_is_left() {
    let mut side = Side::new(1 << 20);
    for (asked, answered) in [
        (
            r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"6:::::80"}"#,
            "{\"cmd\":\"NODE_SOCKET_ALL_CLOSED\",\"key\":\"6:::::80\"}\n",
        ),
        (
            r#"{"cmd":"NODE_SOCKET_GET_COUNT","key":"-1:/\ud800:-1"}"#,
            "{\"cmd\":\"NODE_SOCKET_COUNT\",\"key\":\"-1:/\\ud800:-1\",\"count\":0}\n",
        ),
    ] {
        let answer = PrimaryEvent::Answer(answered.as_bytes().to_vec());
        assert_eq!(hear(&mut side, asked, None), [answer]);
    }
    assert_eq!(side.ignored(), 0);
}

#[test]
fn program_messages_are_skipped_and_their_handles_acknowledged() {
    let skipped = |reason, length: usize, with_handle| PrimaryEvent::Skipped {
        reason,
        length: length as u64,
        with_handle,
    };
    let acked = || PrimaryEvent::Answer(HANDLE_ACK.to_vec());
    let mut side = Side::new(1 << 10);
    let long = format!("\"{}\"", "x".repeat(2_000));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let wrap = |msg: &str| format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{msg}}}"#);
    let too_deep = Skipped::NestedTooDeep;
    assert_eq!(hear(&mut side, &long, None), [skipped(Skipped::TooLong, long.len(), false)]);
    assert_eq!(hear(&mut side, &deep, None), [skipped(too_deep, 400, false)]);
    assert_eq!(hear(&mut side, "", None), [skipped(Skipped::NotJson, 0, false)]);
    assert_eq!(hear(&mut side, "hello", None), [skipped(Skipped::NotJson, 5, false)]);
    for (line, why) in [(wrap(&long), Skipped::TooLong), (wrap(&deep), too_deep)] {
        assert_eq!(hear(&mut side, &line, Some(7)), [acked(), skipped(why, line.len(), true)]);
        // Its sender tries again, or goes on without it.
        let refused = PrimaryEvent::Answer(HANDLE_NACK.to_vec());
        assert_eq!(hear(&mut side, &line, None), [refused]);
    }
    // No program of Node can send this.
    side.feed(format!("{long}\n").as_bytes(), Some(7));
    assert_eq!(side.poll(), Err(DecodeError::UnexpectedHandles));
}

/// A worker that sends anything holds nothing back.
#[test]
fn a_skipped_message_ends_the_doubt() {
    let ack = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
    let mut side = served(false);
    say(&mut side, &new_conn(1));
    let cargo = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take"}"#;
    assert_eq!(hear(&mut side, cargo, Some(7)).len(), 2);
    assert_eq!(hear(&mut side, "no JSON", None).len(), 1);
    assert_eq!(hear(&mut side, ack, None), []);
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
    // So have those that arrive after they were answered.
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
