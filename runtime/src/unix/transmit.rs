//! Sends what waits on a channel, and interprets the errors of sendmsg(2).

use nix::errno::Errno;
use roundel_core::Transmit;

use crate::unix::channel::End;
use crate::unix::sys::MAX_HANDLES;

/// The result of one sendmsg(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// How many bytes were sent; the handles went with the first of them.
    Bytes(usize),
    /// The channel is full: continue when it is ready to write.
    Blocked,
    /// Too many descriptors are in transit, or the kernel is out of memory: continue later.
    TooManyRefs,
    /// The other end is closed.
    Closed,
    /// This can never be sent, and none of its bytes were.
    Never(roundel_core::Errno),
}

/// The result of sending everything that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing is left.
    Done,
    /// As [`Sent::Blocked`].
    Blocked,
    /// As [`Sent::TooManyRefs`].
    TooManyRefs,
    /// As [`Sent::Closed`].
    Closed,
}

/// Sends one segment; `resolve` lends the descriptor of a handle, if it is still there.
pub fn transmit<'a, H, E: End>(
    end: &mut E,
    transmit: &Transmit<'_, H>,
    mut resolve: impl FnMut(&H) -> Option<E::Lent<'a>>,
) -> Sent {
    let Some((first, others)) = transmit.handles.split_first() else {
        return outcome(end.send(transmit.bytes, &[]));
    };
    if transmit.handles.len() > MAX_HANDLES {
        return Sent::Never(roundel_core::Errno::EINVAL);
    }
    let Some(first) = resolve(first) else { return Sent::Never(roundel_core::Errno::EBADF) };
    // One place for each handle on the stack, so that nothing is allocated.
    let mut places: [E::Lent<'a>; MAX_HANDLES] = std::array::from_fn(|_| first.clone());
    for (place, handle) in places.iter_mut().skip(1).zip(others) {
        match resolve(handle) {
            Some(resolved) => *place = resolved,
            None => return Sent::Never(roundel_core::Errno::EBADF),
        }
    }
    outcome(end.send(transmit.bytes, &places[..transmit.handles.len()]))
}

fn outcome(sent: Result<usize, roundel_core::Errno>) -> Sent {
    let error = match sent {
        Ok(count) => return Sent::Bytes(count),
        Err(error) => error,
    };
    match Errno::from_raw(error.0) {
        Errno::EAGAIN => Sent::Blocked,
        Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM => Sent::TooManyRefs,
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Sent::Closed,
        _ => Sent::Never(error),
    }
}

#[cfg(test)]
mod tests;
