use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;

fn ip(text: &str) -> Address {
    Address::Ip(text.parse().unwrap())
}

/// Which of two listeners on one port receives what the other one would, by ipv6(7) and ip(7).
#[test]
fn a_wider_address_covers_a_narrower_one() {
    let any = Address::Any { port: 80 };
    let (any4, any6) = (ip("0.0.0.0:80"), ip("[::]:80"));
    let (one4, one6) = (ip("127.0.0.1:80"), ip("[::1]:80"));
    let other = ip("10.0.0.1:80");
    // Which address covers which others, if `[::]` takes IPv4 too, and if none does.
    let all = [&any, &any4, &any6, &one4, &one6, &other];
    let wide: [(&Address, &[&Address]); 6] = [
        (&any, &[&any4, &any6, &one4, &one6, &other]),
        (&any4, &[&one4, &other]),
        (&any6, &[&any, &any4, &one4, &one6, &other]),
        (&one4, &[]),
        (&one6, &[]),
        (&other, &[]),
    ];
    let v6_only: [(&Address, &[&Address]); 6] = [
        (&any, &[&any6, &one6]),
        (&any4, &[&one4, &other]),
        (&any6, &[&any, &one6]),
        (&one4, &[]),
        (&one6, &[]),
        (&other, &[]),
    ];
    for (is_v6_only, table) in [(false, wide), (true, v6_only)] {
        for (own, covered) in table {
            for ask in all {
                let covers = ask == own || covered.contains(&ask);
                let found = own.covers(is_v6_only, ask, is_v6_only);
                assert_eq!(found, covers, "{own}, {ask}, {is_v6_only}");
            }
        }
    }
}

#[test]
fn another_port_or_kind_is_not_covered() {
    let unix = |path: &str| Address::Unix(path.into());
    let apart = [
        Address::Any { port: 80 },
        Address::Any { port: 81 },
        ip("0.0.0.0:82"),
        ip("127.0.0.1:83"),
        ip("[::]:84"),
        unix("/a"),
        unix("/b"),
        Address::Fd(3),
        Address::Fd(4),
        Address::Nth(0),
        Address::Nth(1),
    ];
    for (at, own) in apart.iter().enumerate() {
        for (other, ask) in apart.iter().enumerate() {
            assert_eq!(own.covers(false, ask, false), at == other, "{own}, {ask}");
            assert_eq!(own.collides(false, ask, false), at == other, "{own}, {ask}");
        }
    }
}

#[test]
fn they_collide_whoever_was_first() {
    let (any6, one4) = (ip("[::]:80"), ip("127.0.0.1:80"));
    for (any6_only, collides) in [(false, true), (true, false)] {
        assert_eq!(any6.collides(any6_only, &one4, false), collides);
        assert_eq!(one4.collides(false, &any6, any6_only), collides);
    }
    assert!(!ip("127.0.0.1:80").collides(false, &ip("127.0.0.2:80"), false));
}

#[test]
fn ports_and_hosts() {
    let name = SockName::Ip("127.0.0.1:80".parse().unwrap());
    assert_eq!((name.port(), name.ip()), (Some(80), Some("127.0.0.1".parse().unwrap())));
    let name = SockName::Unix("/a".into());
    assert_eq!((name.port(), name.ip()), (None, None));
    assert_eq!(Address::Any { port: 80 }.port(), Some(80));
    assert_eq!(Address::Fd(80).port(), None);
}

fn listener(raw: u64) -> ListenerId {
    ListenerId::from_raw(raw).unwrap()
}

fn handoff(first: u64, of: u64, count: u32) -> ToWorker {
    let first_seq = Seq::from_raw(first).unwrap();
    ToWorker::NewConn { first_seq, listener: listener(of), count }
}

#[test]
fn handoffs_in_a_row_travel_together() {
    let cases = [
        (handoff(5, 1, 1), handoff(6, 1, 1), Some(2)),
        (handoff(5, 1, 2), handoff(7, 1, 3), Some(5)),
        (handoff(5, 1, 63), handoff(68, 1, 1), Some(64)),
        // More than fit, a gap, a number again, another listener, another message.
        (handoff(5, 1, 63), handoff(68, 1, 2), None),
        (handoff(5, 1, 64), handoff(69, 1, 1), None),
        (handoff(5, 1, 2), handoff(8, 1, 1), None),
        (handoff(5, 1, 2), handoff(6, 1, 1), None),
        (handoff(5, 1, 1), handoff(6, 2, 1), None),
        (handoff(5, 1, 1), ToWorker::Disconnect, None),
        (ToWorker::Disconnect, handoff(6, 1, 1), None),
    ];
    for (first, next, merged) in cases {
        let mut both = first.clone();
        assert_eq!(both.merge(&next), merged.is_some(), "{first:?}, {next:?}");
        assert_eq!(both, merged.map_or(first, |count| handoff(5, 1, count)));
    }
}

#[test]
fn handles_travel_with_connections_and_listeners_alone() {
    let (ack, seq) = (Seq::FIRST, Seq::FIRST);
    let granted = |shared| {
        let sockname = SockName::Unix("/a".into());
        Ok(Box::new(Granted { listener: listener(1), sockname, shared, data: Vec::new() }))
    };
    for (msg, handles) in [
        (handoff(5, 1, 3), 3),
        (ToWorker::QueryReply { ack, result: granted(true) }, 1),
        (ToWorker::QueryReply { ack, result: granted(false) }, 0),
        (ToWorker::QueryReply { ack, result: Err(Errno::EINVAL) }, 0),
        (ToWorker::PassListener { listener: listener(1) }, 1),
        (ToWorker::Ack { ack }, 0),
        (ToWorker::Disconnect, 0),
        (ToWorker::Drain { deadline_ms: 1 }, 0),
        (ToWorker::Ping { seq }, 0),
    ] {
        assert_eq!(msg.handles(), handles, "{msg:?}");
    }
}

/// The error for a value in a text format says what is wrong with it.
#[test]
fn text_and_bytes_are_told_apart_from_other_things() {
    let error = |result: Result<Address, serde_json::Error>| result.unwrap_err().to_string();
    let unix = error(serde_json::from_str(r#"{"Unix":1}"#));
    assert!(unix.contains("expected a string"), "{unix}");
    let granted = r#"{"listener":1,"sockname":{"Unix":"/a"},"shared":false,"data":7}"#;
    let data = serde_json::from_str::<Granted>(granted).unwrap_err().to_string();
    assert!(data.contains("expected bytes"), "{data}");
    let granted = granted.replace("7", "[1,2]");
    assert_eq!(serde_json::from_str::<Granted>(&granted).unwrap().data, [1, 2]);
}
