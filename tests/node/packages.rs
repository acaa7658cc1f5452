//! Real packages as unmodified workers, on an old and on the newest Node.

use std::io::{Read, Write};

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

/// Two workers that run an application, on each of the versions.
fn on_each_version(package: &str, check: impl Fn(Cluster)) {
    for version in versions() {
        let Some(version) = version else { return };
        let Some(modules) = cached("packages/node_modules") else { return };
        let Some(setup) = fixture(&format!("packages/{package}.js")) else { return };
        let setup = setup.on(version).variable("NODE_PATH", modules);
        check(setup.start());
    }
}

fn serves(package: &str) {
    on_each_version(package, |cluster| {
        let (pids, addr) = (cluster.ready(2), cluster.addr(0));
        let answers: Vec<Answer> = (0..20).map(|_| get(addr, "/")).collect();
        assert_even(&spread(&answers), &pids, 10);
        assert!(answers.iter().all(|answer| answer.more().starts_with(package)), "{answers:?}");
        // The death of one costs nobody anything.
        signal(pids[0], Signal::SIGKILL);
        cluster.exit_of(pids[0]);
        cluster.ready(2);
        get(addr, "/").pid();
        cluster.stop();
    });
}

#[test]
fn express() {
    serves("express");
}

#[test]
fn fastify() {
    serves("fastify");
}

#[test]
fn koa() {
    serves("koa");
}

/// A connection that is upgraded stays with its worker (RFC 6455).
#[test]
fn ws() {
    on_each_version("ws", |cluster| {
        let (pids, addr) = (cluster.ready(2), cluster.addr(0));
        let mut sockets = Vec::new();
        for _ in 0..10 {
            let mut stream = connect(addr).unwrap();
            let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                answer.push(byte[0]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            sockets.push(stream);
        }
        let mut counts = std::collections::BTreeMap::new();
        for stream in &mut sockets {
            let first = say(stream);
            assert_eq!(say(stream), first, "the worker changed");
            *counts.entry(first).or_default() += 1;
        }
        assert_even(&counts, &pids, 5);
        drop(sockets);
        cluster.stop();
    });
}

/// Sends a short text and reads the answer; the pid in it.
fn say(stream: &mut (impl Read + Write)) -> i32 {
    // A text frame of 5 bytes, masked with zeros.
    stream.write_all(b"\x81\x85\0\0\0\0hello").unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81);
    let mut text = vec![0; head[1].into()];
    stream.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (pid, echo) = text.split_once(' ').unwrap();
    assert_eq!(echo, "hello");
    pid.parse().unwrap()
}

/// A package that looks for a free port by listening on it, on one address after the other.
fn finds_a_port(package: &str) {
    for version in versions() {
        let Some(version) = version else { return };
        let Some(modules) = cached("packages/node_modules") else { return };
        let Some(setup) = fixture("packages/free-port.js") else { return };
        let setup = setup.workers(1).on(version).variable("NODE_PATH", modules);
        let from = unused_address().port().min(65_000);
        let cluster = setup.arg(package).arg(from.to_string()).start_without_waiting();
        let found = |nth: usize| {
            let report = cluster.report(nth).remove(nth - 1);
            assert!(report["code"].is_null(), "{report}");
            let addr = (std::net::Ipv4Addr::LOCALHOST, report["port"].as_u64().unwrap() as u16);
            let pid = get(addr.into(), "/").pid();
            assert_eq!(report["pid"], pid);
            pid
        };
        let first = found(1);
        assert_eq!(cluster.count("exited"), 0);
        // Its replacement looks again, and finds what it finds.
        signal(first, Signal::SIGKILL);
        cluster.exit_of(first);
        found(2);
        cluster.stop();
    }
}

#[test]
fn get_port() {
    finds_a_port("get-port");
}

#[test]
fn detect_port() {
    finds_a_port("detect-port");
}

#[test]
fn portfinder() {
    finds_a_port("portfinder");
}
