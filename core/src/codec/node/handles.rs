//! The inner acknowledgement of handles: what was sent and not answered yet.

use alloc::collections::VecDeque;

use super::MAX_UNACKED;

/// How often Node sends a refused handle again.
const RESENDS: u8 = 3;

/// Handles on their way, in the order of their sending. Answers come in that order.
///
/// `T` is what a handle is for. Nothing is held back: any number may be on the way, up to
/// [`MAX_UNACKED`].
#[derive(Clone, Debug)]
pub(crate) struct Unacked<T> {
    queue: VecDeque<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    what: T,
    resends_left: u8,
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused<T> {
    /// Nothing was on its way.
    Stray,
    /// Send it again now, behind everything else; it counts as on its way.
    Again(T),
    /// It was not delivered, and is not sent again.
    GivenUp(T),
}

/// There is no room for one more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<T: Clone> Unacked<T> {
    pub(crate) const fn new() -> Self {
        Unacked { queue: VecDeque::new() }
    }

    /// Notes a handle that is sent behind all earlier ones, and is not sent again if refused.
    pub(crate) fn sent_once(&mut self, what: T) -> Result<(), Full> {
        self.push(what, 0)
    }

    /// Notes a handle that is sent behind all earlier ones, and up to three times more if refused.
    pub(crate) fn sent(&mut self, what: T) -> Result<(), Full> {
        self.push(what, RESENDS)
    }

    fn push(&mut self, what: T, resends_left: u8) -> Result<(), Full> {
        if self.queue.len() >= MAX_UNACKED {
            return Err(Full);
        }
        self.queue.push_back(Entry { what, resends_left });
        Ok(())
    }

    /// The oldest one has arrived; `None` if nothing was on its way.
    pub(crate) fn acked(&mut self) -> Option<T> {
        self.queue.pop_front().map(|entry| entry.what)
    }

    /// The oldest one was refused.
    pub(crate) fn refused(&mut self) -> Refused<T> {
        let Some(Entry { what, resends_left }) = self.queue.pop_front() else {
            return Refused::Stray;
        };
        match resends_left.checked_sub(1) {
            None => Refused::GivenUp(what),
            Some(left) => {
                self.queue.push_back(Entry { what: what.clone(), resends_left: left });
                Refused::Again(what)
            }
        }
    }

    /// Notes that the newest one for which `is_it` holds was not sent after all.
    pub(crate) fn unsent(&mut self, is_it: impl Fn(&T) -> bool) {
        if let Some(at) = self.queue.iter().rposition(|entry| is_it(&entry.what)) {
            self.queue.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_sending() {
        let mut unacked = Unacked::new();
        assert_eq!(unacked.sent_once('a'), Ok(()));
        assert_eq!(unacked.sent_once('b'), Ok(()));
        assert_eq!(unacked.acked(), Some('a'));
        assert_eq!(unacked.refused(), Refused::GivenUp('b'));
        assert_eq!(unacked.acked(), None);
        assert_eq!(unacked.refused(), Refused::Stray);
    }

    #[test]
    fn a_refused_handle_is_sent_three_times_more() {
        let mut unacked = Unacked::new();
        assert_eq!(unacked.sent('a'), Ok(()));
        assert_eq!(unacked.sent_once('b'), Ok(()));
        assert_eq!(unacked.refused(), Refused::Again('a'));
        assert_eq!(unacked.acked(), Some('b'), "it went behind the other one");
        assert_eq!(unacked.refused(), Refused::Again('a'));
        assert_eq!(unacked.refused(), Refused::Again('a'));
        assert_eq!(unacked.refused(), Refused::GivenUp('a'));
        assert_eq!(unacked.refused(), Refused::Stray);
    }

    #[test]
    fn unsent_handles_await_no_acknowledgement() {
        let mut unacked = Unacked::new();
        for what in ['a', 'b', 'c'] {
            assert_eq!(unacked.sent(what), Ok(()));
        }
        unacked.unsent(|&what| what == 'b');
        assert_eq!(unacked.acked(), Some('a'));
        assert_eq!(unacked.acked(), Some('c'));
    }

    #[test]
    fn there_is_an_end_to_what_is_on_its_way() {
        let mut unacked = Unacked::new();
        for _ in 0..MAX_UNACKED {
            assert_eq!(unacked.sent(()), Ok(()));
        }
        assert_eq!(unacked.sent(()), Err(Full));
    }
}
