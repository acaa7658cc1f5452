//! Lines and what they are.

use alloc::format;

use super::*;

fn cluster(text: &str) -> Cluster<'_> {
    match parse(text.as_bytes()) {
        Ok(Line::Plain(Message::Cluster(cluster))) => cluster,
        other => panic!("{other:?}"),
    }
}

/// Why a line is skipped, if it is.
fn skip(line: &[u8]) -> Option<Skipped> {
    match parse(line) {
        Ok(Line::Plain(Message::Skipped(why))) => Some(why),
        _ => None,
    }
}

#[test]
fn internal_messages_are_recognized() {
    let user = |text: &str| matches!(parse(text.as_bytes()), Ok(Line::Plain(Message::User(_))));
    for text in [
        "1",
        "-1",
        "\"NODE_HANDLE_ACK\"",
        "null",
        "true",
        "[]",
        "{}",
        r#"{"cmd":1}"#,
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"node_x"}"#,
        r#"{"cmd":{"a":1},"data":{}}"#,
        " {} ",
    ] {
        assert!(user(text), "{text}");
    }
    assert!(matches!(parse(br#"{"cmd":"NODE_X"}"#), Ok(Line::Plain(Message::Unknown))));
    assert!(matches!(parse(br#"{ "cmd" : "NODE_HANDLE_ACK" }"#), Ok(Line::HandleAck)));
    assert!(matches!(parse(br#"{"cmd":"NODE_HANDLE_NACK"}"#), Ok(Line::HandleNack)));
    let escaped = r#"{"cmd":"\u004eODE_CLUSTER","act":"online","seq":0}"#;
    assert_eq!(cluster(escaped).act().unwrap(), "online");
}

#[test]
fn nesting_has_an_end() {
    let depth = MAX_NESTING + 1;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let beside = format!("[{}[]]", "[],".repeat(depth));
    let in_text = format!(r#"["\\\"{}", "]"]"#, "[".repeat(depth));
    for (text, is_too_deep) in [
        (&deep, true),
        (&format!("[1,{}]", &deep[1..deep.len() - 1]), true),
        (&format!(r#"["\"", {}]"#, &deep[1..deep.len() - 1]), true),
        (&deep[1..deep.len() - 1].into(), false),
        (&beside, false),
        (&in_text, false),
    ] {
        assert_eq!(skip(text.as_bytes()) == Some(Skipped::NestedTooDeep), is_too_deep, "{text}");
    }
}

#[test]
fn numbers_are_those_that_javascript_has() {
    assert_eq!(seq(0).map(wire_seq), Some(0));
    let last = (1 << 53) - 1;
    assert_eq!(seq(last).map(wire_seq), Some(last));
    assert_eq!(seq(last + 1), None);
}

#[test]
fn wrapped_messages_are_recognized() {
    let laden = br#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1},"key":"x"}"#;
    let Ok(Line::Laden(kind, Message::User(user))) = parse(laden) else { panic!("user") };
    assert_eq!((kind, user), (Some(HandleKind::NetSocket), r#"{"a":1}"#));
    let laden = br#"{"cmd":"NODE_HANDLE","type":"tty.Thing","msg":{"cmd":"NODE_CLUSTER"}}"#;
    assert!(matches!(parse(laden), Ok(Line::Laden(None, Message::Cluster(_)))));
    let laden = br#"{"cmd":"NODE_HANDLE","type":"net.Server"}"#;
    assert!(matches!(parse(laden), Ok(Line::Laden(_, Message::User("null")))));
}

#[test]
fn unreadable_program_messages_are_skipped() {
    for text in ["", "{", "nul", "{}{}", "[1,", "\"", "{\"cmd\":}", "\u{7f}", "{'a':1}", "1 2"] {
        assert_eq!(skip(text.as_bytes()), Some(Skipped::NotJson), "{text}");
    }
    assert_eq!(skip(b"\"\xff\""), Some(Skipped::NotUtf8));
    for text in [
        r#"{"cmd":"NODE_CLUSTER","act":}"#,
        r#"{"cmd":"NODE_CLUSTER""#,
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"\u{1}\"",
    ] {
        assert_eq!(parse(text.as_bytes()).err(), Some(DecodeError::BadMessage), "{text}");
    }
    let not_utf8 = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"\xff\"}";
    assert_eq!(parse(not_utf8).err(), Some(DecodeError::BadMessage));
}

#[test]
fn depth_is_a_crime_of_the_cluster_alone() {
    let depth = MAX_NESTING + 1;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (text, of_handle) in [
        (deep.clone(), false),
        (format!(r#"{{"a":{deep}}}"#), false),
        (format!(r#"{{"a":{deep},"cmd":7}}"#), false),
        (format!(r#"{{"a":{deep},"cmd":"NODE_DANCE"}}"#), false),
        (format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{deep}}}"#), true),
        (format!(r#"{{"msg":{deep},"type":"net.Socket","cmd":"NODE_HANDLE"}}"#), true),
    ] {
        let line = parse(text.as_bytes());
        let is_skipped = match line {
            Ok(Line::Laden(None, Message::Skipped(why))) if of_handle => {
                why == Skipped::NestedTooDeep
            }
            Ok(Line::Plain(Message::Skipped(why))) if !of_handle => why == Skipped::NestedTooDeep,
            _ => false,
        };
        assert!(is_skipped, "{text}: {line:?}");
    }
    let text = format!(r#"{{"data":{deep},"cmd":"NODE_CLUSTER"}}"#);
    assert_eq!(parse(text.as_bytes()).err(), Some(DecodeError::NestedTooDeep));
}

/// What JavaScript can write, and this must read.
#[test]
fn odd_messages_are_messages() {
    for text in [
        r#"{"\ud800":1}"#,
        r#"{"a":"\udfff"}"#,
        r#""\ud800""#,
        r#"{"cmd":"\ud800"}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"cmd":"x","cmd":"y"}"#,
        r#"{"a":-0,"b":1e999,"c":123456789012345678901234567890}"#,
        r#"{"cmd":null,"act":{}}"#,
        "-0",
        "1e999",
        "\"\"",
    ] {
        let line = parse(text.as_bytes());
        assert!(matches!(line, Ok(Line::Plain(Message::User(same))) if same == text), "{text}");
    }
    let last = br#"{"cmd":"x","cmd":"NODE_HANDLE_ACK"}"#;
    assert!(matches!(parse(last), Ok(Line::HandleAck)), "the last one counts");
    // No type is wrong in the cluster's messages: what it means is seen later.
    for text in [
        r#"{"cmd":"NODE_CLUSTER","seq":-1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"listening","port":"8080","address":"\ud800"}"#,
        r#"{"cmd":"NODE_CLUSTER","act":7,"ack":{},"accepted":1}"#,
    ] {
        cluster(text);
    }
}

#[test]
fn sockets_that_a_program_sent_are_asked_about_by_key() {
    let close = br#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"6::::80"}"#;
    let Ok(Line::Plain(Message::NotifyClose(key))) = parse(close) else { panic!("no close") };
    assert_eq!(key.get(), "\"6::::80\"");
    let count = br#"{"cmd":"NODE_SOCKET_GET_COUNT","key":"4:x:1"}"#;
    assert!(matches!(parse(count), Ok(Line::Plain(Message::GetCount(_)))));
    let unknown = |text: &str| matches!(parse(text.as_bytes()), Ok(Line::Plain(Message::Unknown)));
    let long = "k".repeat(MAX_SOCKET_KEY);
    assert!(unknown(&format!(r#"{{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"{long}"}}"#)));
    assert!(unknown(r#"{"cmd":"NODE_SOCKET_GET_COUNT"}"#));
}

#[test]
fn suicides() {
    assert!(is_suicide(r#"{"act":"suicide"}"#));
    for other in [r#"{"act":"suicides"}"#, r#"{"act":1}"#, "\"suicide\"", "[\"suicide\"]"] {
        assert!(!is_suicide(other), "{other}");
    }
}
