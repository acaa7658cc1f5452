//! A worker's channel and its socket: what the primary reads and sends in a turn.

use std::io;

use roundel_core::{
    Attach, BYTES_PER_TURN, ChannelEvent, Codec, Config, MESSAGES_PER_TURN, READS_PER_TURN,
    WorkerChannel,
};

use crate::primary::host;
use crate::unix::channel::{End, NODE_ROOM};
use crate::unix::transmit::{Flush, Sent, transmit};

/// How far a channel was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// Nothing more is there, or reading on is useless before something is sent. In both cases
    /// readiness will show when to go on.
    Wait,
    /// The budget ran out.
    More,
    /// The channel has ended.
    Closed,
}

/// A new primary's end of a channel, on this machine; `wanted` is the codec that the worker must
/// speak, `None` allows any.
pub fn new(wanted: Option<Codec>, config: &Config) -> WorkerChannel {
    WorkerChannel::new(wanted, config, host::HOST)
}

/// Reads within the budget of a turn and reports what happened, in order.
pub fn read(
    channel: &mut WorkerChannel,
    end: &mut impl End,
    buffer: &mut [u8],
    mut tell: impl FnMut(ChannelEvent),
) -> ReadState {
    let (mut messages, mut bytes, mut reads) = (0, 0, 0);
    loop {
        while messages < MESSAGES_PER_TURN
            && let Some(event) = channel.poll()
        {
            messages += u32::from(!matches!(event, ChannelEvent::Hello(_)));
            tell(event);
        }
        if messages >= MESSAGES_PER_TURN {
            return ReadState::More;
        }
        if !channel.wants_read() {
            return ReadState::Wait;
        }
        if bytes >= BYTES_PER_TURN || reads >= READS_PER_TURN {
            return ReadState::More;
        }
        reads += 1;
        match receive(channel, end, buffer) {
            Ok(0) => return end_of_file(channel, tell),
            Ok(count) => bytes += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                channel.would_block();
                channel.poll().into_iter().for_each(tell);
                return ReadState::Wait;
            }
            // The other end died with unread data: end of file comes next (unix(7)).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(_) => return end_of_file(channel, tell),
        }
    }
}

fn end_of_file(channel: &mut WorkerChannel, mut tell: impl FnMut(ChannelEvent)) -> ReadState {
    channel.end();
    while let Some(event) = channel.poll() {
        tell(event);
    }
    ReadState::Closed
}

/// Reads once; handles that come along are closed at once.
fn receive(
    channel: &mut WorkerChannel,
    end: &mut impl End,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut handles = Vec::new();
    let count = match channel.wants_handles() {
        true => end.recv_handles(buffer, NODE_ROOM, &mut handles)?,
        false => end.recv(buffer)?,
    };
    channel.feed(&buffer[..count], handles.len());
    Ok(count)
}

/// Sends what can be sent now, and reports what can never be sent.
pub fn flush<'a, E: End>(
    channel: &mut WorkerChannel,
    end: &mut E,
    mut resolve: impl FnMut(&Attach) -> Option<E::Lent<'a>>,
    mut tell: impl FnMut(ChannelEvent),
) -> Flush {
    let flush = loop {
        let Some(next) = channel.poll_transmit() else { break Flush::Done };
        match transmit(end, &next, &mut resolve) {
            Sent::Bytes(count) => channel.sent(count),
            Sent::Blocked => break Flush::Blocked,
            Sent::TooManyRefs => break Flush::TooManyRefs,
            Sent::Closed => {
                channel.hung_up();
                break Flush::Closed;
            }
            Sent::Never(errno) => channel.not_sent(errno),
        }
    };
    while let Some(event) = channel.poll_unsent() {
        tell(event);
    }
    flush
}

/// Shuts down the receiving side: what the worker wrote before is still read, then end of file.
pub fn shutdown_read(channel: &mut WorkerChannel, end: &mut impl End) {
    channel.read_was_shut();
    end.shutdown_read();
}

#[cfg(test)]
mod tests;
