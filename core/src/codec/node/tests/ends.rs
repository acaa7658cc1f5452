//! Both ends of a channel, and the worker's alone.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// Our primary reads the messages that our worker sent, and the other way round.
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
        ListenKey {
            transport: Transport::Datagram,
            ..ListenKey::stream(Address::Ip("[::1]:53".parse().unwrap()))
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

/// The line with which the worker's end sends a message.
fn told(worker: &mut WorkerSide<u32>, msg: &FromWorker) -> String {
    let mut bytes = Vec::new();
    worker.encode(msg, &mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_worker_says_what_node_has_words_for() {
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    assert_eq!(told(&mut worker, &FromWorker::Ready), "\"ready\"\n");
    assert_eq!(told(&mut worker, &FromWorker::Load { open: 1 }), "");
    assert_eq!(told(&mut worker, &FromWorker::Pong { ack: seq(1) }), "");
    let key = Box::new(ListenKey::stream(Address::Any { port: 80 }));
    told(&mut worker, &FromWorker::Query { seq: seq(1), key, backlog: 0, data: vec![] });
    worker.feed(b"{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"k\",\"ack\":3}\n", None);
    assert!(worker.poll().unwrap().is_some());
    let suicide = told(&mut worker, &FromWorker::Suicide { seq: seq(2) });
    let (close, act) = suicide.split_once('\n').unwrap();
    assert!(close.contains(r#""act":"close","key":"k""#), "no more connections: {suicide}");
    assert_eq!(act, "{\"act\":\"suicide\"}\n");
    let confirmed = WorkerEvent::Message { msg: ToWorker::Ack { ack: seq(2) }, handle: None };
    assert_eq!(worker.poll().unwrap(), Some(confirmed), "as nobody else would");
}

#[test]
fn a_worker_is_told_which_handle_of_the_program_did_not_arrive() {
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    let answers: [&[u8]; 2] = [HANDLE_ACK, HANDLE_NACK];
    for answer in answers {
        // An answer to nothing means nothing.
        worker.feed(answer, None);
        assert_eq!(worker.poll().unwrap(), None);
    }
    for _ in 0..3 {
        assert!(worker.user_line("1", Some(HandleKind::NetSocket)).unwrap().ends_with(b"\n"));
    }
    worker.feed(HANDLE_ACK, None);
    assert_eq!(worker.poll().unwrap(), None);
    for _ in 0..2 {
        worker.feed(HANDLE_NACK, None);
        assert_eq!(worker.poll().unwrap(), Some(WorkerEvent::UserNotArrived));
    }
    worker.feed(HANDLE_NACK, None);
    assert_eq!(worker.poll().unwrap(), None, "all are answered");
}

#[test]
fn messages_with_a_handle_announce_it() {
    let laden = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":1}\n";
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    worker.feed(laden, None);
    assert_eq!(worker.poll().unwrap(), Some(WorkerEvent::Answer(HANDLE_NACK.to_vec())));
    assert_eq!(worker.poll().unwrap(), None, "it comes again, or it does not");
    worker.feed(b"1\n", Some(1));
    assert_eq!(worker.poll(), Err(DecodeError::UnexpectedHandles));
}

#[test]
fn queries_name_what_node_names() {
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    let mut ask = |n, key: ListenKey| {
        let key = Box::new(key);
        told(&mut worker, &FromWorker::Query { seq: seq(n), key, backlog: 0, data: vec![] })
    };
    let unix = ask(1, ListenKey::stream(Address::Unix("/run/a".into())));
    assert!(unix.contains(r#""port":-1,"addressType":-1"#), "{unix}");
    let fd = ask(2, ListenKey::stream(Address::Fd(5)));
    assert!(fd.contains(r#""port":-1,"addressType":null,"fd":5"#), "{fd}");
    let any = ListenKey::stream(Address::Any { port: 53 });
    let udp = ask(3, ListenKey { transport: Transport::Datagram, ..any });
    assert!(udp.contains(r#""address":"::","port":53,"addressType":"udp6""#), "{udp}");
}

#[test]
fn messages_without_an_answer_have_even_numbers() {
    let mut worker = WorkerSide::<u32>::new(1 << 20);
    let online = told(&mut worker, &FromWorker::Online);
    assert!(online.contains(r#""seq":0}"#), "{online}");
    let ack = FromWorker::Ack { ack: seq(1), accepted: true };
    let acks = [told(&mut worker, &ack), told(&mut worker, &ack)];
    assert!(acks[0].contains(r#""seq":2}"#) && acks[1].contains(r#""seq":4}"#), "{acks:?}");
}

#[test]
fn an_answer_without_a_key_grants_nothing() {
    for (errno, meant) in
        [("0", Errno::EINVAL), ("null", Errno::EINVAL), ("-98", Errno::EADDRINUSE)]
    {
        let mut worker = WorkerSide::<u32>::new(1 << 20);
        let key = Box::new(ListenKey::stream(Address::Any { port: 80 }));
        told(&mut worker, &FromWorker::Query { seq: seq(1), key, backlog: 0, data: vec![] });
        let answer = format!("{{\"cmd\":\"NODE_CLUSTER\",\"errno\":{errno},\"ack\":3}}\n");
        worker.feed(answer.as_bytes(), None);
        let msg = ToWorker::QueryReply { ack: seq(1), result: Err(meant) };
        assert_eq!(worker.poll().unwrap(), Some(WorkerEvent::Message { msg, handle: None }));
    }
}
