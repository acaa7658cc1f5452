//! A worker program with habits: `test_worker MODE [ARG]`. It answers each connection with an
//! HTTP response that says who it is, one connection at a time.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use roundel_mio::Worker;

fn main() -> std::io::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let number = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(0_u64);
    let slot = roundel_mio::slot().unwrap_or(0);
    match mode.as_str() {
        "exit" => return Ok(ExitCode::from(number as u8)),
        "silent" => loop {
            std::thread::park();
        },
        // Before it joins, so that the helper inherits the channel and holds it open.
        "grandchild" => drop(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn()?),
        _ => {}
    }
    let mut worker = Worker::join()?;
    if mode == "panic-thread" {
        worker.suicide_on_panic();
    }
    let listener = worker.listen_nth(0)?;
    if mode == "never-take" && slot == 0 {
        loop {
            std::thread::park();
        }
    }
    while let Some(connection) = worker.accept(&listener)? {
        let stream = connection.into_tcp_stream()?;
        if mode == "block" && slot == 0 {
            // The blocking is what is tested.
            std::thread::sleep(Duration::from_millis(number));
        }
        if mode == "panic-thread" {
            // Its end is told by the hook; the join is to know that it has run.
            let _ = std::thread::spawn(|| panic!("a thread of the test worker panics")).join();
        }
        // A client that is gone is no reason to stop.
        let _ = roundel_tests::program::answer(stream);
    }
    if mode == "ignore-drain" {
        loop {
            std::thread::park();
        }
    }
    Ok(worker.finish())
}
