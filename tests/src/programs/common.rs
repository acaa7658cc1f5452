//! What the worker programs of the tests share.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Reads a request and answers with who this is.
///
/// # Errors
/// If the client is gone, or sends nothing for 5 s.
pub fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    read_request(&mut stream)?;
    respond(stream, "")
}

/// Reads the head of a request.
///
/// # Errors
/// If the client sends nothing for 5 s.
pub fn read_request(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

/// Answers with who this is, and more if there is more.
///
/// # Errors
/// If the client is gone.
pub fn respond(mut stream: TcpStream, more: &str) -> std::io::Result<()> {
    let (id, pid) = (roundel_runtime::worker::worker_id().unwrap_or(0), std::process::id());
    let body = format!("worker {id} pid {pid}\n{more}");
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    // A copy may lie in the queue of a channel that a dead worker's helper holds open: only this
    // tells the client that the answer is over.
    stream.shutdown(Shutdown::Write)
}
