//! HTTP clients that ask at a steady pace, and what became of their requests.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a patient client is connected before it speaks.
const SILENCE: Duration = Duration::from_millis(200);

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A connection for each request.
    OneEach,
    /// All requests over one connection, until the answer or the server closes it.
    KeepAlive,
    /// A connection for each request, which comes 200 ms after it was opened.
    Patient,
}

/// So many clients that ask once in this time each.
pub type Group = (Manner, usize, Duration);

/// Clients that together send some 1,500 requests a second.
pub const LOAD: [Group; 4] = [
    (Manner::OneEach, 8, Duration::from_millis(10)),
    (Manner::KeepAlive, 6, Duration::from_millis(10)),
    (Manner::KeepAlive, 2, Duration::from_millis(300)),
    (Manner::Patient, 24, Duration::from_millis(240)),
];

/// A tenth of that, for machines that do other things too.
pub const SMALL_LOAD: [Group; 3] = [
    (Manner::OneEach, 1, Duration::from_millis(10)),
    (Manner::KeepAlive, 1, Duration::from_millis(10)),
    (Manner::Patient, 2, Duration::from_millis(240)),
];

/// One client that looks whether it is served.
pub const PROBE: [Group; 1] = [(Manner::OneEach, 1, Duration::from_millis(50))];

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Those that were answered with 200.
    pub answered: u64,
    /// The others, by how they failed.
    pub failed: BTreeMap<String, u64>,
    /// How often a connection that had been used before was closed after a request was sent and
    /// before a byte of its answer. The client may ask again (RFC 9112, 9.3.1), and did.
    pub reused_closed: u64,
    /// The longest time from opening the connection, or from sending the request if it was open, to
    /// the end of the answer; the silence of patient clients apart.
    pub slowest: Duration,
}

impl Tally {
    /// How many requests failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.answered += other.answered;
        self.reused_closed += other.reused_closed;
        self.slowest = self.slowest.max(other.slowest);
        for (how, count) in &other.failed {
            *self.failed.entry(how.clone()).or_default() += count;
        }
    }
}

/// Clients that ask until they are told to stop.
pub struct Clients {
    over: Arc<AtomicBool>,
    begun: Instant,
    threads: Vec<JoinHandle<Tally>>,
}

impl Clients {
    /// Starts these clients.
    pub fn start(addr: SocketAddr, groups: &[Group]) -> Clients {
        let over = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let members = groups.iter().flat_map(|&(manner, count, period)| {
            // Not all of them at the same time.
            (0..count).map(move |nth| (manner, period, period * nth as u32 / count as u32))
        });
        let threads = members.map(|(manner, period, offset)| {
            let client = Client {
                addr,
                manner,
                over: Arc::clone(&over),
                open: None,
                tally: Tally::default(),
            };
            thread::spawn(move || client.run(begun + offset, period))
        });
        let threads = threads.collect();
        Clients { over, begun, threads }
    }

    /// Lets the clients finish what they have begun; what became of all requests, and the time.
    ///
    /// # Errors
    /// If a client panicked.
    pub fn finish(mut self) -> io::Result<(Tally, Duration)> {
        self.over.store(true, Ordering::Relaxed);
        let time = self.begun.elapsed();
        let mut all = Tally::default();
        for thread in self.threads.drain(..) {
            let tally = thread.join().map_err(|_| io::Error::other("a client panicked"))?;
            all.add(&tally);
        }
        Ok((all, time))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Client {
    addr: SocketAddr,
    manner: Manner,
    over: Arc<AtomicBool>,
    /// A connection that an answer came over, and that is still open.
    open: Option<TcpStream>,
    tally: Tally,
}

/// How a request ended without its answer.
enum Failure {
    /// Before the first byte of the answer.
    Closed(&'static str),
    Other(String),
}

impl Client {
    fn run(mut self, mut next: Instant, period: Duration) -> Tally {
        while !self.over.load(Ordering::Relaxed) {
            let now = Instant::now();
            match next.checked_duration_since(now) {
                // The pace.
                Some(pause) => thread::sleep(pause),
                // What is late by more than a second is left out.
                None => next = next.max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now)),
            }
            next += period;
            if let Err(how) = self.ask() {
                *self.tally.failed.entry(how).or_default() += 1;
            } else {
                self.tally.answered += 1;
            }
        }
        self.tally
    }

    fn ask(&mut self) -> Result<(), String> {
        let kept = self.open.take().filter(is_open);
        if let Some(stream) = kept {
            let begun = Instant::now();
            match exchange(&stream, true) {
                Err(Failure::Closed(_)) => self.tally.reused_closed += 1,
                answer => return self.note(stream, begun.elapsed(), answer),
            }
        }
        let begun = Instant::now();
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE);
        let stream = stream.map_err(|error| format!("connect: {}", error.kind()))?;
        let opened = begun.elapsed();
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        if self.manner == Manner::Patient {
            // The silence that is tested.
            thread::sleep(SILENCE);
        }
        let asked = Instant::now();
        let answer = exchange(&stream, self.manner == Manner::KeepAlive);
        self.note(stream, opened + asked.elapsed(), answer)
    }

    fn note(
        &mut self,
        stream: TcpStream,
        took: Duration,
        answer: Result<bool, Failure>,
    ) -> Result<(), String> {
        self.tally.slowest = self.tally.slowest.max(took);
        match answer {
            Ok(keeps) => {
                self.open = Some(stream).filter(|_| keeps && self.manner == Manner::KeepAlive);
                Ok(())
            }
            Err(Failure::Closed(how)) => Err(how.to_owned()),
            Err(Failure::Other(how)) => Err(how),
        }
    }
}

/// Whether nothing says that the server has closed a connection on which nothing is expected.
fn is_open(stream: &TcpStream) -> bool {
    let looks = |stream: &TcpStream| {
        stream.set_nonblocking(true)?;
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        seen
    };
    looks(stream).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends a request and reads its answer. True if the server keeps the connection open.
fn exchange(mut stream: &TcpStream, keeps: bool) -> Result<bool, Failure> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| failure(&error, true))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        if let Some(whole) = parse(&answer)? {
            return Ok(whole && keeps);
        }
        match stream.read(&mut buffer) {
            Ok(0) if answer.is_empty() => return Err(Failure::Closed("closed")),
            Ok(0) => return Err(Failure::Other("cut off".into())),
            Ok(count) => answer.extend(buffer.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(&error, answer.is_empty())),
        }
    }
}

fn failure(error: &io::Error, is_first: bool) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Other("timeout".into()),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe if is_first => Failure::Closed("reset"),
        kind => Failure::Other(kind.to_string()),
    }
}

/// Whether the server keeps the connection open, once the answer is whole.
fn parse(answer: &[u8]) -> Result<Option<bool>, Failure> {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("http/1.1 200") {
        return Err(Failure::Other(head.lines().next().unwrap_or_default().to_owned()));
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = header("content-length:").and_then(|it| it.trim().parse::<usize>().ok());
    let Some(length) = length else { return Err(Failure::Other("no length".into())) };
    let closes = header("connection:").is_some_and(|it| it.trim() == "close");
    Ok((body.len() >= length).then_some(!closes))
}
