//! Lines with the handles that came along.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::opening::Opening;
use crate::DecodeError;

/// What stays allocated for the next lines.
const KEEP: usize = 64 * 1024;

/// Cuts a stream into lines, however its bytes come, and knows which handle belongs to which line.
///
/// A send with a handle carries bytes of one line alone, from its first byte on; and one read
/// never goes past the end of such a send, though bytes before it may come in the same read
/// (unix(7)). So the handle of a read belongs to the line that its last byte is part of, which
/// must begin in that read. A line has one handle at most: a second one is an error before the
/// line ends, so that no more than one handle waits for its line.
///
/// Only the first bytes of a line that is longer than allowed are kept.
#[derive(Clone, Debug)]
pub(crate) struct Lines<T> {
    max: usize,
    buffer: Vec<u8>,
    /// How much of `buffer` is used up.
    used: usize,
    /// How much of `buffer` is known to have no line end, so that a long line is not searched
    /// again.
    scanned: usize,
    /// The position of the start of `buffer` in the stream.
    offset: u64,
    /// Set if the unfinished line is too long: where it began, and with what. The rest passes
    /// through `buffer`, read by read.
    long: Option<(u64, Opening)>,
    /// Reads that brought a handle, in order.
    laden: VecDeque<(Range<u64>, T)>,
    error: Option<DecodeError>,
}

/// A line, and what came with it.
#[derive(Debug)]
pub(crate) struct Cut<'a, T> {
    pub(crate) piece: Piece<'a>,
    pub(crate) handle: Option<T>,
}

/// A line without its end.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Line(&'a [u8]),
    /// It is longer than allowed, and was dropped.
    Long {
        opening: Opening,
        length: u64,
    },
}

impl Piece<'_> {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Piece::Line(line) => line.len() as u64,
            Piece::Long { length, .. } => *length,
        }
    }
}

impl<T> Lines<T> {
    pub(crate) const fn new(max: usize) -> Self {
        Lines {
            max,
            buffer: Vec::new(),
            used: 0,
            scanned: 0,
            offset: 0,
            long: None,
            laden: VecDeque::new(),
            error: None,
        }
    }

    /// Takes in what one read brought. Poll until nothing comes before feeding more.
    pub(crate) fn feed(&mut self, bytes: &[u8], handle: Option<T>) {
        if self.error.is_some() {
            return;
        }
        self.buffer.drain(..self.used);
        self.offset += self.used as u64;
        self.scanned -= self.used;
        self.used = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * KEEP {
            self.buffer = Vec::with_capacity(KEEP);
        }
        let start = self.offset + self.buffer.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if let Some(handle) = handle {
            self.laden.push_back((start..start + bytes.len() as u64, handle));
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// Every later call returns the error again: [`DecodeError::TooManyHandles`] for a second
    /// handle on a line, [`DecodeError::UnexpectedHandles`] for one that comes in its middle, and
    /// [`DecodeError::FrameTooLong`] for a line of the cluster's that is longer than allowed.
    pub(crate) fn poll(&mut self) -> Result<Option<Cut<'_, T>>, DecodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let start = self.long.map_or(self.offset + self.used as u64, |(start, _)| start);
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(length) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.buffer.len();
            let end = self.offset + self.scanned as u64;
            self.first_handle(start..end)?;
            self.let_go_if_long(start..end)?;
            return Ok(None);
        };
        let (from, to) = (self.used, self.scanned + length);
        let end = self.offset + to as u64;
        self.used = to + 1;
        self.scanned = self.used;
        if self.first_handle(start..end + 1)?.is_some_and(|first| first > start) {
            return Err(self.fail(DecodeError::UnexpectedHandles));
        }
        let handle = match self.laden.front() {
            // The line ends before the read does: its handle belongs to a later one.
            Some((read, _)) if read.end > end + 1 => None,
            _ => self.laden.pop_front().map(|(_, handle)| handle),
        };
        if end - start > self.max as u64 {
            let opening = self.opening(from)?;
            self.long = None;
            let piece = Piece::Long { opening, length: end - start };
            return Ok(Some(Cut { piece, handle }));
        }
        let piece = Piece::Line(self.buffer.get(from..to).unwrap_or_default());
        Ok(Some(Cut { piece, handle }))
    }

    /// Where the read began that brought the handle of the line so far: one at most.
    fn first_handle(&mut self, line: Range<u64>) -> Result<Option<u64>, DecodeError> {
        let mut of_line = self.laden.iter().take_while(|(read, _)| read.end <= line.end);
        let first = of_line.next().map(|(read, _)| read.start);
        match of_line.next() {
            Some(_) => Err(self.fail(DecodeError::TooManyHandles)),
            None => Ok(first),
        }
    }

    /// Drops the bytes of an unfinished line that is too long.
    fn let_go_if_long(&mut self, line: Range<u64>) -> Result<(), DecodeError> {
        if line.end - line.start <= self.max as u64 {
            return Ok(());
        }
        if self.long.is_none() {
            self.long = Some((line.start, self.opening(self.used)?));
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.offset = line.end;
        self.used = 0;
        self.scanned = 0;
        Ok(())
    }

    /// What a line that is too long begins with. The cluster's own are never that long.
    fn opening(&mut self, from: usize) -> Result<Opening, DecodeError> {
        let opening = match self.long {
            Some((_, opening)) => opening,
            None => Opening::of(self.buffer.get(from..).unwrap_or_default()),
        };
        match opening {
            Opening::Cluster => Err(self.fail(DecodeError::FrameTooLong)),
            Opening::Handle | Opening::Program => Ok(opening),
        }
    }

    /// Whether an unfinished line is there.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.error.is_none() && (self.long.is_some() || self.used < self.buffer.len())
    }

    /// Ends the stream with this error; what is left of it is dropped.
    pub(crate) fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.error = Some(error);
        self.buffer = Vec::new();
        self.laden.clear();
        self.long = None;
        self.used = 0;
        self.scanned = 0;
        error
    }
}

#[cfg(test)]
mod tests;
