//! The demo worker around a mio `Poll`.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use roundel_mio::{Connection, Listener, Standing, Worker};

use super::client::Client;

const WORKER: Token = Token(0);
/// For edges, so there is nothing to change where only one of them matters.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Until a worker tries again that had no descriptor to accept with.
const PAUSE: Duration = Duration::from_millis(100);
const FAR: Duration = Duration::from_secs(3600);

/// Serves the first `count` listeners of the operator until the worker is to leave and nobody is
/// left.
///
/// # Errors
/// As the worker API has them, or epoll(7).
pub fn run(count: u32) -> io::Result<ExitCode> {
    let mut worker = Worker::join()?;
    worker.replace_on_panic();
    let web: io::Result<Vec<Listener>> = (0..count).map(|nth| worker.listen_nth(nth)).collect();
    let web = web?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut worker, WORKER, Interest::READABLE)?;
    let mut clients: HashMap<Token, (Client, Connection)> = HashMap::new();
    let (mut last, mut ready, mut deadline) = (WORKER, vec![WORKER], Instant::now());
    let mut was_leaving = false;
    loop {
        let (now, is_leaving) = (Instant::now(), worker.standing() != Standing::Serving);
        if now >= deadline || is_leaving != was_leaving {
            let due = clients.iter().filter(|(_, (it, _))| it.until <= now || is_leaving);
            ready.extend(due.map(|(token, _)| *token).chain([WORKER]));
            deadline = clients.values().map(|(it, _)| it.until).fold(now + FAR, Instant::min);
            was_leaving = is_leaving;
        }
        for token in std::mem::take(&mut ready) {
            let is_new = token == WORKER;
            let (token, (mut client, mut connection)) = match clients.remove(&token) {
                Some(known) => (token, known),
                None if !is_new => continue,
                None => match worker.try_accept_any(&web) {
                    Ok((_, connection)) => {
                        // And again after the others: who comes meanwhile may go to another worker.
                        ready.push(WORKER);
                        last.0 += 1;
                        (last, (Client::new(), connection))
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {
                        deadline = deadline.min(now + PAUSE);
                        continue;
                    }
                },
            };
            match client.advance(&connection, is_leaving) {
                Ok(true) => ready.push(token),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It is over, or the client has left.
                _ => continue,
            }
            if !is_new || poll.registry().register(&mut connection, token, BOTH).is_ok() {
                deadline = deadline.min(client.until);
                clients.insert(token, (client, connection));
            }
        }
        if is_leaving && clients.is_empty() && worker.is_drained() {
            return Ok(worker.finish());
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let timeout = if ready.is_empty() { timeout } else { Duration::ZERO };
        match poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => ready.extend(events.iter().map(|event| event.token())),
        }
    }
}
