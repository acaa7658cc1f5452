//! One command line for both binaries.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::pair::Adapter;

fn say(adapter: Adapter, args: &[&str]) -> (String, String) {
    // The width is what the words are wrapped at, and the names differ in length.
    let mut command = Command::new(adapter.binary());
    let output = command.args(args).env("COLUMNS", "1000").output().unwrap();
    let words = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap().replace("roundel-smol", "roundel");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    (words(output.stdout), words(output.stderr))
}

#[test]
fn both_binaries_say_the_same() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["demo", "--help"],
        &["check", "--help"],
        &["check"],
        &["check", "--config", "/nonexistent.toml"],
        &["status", "--help"],
        &["top", "--help"],
        &["stop", "--help"],
        &["demo", "--window", "many"],
        &["demo", "--codec", "node"],
        &["run", "-b", "[fe80::1%no-such]:80", "true"],
        &["run"],
        &["status", "--control", "/nonexistent/socket"],
    ] {
        let said = say(Adapter::Mio, args);
        assert_ne!(said, Default::default());
        assert_eq!(said, say(Adapter::Smol, args), "{args:?}");
    }
}

/// What is wrong with the addresses, in one line that says what to write, and how it ends.
#[test]
fn addresses_that_cannot_be_say_what_to_write() {
    for adapter in [Adapter::Mio, Adapter::Smol] {
        let end = |binds: &[&str]| {
            let mut command = Command::new(adapter.binary());
            command.arg("run").args(["--control", "/nonexistent/never-made"]);
            command.args(binds.iter().flat_map(|bind| ["-b", bind])).arg("true");
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        for (binds, code, words) in [
            (
                &["0.0.0.0:4711", "[::]:4711"][..],
                2,
                "--bind 0.0.0.0:4711: --bind [::]:4711 already includes it; give --bind [::]:4711 alone",
            ),
            (
                &["0.0.0.0:4711", "127.0.0.1:4711"],
                2,
                "--bind 127.0.0.1:4711: --bind 0.0.0.0:4711 already includes it",
            ),
            (&["127.0.0.1:4711", "127.0.0.1:4711"], 2, "--bind 127.0.0.1:4711: given twice"),
        ] {
            let (found, said) = end(binds);
            assert_eq!(found, Some(code), "{said}");
            assert!(said.contains(words), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_descriptor_that_is_no_listener_is_named() {
    for adapter in [Adapter::Mio, Adapter::Smol] {
        let mut command = Command::new(adapter.binary());
        let control = std::env::temp_dir().join(format!("roundel-e2e-fd-{}", std::process::id()));
        command.args(["run", "-b", "fd:77", "--control"]).arg(control).arg("true");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        let words = "cannot listen on fd:77: no socket was inherited as descriptor 77";
        assert!(said.contains(words), "{said}");
    }
}

/// Even where one of them is a socket that listens.
#[test]
fn descriptors_for_output_are_not_listened_on() {
    for (adapter, number) in [(Adapter::Mio, 1), (Adapter::Smol, 1), (Adapter::Mio, 2)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = Command::new(adapter.binary());
        command.args(["run", "-b", &format!("fd:{number}"), "--control", "off", "true"]);
        // Of the other one it could say nothing.
        command.stdout(OwnedFd::from(listener)).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        let cause = "descriptors 1 and 2 are for output\n";
        assert!(said.ends_with(&format!("cannot listen on fd:{number}: {cause}")), "{said}");
    }
}

#[test]
fn unsupported_codecs_of_the_demo_worker_are_refused() {
    for adapter in [Adapter::Mio, Adapter::Smol] {
        let output = Command::new(adapter.binary()).args(["demo", "--codec", "node"]).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(": --codec: \"node\" is not supported by the demo worker"), "{said}");
    }
}
