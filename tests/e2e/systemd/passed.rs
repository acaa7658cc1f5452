//! Sockets that the service manager passes to the primary.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use super::manager::{passing, start};
use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "the listeners are given":
    a_socket_is_taken_by_its_name,
    case_15_one_name_may_stand_for_several_sockets,
    what_was_not_passed_is_named,
}

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener.into(), addr)
}

fn a_socket_is_taken_by_its_name(on: Pair) {
    let ((web, web_at), (admin, admin_at)) = (listener(), listener());
    // The other one stays with the test, where nobody accepts.
    let sockets = vec![("web", web), ("admin", admin)];
    let cluster = start(on, None, sockets, &["sd:admin"], &[]);
    assert!(matches!(get(admin_at, "/"), Outcome::Ok(_)));
    let bound = cluster.events_named("bound");
    assert_eq!(bound.len(), 1);
    assert_eq!(bound[0]["address"], admin_at.to_string());
    // The service manager's copies are closed in this test: the port is free when the primary has
    // ended, so no worker had one.
    let pids = cluster.ready(2);
    cluster.stop();
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
    assert_eq!(get(admin_at, "/"), Outcome::Refused);
    assert_eq!(get(web_at, "/"), Outcome::Refused);
}

fn case_15_one_name_may_stand_for_several_sockets(on: Pair) {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let cluster = start(on, None, vec![("web", one), ("web", two)], &["sd:web"], &[]);
    cluster.ready(2);
    for addr in [one_at, two_at] {
        assert!(matches!(get(addr, "/"), Outcome::Ok(_)));
    }
    let dir = temp_dir();
    let unix = UnixListener::bind(dir.join("socket")).unwrap();
    let both = vec![("app.socket", listener().0), ("app.socket", unix.into())];
    let other = start(on, None, both, &["sd:app.socket"], &[]);
    other.ready(2);
    other.stop();
    // It is the service manager's: the path stays.
    assert!(dir.join("socket").exists());
    std::fs::remove_dir_all(dir).unwrap();
    cluster.stop();
}

fn what_was_not_passed_is_named(on: Pair) {
    let refused = |mut command: Command, name: &str, dir: &std::path::Path| {
        let bind = format!("sd:{name}");
        command.args(["demo", "--control", "off", "-b", &bind]);
        let code = command.stderr(Stdio::piped()).output().unwrap();
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        let said = format!("{log}{}", String::from_utf8_lossy(&code.stderr));
        assert_eq!(code.status.code(), Some(4), "{said}");
        let start = format!("{}: --bind sd:{name}: ", on.binary().file_name().unwrap().display());
        assert!(said.starts_with(&start) && said.lines().count() == 1, "{said}");
        said
    };
    let dir = temp_dir();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (web, web_at) = listener();
    for (name, sockets, cause) in [
        ("admin", vec![("web", listener().0)], "those passed are \"web\""),
        ("dns", vec![("dns", udp.into())], "descriptor 3 is a datagram socket"),
        ("null", vec![("null", std::fs::File::open("/dev/null").unwrap().into())], "not a socket"),
        ("a", vec![("a", std::net::TcpStream::connect(web_at).unwrap().into())], "not listen"),
    ] {
        let _ = std::fs::remove_file(dir.join("log"));
        let mut command = passing(&dir, sockets);
        command.arg(on.binary());
        let said = refused(command, name, &dir);
        assert!(said.contains(cause), "{said}");
    }
    let _ = std::fs::remove_file(dir.join("log"));
    let mut command = Command::new(on.binary());
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let said = refused(command, "web", &dir);
    assert!(said.contains("LISTEN_PID is 1, this is "), "{said}");
    let mut command = Command::new(on.binary());
    command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS");
    let said = refused(command, "web", &dir);
    assert!(said.contains("no sockets were passed"), "{said}");
    // What is right or wrong with them is known only when the primary starts.
    let mut command = Command::new(on.binary());
    command.args(["check", "-b", "sd:web"]);
    assert!(command.output().unwrap().status.success());
    drop(web);
    std::fs::remove_dir_all(dir).unwrap();
}
