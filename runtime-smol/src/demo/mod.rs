//! The built-in worker of `roundel-smol demo`.

mod crowd;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, ready};

use roundel_runtime::demo;
use roundel_runtime::worker::Standing;
use smol::stream::Stream;

use crate::{Incoming, Listener, Worker};
use crowd::Crowd;

/// Is a demo worker on the first `listeners` listeners of the operator, until it is told to leave.
pub fn run(listeners: u32) -> ExitCode {
    demo::end(Worker::join().and_then(|worker| {
        worker.suicide_on_panic();
        async_io::block_on(async {
            let mut all = Vec::new();
            for nth in 0..listeners {
                all.push(worker.listen_nth(nth).await?);
            }
            serve(worker, &all).await
        })
    }))
}

async fn serve(worker: Worker, listeners: &[Listener]) -> io::Result<ExitCode> {
    let mut doors: Vec<_> = listeners.iter().map(Listener::incoming).collect();
    let mut demo = Demo { worker: &worker, crowd: Crowd::new()?, held_up: false };
    poll_fn(|cx| demo.poll(&mut doors, cx)).await?;
    Ok(worker.finish().await)
}

struct Demo<'a> {
    worker: &'a Worker,
    crowd: Crowd,
    /// There was no descriptor for another connection: try again when a client goes.
    held_up: bool,
}

impl Demo<'_> {
    /// Serves until the worker is to leave and nobody is left. `doors` are the listeners of which
    /// something may come.
    fn poll(
        &mut self,
        doors: &mut Vec<Incoming<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_leaving = self.is_leaving();
            if is_leaving {
                self.crowd.leave();
            }
            while self.crowd.poll(cx)?.is_ready() {}
            self.held_up &= !self.crowd.has_shrunk();
            if self.accept(doors, cx)? {
                // Nobody waits behind those who are yet to be accepted.
                self.crowd.look()?;
            } else if doors.is_empty() && self.crowd.is_empty() {
                return Poll::Ready(Ok(()));
            } else if is_leaving == self.is_leaving() {
                return Poll::Pending;
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.worker.standing() != Standing::Serving
    }

    /// Takes one connection of each listener and serves it at once. One, so that whoever comes
    /// while this worker is busy goes to another one. False if nothing was there.
    fn accept(&mut self, doors: &mut Vec<Incoming<'_>>, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut found = false;
        for at in (0..doors.len()).rev() {
            match self.accept_at(&mut doors[at], cx)? {
                Poll::Pending => continue,
                Poll::Ready(true) => {}
                Poll::Ready(false) => drop(doors.swap_remove(at)),
            }
            found = true;
        }
        Ok(found)
    }

    /// False if nothing will come of this listener any more.
    fn accept_at(
        &mut self,
        door: &mut Incoming<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        if self.crowd.is_full() {
            return door.poll_decline(cx);
        }
        if self.held_up {
            return Poll::Pending;
        }
        match ready!(Pin::new(door).poll_next(cx)) {
            Some(Ok(connection)) => {
                self.crowd.admit(connection.into_inner());
                Poll::Ready(Ok(true))
            }
            // For want of descriptors, where this process accepts by itself.
            Some(Err(_)) => {
                self.held_up = true;
                Poll::Pending
            }
            None => Poll::Ready(Ok(false)),
        }
    }
}
