//! Which listener answers a query.

use super::*;

/// A primary with this one listener of the operator, and a worker for each of the asks.
fn operator(key: ListenKey, bound: SockName, workers: u32) -> Hand {
    Hand::bound_at(Config::builder().workers(workers).listeners(vec![key]), &[bound])
}

/// One after the other, each by a worker of its own.
fn asks<const N: usize>(hand: &mut Hand, keys: [ListenKey; N]) -> Vec<Option<Result<u64, Errno>>> {
    let answers = (1..).zip(&keys).map(|(nth, key)| hand.ask(nth, key));
    answers.map(|answer| answer.map(|it| it.map(ListenerId::get))).collect()
}

const THE_OPERATORS: Option<Result<u64, Errno>> = Some(Ok(1));
const IN_USE: Option<Result<u64, Errno>> = Some(Err(Errno::EADDRINUSE));

#[test]
fn a_port_that_the_kernel_chose_is_known() {
    let any = stream(Address::Any { port: 0 });
    let mut hand = operator(any.clone(), name("[::]:4711"), 5);
    let keys = [
        any.clone(),
        stream(Address::Any { port: 4711 }),
        stream(ip("127.0.0.1:4711")),
        // Of its own.
        stream(ip("127.0.0.1:0")),
        // Each further server of a worker there also gets one of its own.
        ListenKey { index: 1, ..any },
    ];
    assert_eq!(asks(&mut hand, keys), [THE_OPERATORS, THE_OPERATORS, THE_OPERATORS, None, None]);

    let mut hand = operator(stream(ip("127.0.0.1:0")), name("127.0.0.1:4711"), 4);
    let keys = [
        stream(ip("127.0.0.1:0")),
        stream(ip("127.0.0.1:4711")),
        stream(ip("127.0.0.2:4711")),
        stream(Address::Any { port: 4711 }),
    ];
    assert_eq!(asks(&mut hand, keys), [THE_OPERATORS, THE_OPERATORS, None, IN_USE]);
}

#[test]
fn an_inherited_listener_goes_by_its_address_too() {
    let mut hand = operator(stream(Address::Fd(3)), name("127.0.0.1:80"), 3);
    let keys = [stream(Address::Fd(3)), stream(ip("127.0.0.1:80")), stream(ip("127.0.0.1:81"))];
    assert_eq!(asks(&mut hand, keys), [THE_OPERATORS, THE_OPERATORS, None]);

    let mut hand = operator(stream(Address::Fd(3)), SockName::Unix("/run/a".into()), 2);
    let keys = [Address::Unix("/run/a".into()), Address::Unix("/run/b".into())].map(stream);
    assert_eq!(asks(&mut hand, keys), [THE_OPERATORS, None]);
}

#[test]
fn another_transport_is_another_listener() {
    let mut hand = operator(stream(ip("127.0.0.1:53")), name("127.0.0.1:53"), 1);
    let datagram = crate::Transport::Datagram;
    let key = ListenKey { transport: datagram, ..stream(ip("127.0.0.1:53")) };
    assert_eq!(asks(&mut hand, [key]), [None]);
}

#[test]
fn operators_listeners_go_by_their_numbers() {
    let mut hand = operator(stream(ip("127.0.0.1:80")), name("127.0.0.1:80"), 2);
    let keys = [Address::Nth(0), Address::Nth(1)].map(stream);
    assert_eq!(asks(&mut hand, keys), [THE_OPERATORS, Some(Err(Errno::EINVAL))]);
}

#[test]
fn asks_have_their_limits() {
    let key = |port| stream(Address::Any { port });
    let mut hand = Hand::bound_at(Config::builder().max_frame(1024), &[]);
    assert_eq!(hand.ask_with(1, &key(1), vec![0; 512]), None);
    assert_eq!(hand.ask_with(1, &key(2), vec![0; 513]), Some(Err(Errno::EMSGSIZE)));

    // Queries without an answer yet count.
    let mut hand = Hand::bound_at(Config::builder().max_listeners_per_worker(2), &[]);
    assert_eq!(hand.ask(1, &key(1)), None);
    hand.bound(1, &name("[::]:1"));
    assert_eq!(hand.ask(1, &key(2)), None);
    assert_eq!(hand.ask(1, &key(3)), Some(Err(Errno::EMFILE)));
    hand.tell(Input::Bound { listener: listener(2), result: Err(Errno::EADDRINUSE) });
    assert_eq!(hand.ask(1, &key(3)), None);

    let mut hand = Hand::bound_at(Config::builder().workers(2).max_listeners(1), &[]);
    assert_eq!(hand.ask(1, &key(1)), None);
    assert_eq!(hand.ask(2, &key(2)), Some(Err(Errno::EMFILE)));
    assert_eq!(hand.ask(2, &key(1)), None, "that one is there");
    let granted = hand.bound(1, &name("[::]:1"));
    let answered = |output: &&Output| {
        matches!(output, Output::Send { msg: ToWorker::QueryReply { result: Ok(_), .. }, .. })
    };
    assert_eq!(granted.iter().filter(answered).count(), 2);
}

#[test]
fn a_leaving_worker_gets_no_listener() {
    let key = stream(Address::Any { port: 81 });
    let cancelled = Some(Err(Errno::ECANCELED));
    let mut hand = Hand::serving(Config::builder());
    hand.says(1, FromWorker::Suicide { seq: Seq::FIRST });
    assert_eq!(hand.ask(1, &key), cancelled);
}

#[test]
fn a_shutdown_binds_nothing_and_lets_others_help() {
    let key = stream(Address::Any { port: 80 });
    let other = stream(Address::Any { port: 81 });
    for (policy, answer) in [
        (crate::Policy::RoundRobin, Some(Ok(listener(1)))),
        (crate::Policy::Shared, Some(Err(Errno::ECANCELED))),
    ] {
        let config = Config::builder().workers(2).policy(policy).listeners(vec![key.clone()]);
        let mut hand = Hand::bound_at(config, &[name("[::]:80")]);
        hand.listens(1, &key);
        assert_eq!(hand.core.is_shared(listener(1)), policy == crate::Policy::Shared);
        assert!(!hand.core.is_shared(listener(2)), "there is none");
        hand.tell(Input::Command(Command::Stop));
        assert_eq!(hand.ask(2, &other), Some(Err(Errno::ECANCELED)));
        assert_eq!(hand.ask(2, &key), answer, "{policy:?}");
    }
}

/// A launcher's pipe for what it starts (its number is 100) does not count as serving, but a server
/// does.
#[test]
fn a_socket_of_the_worker_itself_does_not_make_it_ready() {
    let private = ["/tmp/tsx-0/100.pipe", "/var/tmp/a-100", "/home/tmp/x/100", "/tmp/a.100/b"];
    let public =
        ["/tmp/a-1001.sock", "/run/a-100.sock", "/100/tmp/a", "/tmp/a-0100", "100", "/tmp/a"];
    let listens = |path: &str, config: ConfigBuilder| {
        let mut hand = Hand::bound_at(config, &[]);
        let key = stream(Address::Unix(path.into()));
        assert_eq!(hand.ask(1, &key), None);
        hand.bound(1, &SockName::Unix(path.into()));
        let listening = FromWorker::Listening { listener: listener(1) };
        let ready = events(&hand.says(1, listening)).contains(&"ready");
        (hand, ready)
    };
    for path in public {
        assert!(listens(path, Config::builder()).1, "{path}");
    }
    for path in private {
        let (mut hand, ready) = listens(path, Config::builder());
        assert!(!ready, "{path}");
        // The worker is not killed for that, and the operator is told what it lacks.
        let said = hand.later(Duration::from_secs(31));
        assert_eq!(events(&said), ["not_listening"], "{path}");
        assert!(!said.iter().any(|output| matches!(output, Output::Kill { .. })), "{path}");
        let web = stream(Address::Any { port: 80 });
        assert_eq!(hand.ask(1, &web), None);
        hand.bound(2, &name("[::]:80"));
        let listening = FromWorker::Listening { listener: listener(2) };
        assert!(events(&hand.says(1, listening)).contains(&"ready"));
        // A program that says it is ready does not thereby serve.
        let (mut hand, _) = listens(path, Config::builder().wait_ready(true));
        assert!(!events(&hand.says(1, FromWorker::Ready)).contains(&"ready"));
    }
    // The operator's own path is for clients.
    let path = "/tmp/a-100";
    let key = stream(Address::Unix(path.into()));
    let listeners = Config::builder().listeners(vec![key.clone()]);
    let mut hand = Hand::bound_at(listeners, &[SockName::Unix(path.into())]);
    let granted = hand.ask(1, &key).unwrap().unwrap();
    let said = hand.says(1, FromWorker::Listening { listener: granted });
    assert!(events(&said).contains(&"ready"));
}
