//! What connections that say nothing cost the primary: `idle_connections BINARY COUNT SECONDS`.
//!
//! Opens so many keep-alive connections to `BINARY demo -w 4`, has one request answered on each,
//! and reports how the primary's memory grew and what CPU it used over the seconds in which they
//! are idle. Ends with 1 if that is 1 MiB or more, or 0.1 % or more.

use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use roundel_tests::programs::observe::{cpu_time, rss_kib};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const USAGE: &str = "idle_connections BINARY COUNT SECONDS";

/// Killed at the end, whatever happens.
struct Primary(Child);

impl Drop for Primary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> io::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let binary = args.next().ok_or_else(|| Error::other(USAGE))?;
    let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or_else(|| Error::other(USAGE));
    let (count, seconds): (u64, u64) = (number()?, number()?);
    let control = std::env::temp_dir().join(format!("roundel-idle-{}", std::process::id()));
    let mut child = Command::new(binary)
        .args(["demo", "-w", "4", "-b", "127.0.0.1:0", "--control"])
        .arg(&control)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let primary = Primary(child);
    let addr: SocketAddr = loop {
        let line = said.next().ok_or_else(|| Error::other("it has ended"))??;
        if let Some(addr) = line.split("listening on ").nth(1) {
            break addr.parse().map_err(Error::other)?;
        }
    };
    // It must not stop because nobody reads.
    thread::spawn(move || said.for_each(drop));
    // What is allocated once is no growth.
    for _ in 0..200 {
        ask(addr)?;
    }
    let pid = primary.0.id() as i32;
    let before = rss_kib(pid);
    let begun = Instant::now();
    let connections = (0..count).map(|_| ask(addr)).collect::<io::Result<Vec<_>>>()?;
    println!("{count} connections in {:.1} s", begun.elapsed().as_secs_f64());
    let before_span = cpu_time(pid);
    // The span that is measured.
    thread::sleep(Duration::from_secs(seconds));
    let used = cpu_time(pid) - before_span;
    let grown = rss_kib(pid).saturating_sub(before);
    let percent = used.as_secs_f64() / seconds as f64 * 100.0;
    println!("the primary grew by {grown} KiB to {} KiB", before + grown);
    println!("it used {percent:.3} % of a CPU over {seconds} s");
    for mut connection in connections {
        answer(&mut connection)?;
    }
    println!("all of them were answered once more");
    Ok(if grown < 1024 && percent < 0.1 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(addr: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    answer(&mut stream)?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut buffer = [0; 512];
    let count = stream.read(&mut buffer)?;
    if !buffer[..count].starts_with(b"HTTP/1.1 200") {
        return Err(Error::other("no answer"));
    }
    Ok(())
}
