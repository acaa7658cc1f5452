//! What programs may ask to listen on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

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
    assert_even(&spread(&answers), &cluster.ready(2), 5);
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
        assert_even(&spread(&answers), &cluster.ready(2), 5);
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
        assert_even(&spread(&answers), &cluster.ready(2), 2);
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
    assert_even(&spread(&answers), &cluster.ready(2), 10);
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
    assert_even(&spread(&answers), &cluster.ready(2), 5);
    cluster.stop();
}

#[test]
fn exclusive_servers_are_their_workers_own() {
    let Some(setup) = listen(&[json!({"port": 0, "exclusive": true})]) else { return };
    // Such a server keeps its process when the channel closes.
    let cluster = setup.options(&["--drain-timeout", "1s"]).start_without_waiting();
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

/// Two workers with a UDP socket for each of these: its kind, and the arguments of `bind()`.
fn bind(binds: &[Value]) -> Option<Setup> {
    let setup = fixture("udp-bind.js")?;
    Some(binds.iter().fold(setup, |setup, bind| setup.arg(bind.to_string())))
}

/// Node binds to whatever port JavaScript makes of the value, and to any where there is none.
#[test]
fn udp_ports_are_what_javascript_makes_of_them() {
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let free = |_| UdpSocket::bind("127.0.0.1:0").unwrap();
    let held: Vec<UdpSocket> = (0..3).map(free).collect();
    let ports: Vec<u16> = held.iter().map(|it| it.local_addr().unwrap().port()).collect();
    drop(held);
    let [text, hex, option] = ports[..] else { panic!("three ports") };
    let busy = taken.local_addr().unwrap().port();
    let local = "127.0.0.1";
    let binds = [
        json!(["udp4", format!(" {text}"), local]),
        json!(["udp4", format!("0x{hex:x}"), local]),
        json!(["udp4", {"port": option.to_string(), "address": local}]),
        json!(["udp4"]),
        json!(["udp4", 0]),
        json!(["udp4", null]),
        json!(["udp4", "abc", local]),
        json!(["udp4", 65_536, local]),
        json!(["udp4", {"address": local}]),
        json!(["udp6"]),
        json!(["udp4", busy.to_string()]),
    ];
    let Some(setup) = bind(&binds) else { return };
    let cluster = setup.start();
    let reports = cluster.report(2 * binds.len());
    for (index, port) in [text, hex, option].into_iter().enumerate() {
        assert_eq!(agreed_port(&reports, index), u64::from(port));
    }
    for index in 3..9 {
        assert_ne!(agreed_port(&reports, index), 0);
        assert!(about(&reports, index).iter().all(|it| it["address"]["family"] == "IPv4"));
    }
    assert!(about(&reports, 9).iter().all(|it| it["address"]["family"] == "IPv6"), "{reports:?}");
    assert!(about(&reports, 10).iter().all(|it| it["code"] == "EADDRINUSE"), "{reports:?}");
    for index in [0, 3, 8] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = agreed_port(&reports, index) as u16;
        socket.send_to(b"who?", (Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.recv(&mut [0; 64]).unwrap();
    }
    assert_eq!(cluster.count("exited"), 0);
    cluster.stop();
}

/// As for multicast: others have the address already, and let others have it.
#[test]
fn udp_addresses_that_others_have_too() {
    let other = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::empty(),
        None,
    )
    .unwrap();
    nix::sys::socket::setsockopt(&other, nix::sys::socket::sockopt::ReuseAddr, &true).unwrap();
    let any = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0);
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&other), &any).unwrap();
    let port = UdpSocket::from(other.try_clone().unwrap()).local_addr().unwrap().port();
    let binds = [
        json!([{"type": "udp4", "reuseAddr": true}, port, "127.0.0.1"]),
        json!(["udp4", port, "127.0.0.1"]),
    ];
    let Some(setup) = bind(&binds) else { return };
    let cluster = setup.start();
    let reports = cluster.report(4);
    assert_eq!(agreed_port(&reports, 0), u64::from(port));
    // Node's primary has one socket for both wishes.
    if under() != Under::Node {
        assert!(about(&reports, 1).iter().all(|it| it["code"] == "EADDRINUSE"), "{reports:?}");
    }
    cluster.stop();
}

/// As from Node 22 on; before, the mode that a socket has otherwise was added.
#[test]
fn a_unix_socket_that_all_may_connect_to() {
    use std::os::unix::fs::PermissionsExt;
    let Some(setup) = fixture("listen.js") else { return };
    let path = |name: &str| setup.dir.join(name);
    let (open, read, plain) = (path("open"), path("read"), path("plain"));
    let setup = setup
        .arg(json!({"path": open, "readableAll": true, "writableAll": true}).to_string())
        .arg(json!({"path": read, "readableAll": true}).to_string())
        .arg(json!({ "path": plain }).to_string());
    let cluster = setup.start();
    cluster.report(6);
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    if under() != Under::Node {
        assert_eq!((mode(&open), mode(&read)), (0o666, 0o444));
    }
    assert_ne!(mode(&plain), 0o666);
    cluster.stop();
}

/// The name of an interface behind an address says where it is valid, and elsewhere nothing.
#[test]
fn an_address_with_a_zone() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: no IPv6 on this machine");
        return;
    }
    let zoned = |host: &str| json!({"port": 0, "host": host});
    let Some(setup) = listen(&[zoned("::1%lo"), zoned("fe80::1:2:3:4%lo")]) else { return };
    let cluster = setup.start();
    let reports = cluster.report(4);
    let port = agreed_port(&reports, 0) as u16;
    get(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "/").pid();
    assert!(about(&reports, 1).iter().all(|it| it["code"] == "EADDRNOTAVAIL"), "{reports:?}");
    cluster.stop();
    let Some(setup) = bind(&[json!(["udp6", 0, "::1%lo"])]) else { return };
    let cluster = setup.start();
    agreed_port(&cluster.report(2), 0);
    cluster.stop();
}

/// A path is taken from the primary's directory if it would be too long else.
#[test]
fn a_long_path_that_is_short_from_where_the_primary_is() {
    let Some(setup) = fixture("listen.js") else { return };
    let directory = setup.dir.join("d".repeat(100));
    std::fs::create_dir_all(&directory).unwrap();
    let path = |path: &str| json!({ "path": path }).to_string();
    let setup = setup.within(directory.clone()).arg(path("s"));
    // Node 18 and 20 cut what is too long.
    let beyond_all = format!("{}/none", "x".repeat(110));
    let cuts = under() == Under::Node;
    let setup = if cuts { setup } else { setup.arg(path(&beyond_all)) };
    let cluster = setup.arg(path("none/s")).start();
    let reports = cluster.report(if cuts { 4 } else { 6 });
    assert!(about(&reports, 0).iter().all(|it| it["address"] == "s"), "{reports:?}");
    if !cuts {
        assert!(about(&reports, 1).iter().all(|it| it["code"] == "EINVAL"), "{reports:?}");
    }
    // So says libuv where the directory is missing.
    let last = about(&reports, if cuts { 1 } else { 2 });
    assert!(last.iter().all(|it| it["code"] == "EACCES"), "{reports:?}");
    // A test has one working directory for all: the socket is reached by its descriptor's path.
    let there = std::fs::File::open(&directory).unwrap();
    let short = format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&there));
    std::os::unix::net::UnixStream::connect(short).unwrap();
    cluster.stop();
}

/// However the operator and the program write it.
#[test]
fn a_relative_path_of_the_operator_is_the_programs() {
    if beyond_node("it has no options") {
        return;
    }
    for (bind, asked) in [("unix:./s", "s"), ("unix:s", "../here/s")] {
        let Some(setup) = fixture("listen.js") else { return };
        let directory = setup.dir.join("here");
        std::fs::create_dir_all(&directory).unwrap();
        let setup = setup.within(directory.clone()).options(&["--bind", bind]);
        let cluster = setup.arg(json!({ "path": asked }).to_string()).start();
        assert!(cluster.report(2).iter().all(|it| it["code"].is_null()));
        get_unix(&directory.join("s"), "/").pid();
        assert_eq!(cluster.count("bound"), 1);
        cluster.stop();
    }
}

/// A name without a file (unix(7)). Node 18 and 20 pad such names with zero bytes, and so would
/// Node's primary there.
#[test]
fn an_abstract_unix_socket() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let name = format!("roundel-test-{}", std::process::id());
    let Some(setup) = listen(&[json!({"path": format!("\0{name}")})]) else { return };
    let cluster = setup.start();
    cluster.report(2);
    if under() == Under::Node {
        return;
    }
    assert_eq!(cluster.bound(0), format!("unix:@{name}"));
    let ask = |_| {
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let client = UnixStream::connect_addr(&at).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write_request(&client, "/").unwrap();
        receive(client)
    };
    let answers: Vec<Answer> = (0..10).map(ask).collect();
    assert_even(&spread(&answers), &cluster.ready(2), 5);
    cluster.stop();
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
