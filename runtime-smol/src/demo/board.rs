//! What the tasks of a demo worker share: how many clients there are, until when each may take,
//! and whether the worker leaves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use roundel_runtime::demo::MAX_CLIENTS;

use crate::alarm::Alarm;

#[derive(Debug, Default)]
pub(super) struct Board {
    last: Cell<u64>,
    clients: Cell<usize>,
    is_leaving: Cell<bool>,
    /// All clients that wait.
    deadlines: RefCell<BTreeMap<(Instant, u64), Waker>>,
    /// The task that keeps the time, and what it waits for.
    clock: RefCell<Option<(Waker, Option<Instant>)>>,
    /// Who waits for a client to go.
    departures: RefCell<Vec<Waker>>,
}

impl Board {
    pub(super) fn is_full(&self) -> bool {
        self.clients.get() >= MAX_CLIENTS
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// The worker is on its way out: every client's task has a look.
    pub(super) fn leave(&self) {
        if self.is_leaving.replace(true) {
            return;
        }
        for waker in self.deadlines.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Wakes each client at its deadline, for ever.
    pub(super) async fn keep_time(&self) {
        let mut alarm = Alarm::new();
        poll_fn(|cx| self.poll_time(&mut alarm, cx)).await
    }

    fn poll_time(&self, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadlines = self.deadlines.borrow();
            let now = Instant::now();
            for (_, waker) in deadlines.range(..=(now, u64::MAX)) {
                waker.wake_by_ref();
            }
            let mut later = deadlines.range((now, u64::MAX)..);
            let next = later.next().map(|((at, _), _)| *at);
            *self.clock.borrow_mut() = Some((cx.waker().clone(), next));
            if alarm.poll(next, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Waits until a client goes.
    pub(super) async fn departure(&self) {
        let before = self.clients.get();
        self.until(|clients| clients < before).await;
    }

    /// Waits until no client is there.
    pub(super) async fn empty(&self) {
        self.until(|clients| clients == 0).await;
    }

    async fn until(&self, is_so: impl Fn(usize) -> bool) {
        poll_fn(|cx| {
            if is_so(self.clients.get()) {
                return Poll::Ready(());
            }
            self.departures.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A client's place on the board, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    board: Rc<Board>,
    id: u64,
    noted: Option<Instant>,
}

impl Place {
    pub(super) fn new(board: &Rc<Board>) -> Place {
        board.clients.set(board.clients.get() + 1);
        board.last.set(board.last.get() + 1);
        Place { board: Rc::clone(board), id: board.last.get(), noted: None }
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Has a task woken at this deadline, and when the worker leaves.
    pub(super) fn note(&mut self, deadline: Instant, waker: &Waker) {
        if self.noted != Some(deadline) {
            self.erase();
        }
        let mut deadlines = self.board.deadlines.borrow_mut();
        deadlines.insert((deadline, self.id), waker.clone());
        self.noted = Some(deadline);
        if let Some((clock, next)) = &*self.board.clock.borrow()
            && next.is_none_or(|next| deadline < next)
        {
            clock.wake_by_ref();
        }
    }

    fn erase(&mut self) {
        if let Some(noted) = self.noted.take() {
            self.board.deadlines.borrow_mut().remove(&(noted, self.id));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.erase();
        self.board.clients.set(self.board.clients.get() - 1);
        self.board.departures.take().into_iter().for_each(Waker::wake);
    }
}
