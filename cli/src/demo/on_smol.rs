//! The demo worker in tasks: one for each listener and each client.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use roundel_smol::{Connection, Listener, Worker};
use smol::channel::{Receiver, bounded};
use smol::future::{self, FutureExt};
use smol::{LocalExecutor, Timer};

use super::client::Client;

type Tasks = Rc<LocalExecutor<'static>>;

/// Serves the first `count` listeners of the operator until the worker is to leave and nobody is
/// left.
///
/// # Errors
/// As the worker API has them.
pub fn run(count: u32) -> io::Result<ExitCode> {
    let worker = Worker::join()?;
    worker.replace_on_panic();
    let tasks = Tasks::default();
    smol::block_on(tasks.run(async {
        // Nothing is sent over it: that its sender is gone is the news.
        let (_stays, leaves) = bounded(1);
        for nth in 0..count {
            let listener = worker.listen_nth(nth).await?;
            tasks.spawn(accept(listener, Rc::clone(&tasks), leaves.clone())).detach();
        }
        worker.leaving().await
    }))?;
    smol::block_on(async {
        while !tasks.is_empty() {
            tasks.tick().await;
        }
        Ok(worker.finish().await)
    })
}

/// Serves the clients of a listener until nothing more will come.
async fn accept(listener: Listener, tasks: Tasks, leaves: Receiver<()>) {
    loop {
        match listener.accept().await {
            Ok(Some(connection)) => tasks.spawn(serve(connection, leaves.clone())).detach(),
            Ok(None) => return,
            // This process accepts by itself, and descriptors are short.
            Err(_) => _ = Timer::after(Duration::from_millis(100)).await,
        }
    }
}

/// Serves a client until it is over.
async fn serve(mut connection: Connection, leaves: Receiver<()>) {
    let mut client = Client::new();
    let (mut timer, mut set_for) = (Timer::at(client.until), client.until);
    let mut left = pin!(leaves.recv());
    loop {
        let is_leaving = leaves.is_closed();
        match client.advance(&connection, is_leaving) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(true) => {
                future::yield_now().await;
                continue;
            }
            // It is over, or the client has left.
            Ok(false) | Err(_) => return,
        }
        // Only for an earlier time, as it costs: so it may be early, and never late.
        if client.until < set_for || set_for <= Instant::now() {
            set_for = client.until;
            timer.set_at(set_for);
        }
        let ready = async {
            let _ = match client.waits_for() {
                (true, _) => connection.readable().await,
                (_, true) => connection.writable().await,
                _ => future::pending().await,
            };
        };
        let is_late = async { _ = (&mut timer).await };
        let is_sent_off = async {
            if is_leaving {
                future::pending().await
            }
            let _ = left.as_mut().await;
        };
        ready.or(is_late).or(is_sent_off).await;
    }
}
