//! Sending what a channel has to say, and what an error of sendmsg(2) says of the channel.

use nix::errno::Errno;
use roundel_core::Transmit;

use crate::unix::channel::End;
use crate::unix::sys::MAX_HANDLES;

/// How one sendmsg(2) went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes went, and the handles with the first of them.
    Bytes(usize),
    /// The channel is full: go on when it is ready to write.
    Blocked,
    /// Too many descriptors are under way, or the kernel is out of memory: go on later.
    TooManyRefs,
    /// The other end is closed.
    Closed,
    /// This can never go, and none of its bytes went.
    Never(roundel_core::Errno),
}

/// How the sending of everything that waited ended.
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

/// Sends it; `resolve` lends the descriptor behind a handle, if it is still there.
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
    // A place for each, so that nothing is allocated.
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
