//! A client of the demo worker, with the part of HTTP/1.1 that the worker speaks (RFC 9112).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Error::TooManyHeaders, Status::Complete, Status::Partial};
use nix::sys::socket::{Shutdown, shutdown};
use roundel_runtime::worker::worker_id;
use smol::{Timer, channel::Receiver, future::yield_now, prelude::*};

/// The answer's text, which names the worker.
static HELLO: LazyLock<String> =
    LazyLock::new(|| format!("worker {} pid {}", worker_id().unwrap_or(0), std::process::id()));
const OK: &str = "200 OK";
/// The longest request head in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long a worker that must leave waits for one more request, or for the rest of one: the next
/// one may be on its way, and a close under it would lose it (RFC 9112, 9.3.1). Also how long a
/// client may take to close after its last answer.
const GRACE: Duration = Duration::from_secs(1);

/// What happens after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    /// Closes, because the client asked for it.
    Close,
    /// Waits for the client to close. The client does not know that this was the last answer, and a
    /// close could cut the answer off if the client sends more (RFC 9112, 9.6).
    Linger,
    Crash,
    Exit(i32),
}

/// A request: the status of its answer, whether the answer has a body, how many milliseconds it
/// takes, and what happens next.
type Request = (&'static str, bool, u64, Then);

/// Serves a client until it has left, or until soon after `leaves` is closed. Its buffers do not
/// grow: it is read only when everything that it asked for is answered.
pub(super) async fn serve<S>(mut stream: S, leaves: Receiver<()>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    let (mut input, mut told) = (Vec::new(), pin!(leaves.recv()));
    loop {
        let Some(((status, has_body, ms, then), mut length)) = parse(&input) else {
            let is_sent_off = async {
                let _ = told.as_mut().await;
                late(GRACE).await
            };
            receive(&mut stream, &mut input).or(is_sent_off).await?;
            continue;
        };
        while length > input.len() {
            length -= std::mem::take(&mut input).len();
            receive(&mut stream, &mut input).await?;
        }
        input.drain(..length);
        if ms > 0 {
            Timer::after(Duration::from_millis(ms)).await;
        }
        let then = if then == Then::Next && leaves.is_closed() { Then::Linger } else { then };
        stream.write_all(answer(status, has_body, then == Then::Next).as_bytes()).await?;
        match then {
            Then::Next => continue,
            Then::Close => return Ok(()),
            Then::Linger => {}
            Then::Crash => _ = catch_unwind(|| panic!("a client asked for /crash")),
            Then::Exit(code) => std::process::exit(code),
        }
        shutdown(stream.as_fd().as_raw_fd(), Shutdown::Write)?;
        let closes = async {
            loop {
                receive(&mut stream, &mut input).await?;
                input.clear();
            }
        };
        return closes.or(late(GRACE)).await;
    }
}

async fn late(after: Duration) -> io::Result<()> {
    Timer::after(after).await;
    Err(ErrorKind::TimedOut.into())
}

/// Reads more, after the other tasks had their turn. The end of the stream is an error.
async fn receive(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> io::Result<()> {
    yield_now().await;
    let length = input.len();
    input.resize(length + 1024, 0);
    let count = stream.read(&mut input[length..]).await?;
    input.truncate(length + count);
    if count > 0 { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn answer(status: &str, has_body: bool, keeps: bool) -> String {
    let connection = if keeps { "keep-alive" } else { "close" };
    let body = if status == OK { &*HELLO } else { status };
    let length = body.len() + 1;
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}");
    let head = format!("{head}\r\nConnection: {connection}\r\n\r\n");
    if has_body { head + body + "\n" } else { head }
}

/// The request at the start of the input, or its refusal if it is not a valid one, with the length
/// of its head and body together; `None` if its head is not complete.
fn parse(input: &[u8]) -> Option<(Request, usize)> {
    let refused = |status| Some(((status, true, 0, Then::Linger), input.len()));
    let mut headers = [EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(Complete(head)) if head <= MAX_HEAD => head,
        Ok(Partial) if input.len() <= MAX_HEAD => return None,
        Ok(_) | Err(TooManyHeaders) => return refused("431 Request Header Fields Too Large"),
        Err(_) => return refused("400 Bad Request"),
    };
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
        found.map(|it| str::from_utf8(it.value).unwrap_or_default())
    };
    if header("transfer-encoding").is_some() {
        return refused("411 Length Required");
    }
    let Ok(body) = header("content-length").unwrap_or("0").parse::<u32>() else {
        return refused("400 Bad Request");
    };
    let (status, ms, then) = route(parsed.path?);
    let default = if parsed.version == Some(1) { "keep-alive" } else { "close" };
    let connection = header("connection").unwrap_or(default).to_ascii_lowercase();
    let then = if connection.contains("close") && then == Then::Next { Then::Close } else { then };
    Some(((status, parsed.method != Some("HEAD"), ms, then), head + body as usize))
}

/// The status, how many milliseconds the answer takes, and what happens next.
fn route(target: &str) -> (&'static str, u64, Then) {
    let (path, value) = target.split_once('=').unwrap_or((target, ""));
    match (path, value.parse()) {
        ("/sleep?ms", Ok(ms @ 0..=60_000)) => return (OK, ms, Then::Next),
        ("/exit?code", Ok(code @ 0..=255)) => return (OK, 0, Then::Exit(code as i32)),
        ("/crash", _) => return (OK, 0, Then::Crash),
        ("/spin", _) => (0..10_000_000_u32).for_each(|n| _ = std::hint::black_box(n)),
        (path, _) if path == "/" || path.starts_with("/?") => {}
        _ => return ("404 Not Found", 0, Then::Next),
    }
    (OK, 0, Then::Next)
}

#[cfg(test)]
mod tests;
