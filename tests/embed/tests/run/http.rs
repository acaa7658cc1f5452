//! Clients that stay connected, and count what they get no answer to.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::cluster::{connect, pid_in};

/// A connection of a client.
pub(crate) struct Client(BufReader<TcpStream>);

/// What it got.
pub(crate) struct Answer {
    pub(crate) pid: i32,
    /// It was the last one on this connection.
    pub(crate) closes: bool,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Client {
        Client(BufReader::new(connect(addr)))
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self) -> io::Result<Answer> {
        write!(self.0.get_mut(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let (mut length, mut closes, mut lines) = (0, false, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect(&line);
            }
            closes |= line == "connection: close";
            if lines == 0 {
                assert_eq!(line, "http/1.1 200 ok");
            }
            if line.is_empty() {
                break;
            }
            lines += 1;
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Answer { pid: pid_in(&String::from_utf8_lossy(&body)), closes })
    }

    /// Asks until an answer is the last one; tells how many there were.
    pub(crate) fn ask_until_closed(&mut self) -> io::Result<u32> {
        let mut answers = 1;
        while !self.ask()?.closes {
            answers += 1;
        }
        Ok(answers)
    }
}
