//! The demo worker around a mio `Poll`, which is one more thing for which its tasks wait.

use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use roundel_mio::{Listener, Standing, Worker};
use smol::{Async, Timer, channel::bounded, future::yield_now};

use super::{PAUSE, Tasks, client::serve, serve_all};

/// Serves the first `count` listeners of the operator until the worker must leave and no client is
/// left.
///
/// # Errors
/// As in the worker API, or epoll(7).
pub fn run(count: u32) -> io::Result<ExitCode> {
    let (mut worker, tasks) = (Worker::join()?, Tasks::new());
    worker.replace_on_panic();
    let web: io::Result<Vec<Listener>> = (0..count).map(|nth| worker.listen_nth(nth)).collect();
    let (web, mut poll, mut events) = (web?, Poll::new()?, Events::with_capacity(64));
    poll.registry().register(&mut worker, Token(0), Interest::READABLE)?;
    let news = Async::new_nonblocking(poll.registry().try_clone()?)?;
    // Nothing is sent over this channel: closing it is the signal.
    let (stays, leaves) = bounded(1);
    serve_all(&tasks, async {
        loop {
            match worker.try_accept_any(&web) {
                Ok((_, connection)) => {
                    let leaves = leaves.clone();
                    let client =
                        async { serve(&Async::new_nonblocking(connection)?, leaves).await };
                    tasks.spawn(client).detach();
                    // Let the other tasks run first: clients that come meanwhile may go to another
                    // worker.
                    yield_now().await;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The call may have changed the standing.
                    if worker.standing() != Standing::Serving {
                        stays.close();
                    }
                    if worker.is_drained() {
                        return Ok(());
                    }
                    news.readable().await?;
                    poll.poll(&mut events, Some(Duration::ZERO))?;
                }
                Err(_) => _ = Timer::after(PAUSE).await,
            }
        }
    })?;
    Ok(worker.finish())
}
