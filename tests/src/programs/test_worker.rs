//! A worker program with habits: `test_worker MODE [ARG]`, whatever its worker API. It answers each
//! connection with an HTTP response that says who it is, one connection at a time.

use std::io;
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use roundel_core::{FromWorker, wire};
use roundel_runtime::worker;

use crate::programs::common;

/// In the environment of the workers: how many of the operator's listeners they serve.
pub const LISTENERS: &str = "ROUNDEL_TEST_LISTENERS";

/// What the program needs of a worker API. Everything waits.
pub trait Api: Sized {
    /// Something to listen on.
    type Listener;

    /// Joins the cluster.
    ///
    /// # Errors
    /// As the API has them.
    fn join() -> io::Result<Self>;

    /// Has a panic start the replacement.
    fn replace_on_panic(&self);

    /// Listens on this address.
    ///
    /// # Errors
    /// As the API has them.
    fn listen(&mut self, at: &str) -> io::Result<Self::Listener>;

    /// Listens on the operator's nth listener.
    ///
    /// # Errors
    /// As the API has them.
    fn listen_nth(&mut self, nth: u32) -> io::Result<Self::Listener>;

    /// The next connection of any of these, made blocking; `None` when the worker is to leave.
    ///
    /// # Errors
    /// As the API has them.
    fn accept(&mut self, listeners: &[Self::Listener]) -> io::Result<Option<TcpStream>>;

    /// The end of the worker.
    fn finish(self) -> ExitCode;
}

/// The whole of the program.
///
/// # Errors
/// If the worker can't be one.
pub fn main<A: Api>() -> io::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let mut args = args.peekable();
    let address = args.peek().cloned();
    let mut numbers = args.map(|arg| arg.parse().unwrap_or(0_u64));
    let number = numbers.next().unwrap_or(0);
    let others = numbers.next().unwrap_or(0);
    let slot = worker::slot().unwrap_or(0);
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
    let mut worker = A::join()?;
    if mode == "never-listen" {
        loop {
            std::thread::park();
        }
    }
    if mode.starts_with("panic") {
        worker.replace_on_panic();
    }
    // A primary of Node has no listeners of an operator.
    let listeners = match address.filter(|_| mode == "listen") {
        Some(address) => vec![worker.listen(&address)?],
        None => {
            let count = std::env::var(LISTENERS).ok().and_then(|count| count.parse().ok());
            (0..count.unwrap_or(1)).map(|nth| worker.listen_nth(nth)).collect::<io::Result<_>>()?
        }
    };
    if mode == "never-take" && slot == 0 {
        loop {
            std::thread::park();
        }
    }
    while let Some(mut stream) = worker.accept(&listeners)? {
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
                common::read_request(&mut stream)?;
                let more = if mode == "helper" { helper()? } else { panic_while_full()? };
                common::respond(stream, &more)
            }
            _ => common::answer(stream),
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
fn helper() -> io::Result<String> {
    let script = "env; for fd in /proc/self/fd/*; do readlink $fd; done";
    let output = worker::command("sh").args(["-c", script]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fills the channel, as can happen while the primary is stopped, then panics on another thread
/// and waits for the end of that thread, which must not wait for the channel.
fn panic_while_full() -> io::Result<String> {
    let number = std::env::var("ROUNDEL_CHANNEL_FD").map_err(io::Error::other)?;
    let channel: i32 = number.parse().map_err(io::Error::other)?;
    let mut frame = Vec::new();
    wire::encode(&FromWorker::Load { open: 1 }, wire::MAX_FRAME_DEFAULT, &mut frame)
        .map_err(io::Error::other)?;
    let mut sent = 0_u32;
    loop {
        match send(channel, &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            // One this short goes whole or not at all.
            Ok(length) if length == frame.len() => sent += 1,
            Ok(_) => return Err(io::Error::other("half a frame went out")),
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let panicked = std::thread::spawn(|| panic!("a thread of the test worker panics")).join();
    Ok(format!("sent {sent} panicked {}\n", panicked.is_err()))
}
