//! The stall detector on a real primary, whose event loop has the fault that it is there for.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::{PATIENCE, eventually, scratch};
use serde_json::Value;

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_connection_that_the_loop_forgets_is_told_and_served_at_the_stop() {
    let dir = scratch("roundel-stall");
    let log = dir.join("events");
    let mut command = Command::new(env!("CARGO_BIN_EXE_forgetful_primary"));
    command.arg(&log).arg(dir.join("control")).arg(env!("CARGO_BIN_EXE_test_worker"));
    let mut primary = Started(command.spawn().unwrap());
    let events = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|event| event["event"] == name).collect()
    };
    eventually("the worker", || events("ready").pop());
    let connect = |event: &Value| {
        let stream = TcpStream::connect(event["address"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (&stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        stream
    };
    let bound = events("bound");
    // Nobody is there for the second listener: what waits there is no stall.
    let _other = connect(&bound[1]);
    let mut forgotten = connect(&bound[0]);
    let stalled = eventually("the stall", || events("stalled").pop());
    assert_eq!(stalled["listener"], bound[0]["listener"]);
    assert_eq!((stalled["worker"].as_u64(), stalled["pending"].as_u64()), (Some(1), Some(0)));
    kill(Pid::from_raw(primary.0.id() as i32), Signal::SIGTERM).unwrap();
    let mut answer = String::new();
    forgotten.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("the end", || primary.0.try_wait().unwrap());
    assert_eq!(events("stalled").len(), 1);
    fs::remove_dir_all(dir).unwrap();
}
