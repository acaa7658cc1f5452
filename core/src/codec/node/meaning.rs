//! What a line means, free of the line's bytes: which lines there are, and which of them come with
//! a handle, is the same for both sides.

use alloc::string::String;
use alloc::vec::Vec;

use super::handle_kind::HandleKind;
use super::lines::Piece;
use super::parse::{self, Cluster, Line, Message};
use super::skipped::Skipped;
use super::write;
use crate::DecodeError;

/// What a line says. `M` is what a cluster message means to this side.
pub(crate) enum Said<M> {
    Acked,
    Refused,
    /// A `NODE_HANDLE` without its handle.
    Unladen,
    /// `NODE_HANDLE`: what its handle is, if that is known, and the wrapped message.
    Laden(Option<HandleKind>, Meant<M>),
    Message(Meant<M>),
}

/// What a message means, wrapped or not.
pub(crate) enum Meant<M> {
    Nothing,
    User(String),
    Skipped(Skipped),
    /// It wants this line as its answer.
    Answer(Vec<u8>),
    Cluster(M),
}

/// Reads a line, with which a handle came or not. `cluster` gives what a cluster message means to
/// this side; `None` if nothing.
pub(crate) fn read<M>(
    piece: &Piece<'_>,
    laden: bool,
    cluster: impl FnOnce(&Cluster<'_>) -> Option<M>,
) -> Result<Said<M>, DecodeError> {
    Ok(match parse::piece(piece)? {
        Line::HandleAck => Said::Acked,
        Line::HandleNack => Said::Refused,
        Line::Plain(_) if laden => return Err(DecodeError::UnexpectedHandles),
        Line::Plain(msg) => Said::Message(own(msg, cluster)),
        Line::Laden(kind, msg) if laden => Said::Laden(kind, own(msg, cluster)),
        Line::Laden(..) => Said::Unladen,
    })
}

fn own<M>(msg: Message<'_>, cluster: impl FnOnce(&Cluster<'_>) -> Option<M>) -> Meant<M> {
    match msg {
        Message::Cluster(msg) => cluster(&msg).map_or(Meant::Nothing, Meant::Cluster),
        Message::User(json) => Meant::User(String::from(json)),
        Message::Skipped(why) => Meant::Skipped(why),
        // Connections that a program sends are closed at once, so none is ever left.
        Message::NotifyClose(key) => Meant::Answer(write::all_closed(key)),
        Message::GetCount(key) => Meant::Answer(write::none_left(key)),
        Message::Unknown => Meant::Nothing,
    }
}
