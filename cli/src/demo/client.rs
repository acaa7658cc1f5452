//! A client of the demo worker: as much of HTTP/1.1 as it speaks (RFC 9112).

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::catch_unwind;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Error::TooManyHeaders, Status::Complete, Status::Partial};
use nix::sys::socket::{Shutdown, shutdown};
use roundel_runtime::worker::worker_id;

/// Who answers.
static HELLO: LazyLock<String> =
    LazyLock::new(|| format!("worker {} pid {}", worker_id().unwrap_or(0), std::process::id()));
/// The longest request head in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long a client may take for its next request, for the rest of one, or for an answer.
const IDLE: Duration = Duration::from_secs(60);
/// How long one that has sent nothing may take once the worker is to leave, since its first request
/// may be on its way; and how long one that was answered for the last time may take to close.
const GRACE: Duration = Duration::from_secs(1);

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    Close,
    /// Waits for the client to close. It does not know that this was the last answer, and a close
    /// could cut the answer off, if something is sent after it (RFC 9112, 9.6).
    Linger,
    Crash,
    Exit(i32),
}

/// A request: the status of its answer, whether that has a body, and what follows.
type Request = (&'static str, bool, Then);

/// A client. Nothing of it grows: it is read from when all that it asked for is answered.
#[derive(Debug)]
pub(super) struct Client {
    input: Vec<u8>,
    /// How much of a body is still to be thrown away.
    body: usize,
    is_fresh: bool,
    /// Is answered when it is `until`.
    request: Option<Request>,
    output: Vec<u8>,
    then: Then,
    /// When to [`advance`](Client::advance) in any case.
    pub(super) until: Instant,
}

impl Client {
    pub(super) fn new() -> Client {
        let (input, output, until) = (Vec::new(), Vec::new(), Instant::now() + IDLE);
        Client { input, body: 0, is_fresh: true, request: None, output, then: Then::Next, until }
    }

    /// What it waits for: to read and to write; neither while its answer takes time.
    pub(super) fn waits_for(&self) -> (bool, bool) {
        let writes = !self.output.is_empty();
        (!writes && self.request.is_none(), writes)
    }

    /// Goes on until it would block. True if there is more to do, after the others; false when it
    /// is over.
    pub(super) fn advance<C>(&mut self, mut connection: C, is_leaving: bool) -> io::Result<bool>
    where
        C: Read + Write + AsFd,
    {
        let (now, mut buffer) = (Instant::now(), [0; 4096]);
        for _ in 0..64 {
            let is_late = now >= self.until;
            match self.request.take_if(|_| is_late) {
                Some(request) => self.answer(request, now, is_leaving),
                None if is_late => return Ok(false),
                None if self.request.is_some() => return Err(ErrorKind::WouldBlock.into()),
                None => {}
            }
            while !self.output.is_empty() {
                let sent = connection.write(&self.output)?;
                self.output.drain(..sent);
            }
            if self.then == Then::Next && self.body == 0 && self.take_request(now) {
                continue;
            }
            match self.then {
                Then::Next if !is_leaving => {}
                Then::Next if self.is_fresh => self.until = self.until.min(now + GRACE),
                Then::Next if self.body == 0 && self.input.is_empty() => return Ok(false),
                Then::Next => {}
                Then::Linger => shutdown(connection.as_fd().as_raw_fd(), Shutdown::Write)?,
                Then::Close => return Ok(false),
                Then::Crash => {
                    let _ = catch_unwind(|| panic!("a client asked for /crash"));
                    return Ok(false);
                }
                Then::Exit(code) => std::process::exit(code),
            }
            match connection.read(&mut buffer)? {
                0 => return Ok(false),
                _ if self.then != Then::Next => {}
                count => self.feed(&buffer[..count]),
            }
        }
        Ok(true)
    }

    fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.body.min(bytes.len());
        self.input.extend_from_slice(&bytes[skipped..]);
        (self.body, self.is_fresh) = (self.body - skipped, false);
    }

    /// Takes the next request out of the input; false if it is not whole.
    fn take_request(&mut self, now: Instant) -> bool {
        let refused = |status| Some(((status, true, Then::Linger), self.input.len(), 0, now));
        let found = parse(&self.input, now).unwrap_or_else(refused);
        let Some((request, head, body, at)) = found else { return false };
        let rest = self.input.split_off(head);
        (self.request, self.body, self.until, self.input) = (Some(request), body, at, Vec::new());
        self.feed(&rest);
        true
    }

    fn answer(&mut self, (status, has_body, then): Request, now: Instant, is_leaving: bool) {
        self.then = if is_leaving && then == Then::Next { Then::Linger } else { then };
        self.until = now + if self.then == Then::Linger { GRACE } else { IDLE };
        let connection = if self.then == Then::Next { "keep-alive" } else { "close" };
        let body = if status == "200 OK" { &*HELLO } else { status };
        let (length, body) = (body.len() + 1, if has_body { [body, "\n"] } else { ["", ""] });
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}");
        let rest = format!("\r\nConnection: {connection}\r\n\r\n{}{}", body[0], body[1]);
        self.output = (head + &rest).into_bytes();
    }
}

/// The request that the input begins with, the lengths of its head and its body, and when it is to
/// be answered; nothing if it is not whole. The status of its refusal if it is none.
fn parse(
    input: &[u8],
    now: Instant,
) -> Result<Option<(Request, usize, usize, Instant)>, &'static str> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(Complete(head)) if head <= MAX_HEAD => head,
        Ok(Partial) if input.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(TooManyHeaders) => return Err("431 Request Header Fields Too Large"),
        Err(_) => return Err("400 Bad Request"),
    };
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
        found.map(|it| str::from_utf8(it.value).unwrap_or_default())
    };
    let body = header("content-length").map_or(Ok(0), str::parse).map_err(|_| "400 Bad Request")?;
    if header("transfer-encoding").is_some() {
        return Err("411 Length Required");
    }
    let default = if parsed.version == Some(1) { "keep-alive" } else { "close" };
    let mut words = header("connection").unwrap_or(default).split(',');
    let closes = words.any(|word| word.trim().eq_ignore_ascii_case("close"));
    let (status, ms, then) = route(parsed.path.unwrap_or_default());
    let then = if closes && then == Then::Next { Then::Close } else { then };
    let request = (status, parsed.method != Some("HEAD"), then);
    Ok(Some((request, head, body, now + Duration::from_millis(ms))))
}

/// The status, how many milliseconds the answer takes, and what follows it.
fn route(target: &str) -> (&'static str, u64, Then) {
    let (path, value) = target.split_once('=').unwrap_or((target, ""));
    match (path, value.parse()) {
        ("/sleep?ms", Ok(ms @ 0..=60_000)) => return ("200 OK", ms, Then::Next),
        ("/exit?code", Ok(code @ 0..=255)) => return ("200 OK", 0, Then::Exit(code as i32)),
        ("/crash", _) => return ("200 OK", 0, Then::Crash),
        ("/spin", _) => (0..10_000_000_u32).for_each(|n| _ = std::hint::black_box(n)),
        (path, _) if path == "/" || path.starts_with("/?") => {}
        _ => return ("404 Not Found", 0, Then::Next),
    }
    ("200 OK", 0, Then::Next)
}

#[cfg(test)]
mod tests;
