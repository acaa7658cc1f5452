//! A worker that asks for a port of its own, as Node programs do: under a primary of Node too. It
//! answers over HTTP with its pid, one connection at a time, and does what the path says.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use roundel_mio::Worker;

fn main() -> io::Result<ExitCode> {
    let worker = Worker::join()?;
    let listener = worker.listen("127.0.0.1:0")?;
    while let Some(connection) = listener.accept()? {
        // A client that is gone is no reason to stop.
        match answer(connection.into_tcp_stream()?).as_deref() {
            Ok("/leave") => worker.leave(),
            Ok("/exit") => return Ok(ExitCode::from(7)),
            _ => {}
        }
    }
    Ok(worker.finish())
}

/// Answers one request; its path.
fn answer(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\n\r\n{}\n", std::process::id())?;
    stream.shutdown(Shutdown::Write)?;
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}
