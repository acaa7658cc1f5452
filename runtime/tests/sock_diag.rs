//! Client connections, as the kernel lists them for this process, which has both ends of each.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roundel_runtime::unix::sock_diag::{Names, count};

/// Each test holds it: between fork and exec a child of one test has the descriptors of all.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many connections with these names the group of this process has.
fn open(names: &Names) -> Option<u32> {
    count(names, &[nix::unistd::getpgrp().as_raw()]).unwrap()[0]
}

/// Checks the count for a listener at `at` while clients connect to the addresses `to`.
fn counted(at: &str, to: &[&str]) {
    let Ok(listener) = TcpListener::bind(at) else { return println!("skipped: no {at} here") };
    let port = listener.local_addr().unwrap().port();
    let mut names = Names::default();
    names.add(&OwnedFd::from(listener.try_clone().unwrap()));
    assert_eq!(open(&names), Some(0), "a listener is no connection");
    let mut pairs = Vec::new();
    for ip in to {
        let addr = SocketAddr::new(ip.parse().unwrap(), port);
        let client = TcpStream::connect(addr).unwrap();
        pairs.push((client, listener.accept().unwrap()));
        assert_eq!(open(&names), Some(pairs.len() as u32), "{ip} at {at}");
    }
    let (client, (server, _)) = pairs.pop().unwrap();
    let (rest, all) = (Some(pairs.len() as u32), Some(pairs.len() as u32 + 1));
    // A connection that the other side has closed is open here until it is closed here too, and it
    // outlives its listener.
    drop(client);
    drop(listener);
    assert_eq!(open(&names), all);
    drop(server);
    assert_eq!(open(&names), rest);
}

#[test]
fn of_one_address() {
    let _turn = turn();
    counted("127.0.0.1:0", &["127.0.0.1"]);
    counted("[::1]:0", &["::1", "::1"]);
}

#[test]
fn of_any_address() {
    let _turn = turn();
    counted("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"]);
    counted("[::]:0", &["::1", "127.0.0.1"]);
}

#[test]
fn of_another_address_they_are_anothers() {
    let _turn = turn();
    let listeners = ["127.0.0.1:0", "127.0.0.1:0"].map(|at| TcpListener::bind(at).unwrap());
    let [one, other] = listeners;
    let mut names = Names::default();
    names.add(&OwnedFd::from(one));
    let client = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    let (server, _) = other.accept().unwrap();
    assert_eq!(open(&names), Some(0));
    drop((client, server));
}

#[test]
fn of_a_path() {
    let _turn = turn();
    let dir = std::env::temp_dir().join(format!("roundel-diag-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut names = Names::default();
    names.add(&OwnedFd::from(listener.try_clone().unwrap()));
    assert_eq!(open(&names), Some(0));
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    drop(listener);
    assert_eq!(open(&names), Some(1), "the path is gone, the connection is not");
    drop(client);
    assert_eq!(open(&names), Some(1));
    drop(server);
    assert_eq!(open(&names), Some(0));
}

#[test]
fn of_an_abstract_name() {
    let _turn = turn();
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr as Name;
    let at = |name: &str| {
        let name = format!("roundel-diag-{}-{name}", std::process::id());
        Name::from_abstract_name(name).unwrap()
    };
    let (listener, other) = (at("one"), at("other"));
    let [listener, elsewhere] = [&listener, &other].map(|at| UnixListener::bind_addr(at).unwrap());
    let mut names = Names::default();
    names.add(&OwnedFd::from(listener.try_clone().unwrap()));
    let client = UnixStream::connect_addr(&at("one")).unwrap();
    let stranger = UnixStream::connect_addr(&at("other")).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (held, _) = elsewhere.accept().unwrap();
    assert_eq!(open(&names), Some(1));
    drop((client, stranger, held));
    drop(server);
    assert_eq!(open(&names), Some(0));
}

/// Before and after it is reaped: an unknown count would be reported to the operator.
#[test]
fn of_a_process_that_has_ended_there_are_none() {
    let _turn = turn();
    use std::os::unix::process::CommandExt;
    let mut names = Names::default();
    names.add(&OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let mut cat = std::process::Command::new("cat");
    let mut child = cat.process_group(0).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id() as i32;
    assert_eq!(count(&names, &[pid]).unwrap(), [Some(0)]);
    drop(child.stdin.take());
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    while !stat().contains(") Z ") {
        // The process has nothing left to do but to end.
        assert_eq!(count(&names, &[pid]).unwrap(), [Some(0)]);
    }
    assert_eq!(count(&names, &[pid]).unwrap(), [Some(0)]);
    child.wait().unwrap();
    assert_eq!(count(&names, &[pid]).unwrap(), [Some(0)]);
}
