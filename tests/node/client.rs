//! Clients: one connection, one request.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::*;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200, from the process with this pid.
    Ok { pid: i32, more: String },
    /// Another status.
    Status(String),
    /// Closed, or reset, without an answer, after it was connected.
    Lost,
    /// Nobody listened.
    Refused,
    /// No end of the answer within [`PATIENCE`].
    Hung,
}

impl Answer {
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Answer::Ok { pid, .. } => *pid,
            other => panic!("no answer but {other:?}"),
        }
    }

    pub(crate) fn more(&self) -> &str {
        match self {
            Answer::Ok { more, .. } => more,
            other => panic!("no answer but {other:?}"),
        }
    }

    fn failed(error: &io::Error) -> Answer {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Answer::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Answer::Hung,
            _ => Answer::Lost,
        }
    }
}

pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) fn write_request(mut stream: impl Write, path: &str) -> io::Result<()> {
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
    )
}

/// Sends a request, and leaves the answer to be read.
pub(crate) fn send(addr: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let stream = connect(addr)?;
    write_request(&stream, path)?;
    Ok(stream)
}

/// Reads the answer to its end.
pub(crate) fn receive(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        return Answer::failed(&error);
    }
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Answer::Lost };
    if !head.starts_with("HTTP/1.1 200") {
        return Answer::Status(head.lines().next().unwrap_or_default().into());
    }
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        body.split_once("\r\n").unwrap_or_default().1
    } else {
        body
    };
    let (pid, more) = body.split_once('\n').unwrap_or((body, ""));
    match pid.trim().parse() {
        Ok(pid) => Answer::Ok { pid, more: more.to_owned() },
        Err(_) => Answer::Lost,
    }
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> Answer {
    send(addr, path).map_or_else(|error| Answer::failed(&error), receive)
}

pub(crate) fn get_unix(socket: &Path, path: &str) -> Answer {
    let open = || {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write_request(&stream, path)?;
        Ok(stream)
    };
    open().map_or_else(|error| Answer::failed(&error), receive)
}

/// How many answers each process gave.
pub(crate) fn spread(answers: &[Answer]) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.pid()).or_default() += 1;
    }
    counts
}

/// The same count for each of them. Answers that the primary reads at once may change places, which
/// on a busy machine moves a connection now and then.
#[track_caller]
pub(crate) fn assert_even(counts: &BTreeMap<i32, usize>, pids: &[i32], count: usize) {
    let is_near = |pid| counts.get(pid).is_some_and(|&n| n.abs_diff(count) <= 1 + count / 50);
    let total = count * pids.len();
    let is_whole = counts.len() == pids.len() && counts.values().sum::<usize>() == total;
    assert!(is_whole && pids.iter().all(is_near), "{counts:?}, not {count} for each of {pids:?}");
}

/// So many clients ask, at one address after the other, without a pause until `total` requests are
/// through, or `act`, which is called again and again meanwhile, wants no more.
pub(crate) fn load(
    addrs: &[SocketAddr],
    clients: usize,
    total: usize,
    mut act: impl FnMut() -> Load,
) -> Vec<Answer> {
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        let client = || {
            let mut answers = Vec::new();
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    break answers;
                }
                answers.push(get(addrs[number % addrs.len()], "/"));
                // One that hangs has taken long enough.
                if answers.last() == Some(&Answer::Hung) {
                    begun.store(total, Ordering::Relaxed);
                }
            }
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            if act() == Load::Enough {
                begun.store(total, Ordering::Relaxed);
                break;
            }
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// What a load is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    GoOn,
    Enough,
}

/// The same, with nothing else to do.
pub(crate) fn plain_load(addrs: &[SocketAddr], clients: usize, total: usize) -> Vec<Answer> {
    load(addrs, clients, total, || {
        thread::park_timeout(Duration::from_millis(5));
        Load::GoOn
    })
}
