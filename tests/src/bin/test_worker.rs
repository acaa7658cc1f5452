//! A worker program with habits: `test_worker MODE [ARG]`. It answers each connection with an
//! HTTP response that says who it is, one connection at a time.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use roundel_core::{FromWorker, wire};
use roundel_mio::Worker;
use roundel_tests::program;

fn main() -> std::io::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let mut args = args.peekable();
    let address = args.peek().cloned().unwrap_or_default();
    let mut numbers = args.map(|arg| arg.parse().unwrap_or(0_u64));
    let number = numbers.next().unwrap_or(0);
    let others = numbers.next().unwrap_or(0);
    let slot = roundel_mio::slot().unwrap_or(0);
    match mode.as_str() {
        "exit-first" if slot == 0 => return Ok(ExitCode::from(number as u8)),
        "exit" => return Ok(ExitCode::from(number as u8)),
        "silent" => loop {
            std::thread::park();
        },
        // Before it joins, so that the helper inherits the channel and holds it open.
        "grandchild" => drop(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn()?),
        _ => {}
    }
    let mut worker = Worker::join()?;
    if mode == "never-listen" {
        loop {
            std::thread::park();
        }
    }
    if mode.starts_with("panic") {
        worker.suicide_on_panic();
    }
    // A primary of Node has no listeners of an operator.
    let listener =
        if mode == "listen" { worker.listen(&address)? } else { worker.listen_nth(0)? };
    if mode == "never-take" && slot == 0 {
        loop {
            std::thread::park();
        }
    }
    while let Some(connection) = worker.accept(&listener)? {
        let mut stream = connection.into_tcp_stream()?;
        if mode == "block" {
            // The blocking is what is tested.
            std::thread::sleep(Duration::from_millis(if slot == 0 { number } else { others }));
        }
        if mode == "panic-thread" {
            // Its end is told by the hook; the join is to know that it has run.
            let _ = std::thread::spawn(|| panic!("a thread of the test worker panics")).join();
        }
        // A client that is gone is no reason to stop.
        let _ = match mode.as_str() {
            "helper" | "panic-full" => {
                program::read_request(&mut stream)?;
                let more = if mode == "helper" { helper()? } else { panic_while_full()? };
                program::respond(stream, &more)
            }
            _ => program::answer(stream),
        };
    }
    if mode == "ignore-drain" {
        loop {
            std::thread::park();
        }
    }
    Ok(worker.finish())
}

/// What a helper process finds: the variables and the descriptors that it inherits.
fn helper() -> std::io::Result<String> {
    let script = "env; for fd in /proc/self/fd/*; do readlink $fd; done";
    let output = roundel_mio::command("sh").args(["-c", script]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fills the channel, as can happen while the primary is stopped, then panics on another thread
/// and waits for the end of that thread, which must not wait for the channel.
fn panic_while_full() -> std::io::Result<String> {
    use std::io::Error;
    let number = std::env::var("ROUNDEL_CHANNEL_FD").map_err(Error::other)?;
    let channel: i32 = number.parse().map_err(Error::other)?;
    let mut frame = Vec::new();
    wire::encode(&FromWorker::Load { open: 1 }, 1 << 20, &mut frame).map_err(Error::other)?;
    let mut sent = 0_u32;
    loop {
        match send(channel, &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            // One this short goes whole or not at all.
            Ok(length) if length == frame.len() => sent += 1,
            Ok(_) => return Err(Error::other("half a frame went out")),
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let panicked = std::thread::spawn(|| panic!("a thread of the test worker panics")).join();
    Ok(format!("sent {sent} panicked {}\n", panicked.is_err()))
}
