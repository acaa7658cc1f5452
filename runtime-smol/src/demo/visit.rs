//! One client's stay.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::Async;
use roundel_runtime::demo::{Client, Identity, Next};
use roundel_runtime::worker::Connection;
use smol::future::yield_now;

use super::board::{Board, Place};

pub(super) struct Visit {
    /// Made when there is first something to wait for. Goes before the connection does.
    watch: Option<Async<Arc<Connection>>>,
    client: Client,
    who: Identity,
    place: Place,
    is_hurried: bool,
    next: Next,
}

/// What a client's task has waited for.
enum Woken {
    Ready,
    Deadline,
    Leaving,
}

impl Visit {
    /// Serves a client as far as possible at once. `None` if that was all.
    pub(super) fn begin(client: Client, who: Identity, board: &Rc<Board>) -> Option<Visit> {
        let place = Place::new(board);
        let mut visit =
            Visit { watch: None, client, who, place, is_hurried: false, next: Next::Stay };
        visit.hurry();
        visit.act(Client::advance);
        (visit.next != Next::Close).then_some(visit)
    }

    /// Serves it to its end.
    pub(super) async fn go_on(mut self) {
        loop {
            match self.next {
                Next::Close => return,
                Next::Again => {
                    yield_now().await;
                    self.act(Client::advance);
                }
                Next::Stay => match poll_fn(|cx| self.poll_wait(cx)).await {
                    Ok(Woken::Ready) => self.act(Client::advance),
                    Ok(Woken::Deadline) => self.act(Client::on_deadline),
                    Ok(Woken::Leaving) => {
                        self.hurry();
                        if self.client.is_done() {
                            return;
                        }
                    }
                    // It can't be watched.
                    Err(_) => return,
                },
            }
        }
    }

    /// Does something that may panic: then the client is gone, and the worker on its way out.
    fn act(&mut self, act: fn(&mut Client, Identity, bool, Instant) -> Next) {
        let is_leaving = self.place.board().is_leaving();
        let (client, who) = (&mut self.client, self.who);
        let acted = catch_unwind(AssertUnwindSafe(|| act(client, who, is_leaving, Instant::now())));
        self.next = acted.unwrap_or(Next::Close);
    }

    fn hurry(&mut self) {
        if self.place.board().is_leaving() && !self.is_hurried {
            self.is_hurried = true;
            self.client.hurry(Instant::now());
        }
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Woken>> {
        if self.place.board().is_leaving() && !self.is_hurried {
            return Poll::Ready(Ok(Woken::Leaving));
        }
        if self.client.deadline() <= Instant::now() {
            return Poll::Ready(Ok(Woken::Deadline));
        }
        let watch = match &mut self.watch {
            Some(watch) => watch,
            empty => empty.insert(Async::new_nonblocking(Arc::clone(self.client.connection()))?),
        };
        if self.client.wants_write()
            && let Poll::Ready(ready) = watch.poll_writable(cx)
        {
            return Poll::Ready(ready.map(|()| Woken::Ready));
        }
        if self.client.wants_read()
            && let Poll::Ready(ready) = watch.poll_readable(cx)
        {
            return Poll::Ready(ready.map(|()| Woken::Ready));
        }
        self.place.note(self.client.deadline(), cx.waker());
        Poll::Pending
    }
}
