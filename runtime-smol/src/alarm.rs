//! One timer for the earliest of many deadlines.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::Timer;

/// A timer that is set anew only for a deadline earlier than what it is set for: setting it wakes
/// the thread that waits. So it may go off too early, never too late; whoever waits judges by the
/// clock.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Timer,
    set_for: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm { timer: Timer::never(), set_for: None }
    }

    /// Whether it went off. If not, the task is woken when it does.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(at) = deadline
            && self.set_for.is_none_or(|set_for| at < set_for)
        {
            self.timer.set_at(at);
            self.set_for = Some(at);
        }
        if self.set_for.is_none() || Pin::new(&mut self.timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.set_for = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_goes_off_for_the_earliest() {
        let mut alarm = Alarm::new();
        let begun = Instant::now();
        let (late, early) = (Duration::from_secs(60), Duration::from_millis(20));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(alarm.poll(None, cx).is_pending());
        assert!(alarm.poll(Some(begun + late), cx).is_pending());
        async_io::block_on(poll_fn(|cx| alarm.poll(Some(begun + early), cx)));
        let took = begun.elapsed();
        assert!(took >= early && took < late / 2, "{took:?}");
    }
}
