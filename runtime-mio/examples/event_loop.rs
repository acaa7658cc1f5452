//! A worker in the program's own mio `Poll`, beside its connections: an echo server. It sends back
//! what a client sends, until the client has sent everything.
//!
//! `roundel run -b 127.0.0.1:8080 target/debug/examples/event_loop`, or by itself, without a
//! cluster, on 127.0.0.1:8080.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

use mio::{Events, Interest, Poll, Token};
use roundel_mio::{Connection, Standing, Worker};

const WORKER: Token = Token(0);

/// A client, and the bytes still to send back.
struct Client {
    connection: Connection,
    echo: Vec<u8>,
}

impl Client {
    /// Continues until it would block; true when the client is done. It reads only after everything
    /// was sent back, so a client that does not read costs nothing.
    fn serve(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            while !self.echo.is_empty() {
                let sent = self.connection.write(&self.echo)?;
                self.echo.drain(..sent);
            }
            match self.connection.read(&mut buffer)? {
                0 => return Ok(true),
                count => self.echo.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn main() -> io::Result<ExitCode> {
    let mut worker = Worker::join()?;
    worker.replace_on_panic();
    let web = match worker.is_in_cluster() {
        true => worker.listen_nth(0)?,
        false => worker.listen("127.0.0.1:8080")?,
    };
    let listeners = [web];
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    poll.registry().register(&mut worker, WORKER, Interest::READABLE)?;
    let (mut clients, mut last) = (HashMap::new(), WORKER);
    loop {
        // Clients that were accepted may not have sent anything yet, so wait for them.
        if worker.standing() != Standing::Serving && worker.is_drained() && clients.is_empty() {
            return Ok(worker.finish());
        }
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for token in events.iter().map(|event| event.token()) {
            if token == WORKER {
                while let Ok((_, mut connection)) = worker.try_accept_any(&listeners) {
                    last.0 += 1;
                    // Registering for edges: the connection becomes ready at once if it is ready
                    // now.
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut connection, last, both)?;
                    clients.insert(last, Client { connection, echo: Vec::new() });
                }
            } else if let Some(client) = clients.get_mut(&token) {
                match client.serve() {
                    Ok(false) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // The client is done or has left, which is no reason to stop.
                    Ok(true) | Err(_) => drop(clients.remove(&token)),
                }
            }
        }
    }
}
