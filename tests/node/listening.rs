//! What programs may ask to listen on.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use serde_json::{Value, json};

use crate::client::*;
use crate::harness::*;

/// Two workers with a server for each of these arguments of `listen()`.
fn listen(options: &[Value]) -> Option<Setup> {
    let setup = fixture("listen.js")?;
    Some(options.iter().fold(setup, |setup, options| setup.arg(options.to_string())))
}

/// The reports about the nth server.
fn about(reports: &[Value], index: usize) -> Vec<&Value> {
    reports.iter().filter(|report| report["index"] == index).collect()
}

/// The one port that all workers were told for the nth server.
fn agreed_port(reports: &[Value], index: usize) -> u64 {
    let mut ports = about(reports, index).into_iter().map(|it| it["address"]["port"].as_u64());
    let first = ports.next().unwrap();
    assert!(ports.all(|port| port == first), "{reports:?}");
    first.unwrap()
}

#[test]
fn port_zero_is_one_port_for_all_workers() {
    let Some(setup) = listen(&[json!({"port": 0, "host": "127.0.0.1", "backlog": 5})]) else {
        return;
    };
    let cluster = setup.start();
    let reports = cluster.report(2);
    assert_eq!(agreed_port(&reports, 0), u64::from(cluster.addr(0).port()));
    assert_eq!(reports[0]["address"]["family"], "IPv4");
    let answers: Vec<Answer> = (0..10).map(|_| get(cluster.addr(0), "/")).collect();
    assert_eq!(spread(&answers), evenly(&cluster.ready(2), 5));
    assert_eq!(cluster.count("bound"), 1);
    cluster.stop();
}

#[test]
fn two_servers_on_port_zero_have_a_port_each() {
    let Some(setup) = listen(&[json!({"port": 0}), json!({"port": 0})]) else { return };
    let cluster = setup.start();
    let reports = cluster.report(4);
    let ports = [agreed_port(&reports, 0), agreed_port(&reports, 1)];
    assert_ne!(ports[0], ports[1]);
    for (index, port) in ports.iter().enumerate() {
        let addr = SocketAddr::from(([127, 0, 0, 1], *port as u16));
        let answers: Vec<Answer> = (0..10).map(|_| get(addr, "/")).collect();
        assert_eq!(spread(&answers), evenly(&cluster.ready(2), 5));
        assert!(answers.iter().all(|answer| answer.more() == index.to_string()));
    }
    cluster.stop();
}

#[test]
fn ten_listeners() {
    let Some(setup) = listen(&vec![json!({"port": 0, "host": "127.0.0.1"}); 10]) else { return };
    let cluster = setup.start();
    let reports = cluster.report(20);
    for index in 0..10 {
        let addr = SocketAddr::from(([127, 0, 0, 1], agreed_port(&reports, index) as u16));
        let answers: Vec<Answer> = (0..4).map(|_| get(addr, "/")).collect();
        assert_eq!(spread(&answers), evenly(&cluster.ready(2), 2));
        assert!(answers.iter().all(|answer| answer.more() == index.to_string()));
    }
    cluster.stop();
}

#[test]
fn a_second_server_on_the_same_port_is_refused() {
    let addr = unused_address();
    let options = json!({"port": addr.port(), "host": addr.ip().to_string()});
    let Some(setup) = listen(&[options.clone(), options]) else { return };
    let cluster = setup.start();
    let reports = cluster.report(4);
    assert!(about(&reports, 0).iter().all(|report| report["address"]["port"] == addr.port()));
    assert!(about(&reports, 1).iter().all(|report| report["code"] == "EADDRINUSE"), "{reports:?}");
    assert_eq!(get(addr, "/").more(), "0");
    cluster.stop();
}

#[test]
fn a_port_that_others_hold_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = [json!({"port": port, "host": "127.0.0.1"}), json!({"port": 0})];
    let Some(setup) = listen(&options) else { return };
    let cluster = setup.start();
    let reports = cluster.report(4);
    assert!(about(&reports, 0).iter().all(|report| report["code"] == "EADDRINUSE"), "{reports:?}");
    get(reachable(&format!("127.0.0.1:{}", agreed_port(&reports, 1))), "/").pid();
    cluster.stop();
}

#[test]
fn an_inherited_socket_by_its_number() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let Some(setup) = listen(&[json!({"fd": INHERITED})]) else { return };
    let cluster = setup.inherit(listener).start();
    let answers: Vec<Answer> = (0..20).map(|_| get(addr, "/")).collect();
    assert_eq!(spread(&answers), evenly(&cluster.ready(2), 10));
    cluster.stop();
}

/// What the primary has open is not the workers'.
#[test]
fn no_other_number_names_a_socket() {
    if beyond_node("its workers reach every descriptor of the primary") {
        return;
    }
    let numbers = (3..24).filter(|number| *number != INHERITED);
    let mut options: Vec<Value> = numbers.map(|number| json!({"fd": number})).collect();
    let asked = options.len();
    options.push(json!({"port": 0}));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(setup) = listen(&options) else { return };
    let cluster = setup.inherit(listener).start();
    let reports = cluster.report(2 * options.len());
    for index in 0..asked {
        assert!(about(&reports, index).iter().all(|it| it["code"] == "EBADF"), "{reports:?}");
    }
    get(cluster.addr(0), "/").pid();
    cluster.stop();
}

#[test]
fn ipv6_only() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: no IPv6 on this machine");
        return;
    }
    let Some(setup) = listen(&[json!({"port": 0, "host": "::", "ipv6Only": true})]) else { return };
    let cluster = setup.start();
    let addr = cluster.addr(0);
    assert_eq!(get(addr, "/"), Answer::Refused);
    let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port()));
    let answers: Vec<Answer> = (0..10).map(|_| get(addr, "/")).collect();
    assert_eq!(spread(&answers), evenly(&cluster.ready(2), 5));
    cluster.stop();
}

#[test]
fn exclusive_servers_are_their_workers_own() {
    let Some(setup) = listen(&[json!({"port": 0, "exclusive": true})]) else { return };
    let cluster = setup.start_without_waiting();
    let reports = cluster.report(2);
    for report in &reports {
        let port = report["address"]["port"].as_u64().unwrap();
        let answer = get(SocketAddr::from(([127, 0, 0, 1], port as u16)), "/");
        assert_eq!(i64::from(answer.pid()), report["pid"]);
    }
    assert_ne!(reports[0]["pid"], reports[1]["pid"]);
    assert_eq!((cluster.count("bound"), cluster.count("exited")), (0, 0));
    cluster.stop();
}

fn datagrams(kind: &str, from: &str) {
    let Some(setup) = fixture("udp.js") else { return };
    let cluster = setup.arg(kind).start();
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(cluster.addr(0)).unwrap();
    let pids = cluster.ready(2);
    for _ in 0..20 {
        socket.send(b"who?").unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        let pid = std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap();
        assert!(pids.contains(&pid));
    }
    cluster.stop();
}

#[test]
fn udp_is_answered() {
    datagrams("udp4", "127.0.0.1:0");
}

#[test]
fn udp_over_ipv6_is_answered() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 on this machine");
        return;
    }
    datagrams("udp6", "[::1]:0");
}

/// Workers accept for themselves; who gets what is the kernel's choice.
fn shared(setup: Setup) {
    let cluster = setup.workers(3).start();
    let (pids, addr) = (cluster.ready(3), cluster.addr(0));
    for _ in 0..100 {
        assert!(pids.contains(&get(addr, "/").pid()));
    }
    assert_eq!(cluster.count("handed_off"), 0);
    cluster.stop();
}

#[test]
fn shared_by_the_option() {
    if beyond_node("it has no options") {
        return;
    }
    let Some(setup) = fixture("http.js") else { return };
    shared(setup.options(&["--policy", "shared"]));
}

#[test]
fn shared_by_nodes_variable() {
    let Some(setup) = fixture("http.js") else { return };
    shared(setup.variable("NODE_CLUSTER_SCHED_POLICY", "none"));
}
