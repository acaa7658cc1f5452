//! Lines with the handles that came along.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::DecodeError;

/// What stays allocated for the next lines.
const KEEP: usize = 64 * 1024;

/// Cuts a stream into lines, however its bytes come, and knows which handle belongs to which line.
///
/// A send with a handle carries bytes of one line alone, from its first byte on; and one read
/// never goes past the end of such a send, though bytes before it may come in the same read
/// (unix(7)). So the handle of a read belongs to the line that its last byte is part of, which
/// must begin in that read.
#[derive(Clone, Debug)]
pub(crate) struct Lines<T> {
    max: usize,
    buffer: Vec<u8>,
    /// What of `buffer` is used up.
    used: usize,
    /// What of `buffer` is known to have no end of a line: a long line is not looked through again.
    scanned: usize,
    /// The position of the start of `buffer` in the stream.
    offset: u64,
    /// Reads that brought a handle, in order.
    laden: VecDeque<(Range<u64>, T)>,
    error: Option<DecodeError>,
}

/// A line without its end, and what came with it.
#[derive(Debug)]
pub(crate) struct Cut<'a, T> {
    pub(crate) line: &'a [u8],
    pub(crate) handle: Option<T>,
}

impl<T> Lines<T> {
    pub(crate) const fn new(max: usize) -> Self {
        Lines {
            max,
            buffer: Vec::new(),
            used: 0,
            scanned: 0,
            offset: 0,
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
    pub(crate) fn poll(&mut self) -> Result<Option<Cut<'_, T>>, DecodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(length) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.buffer.len();
            return if self.scanned - self.used > self.max {
                Err(self.fail(DecodeError::FrameTooLong))
            } else {
                Ok(None)
            };
        };
        let (start, end) = (self.used, self.scanned + length);
        self.used = end + 1;
        self.scanned = self.used;
        if end - start > self.max {
            return Err(self.fail(DecodeError::FrameTooLong));
        }
        let range = self.offset + start as u64..self.offset + self.used as u64;
        let handle = match self.laden.front() {
            // The line ends before the read does: its handle belongs to a later one.
            Some((read, _)) if read.end > range.end => None,
            Some((read, _)) if range.start < read.start => {
                return Err(self.fail(DecodeError::UnexpectedHandles));
            }
            _ => self.laden.pop_front().map(|(_, handle)| handle),
        };
        if self.laden.front().is_some_and(|(read, _)| read.end <= range.end) {
            return Err(self.fail(DecodeError::UnexpectedHandles));
        }
        Ok(Some(Cut { line: self.buffer.get(start..end).unwrap_or_default(), handle }))
    }

    /// Whether an unfinished line is there.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.error.is_none() && self.used < self.buffer.len()
    }

    /// Ends the stream with this error; what is left of it is dropped.
    pub(crate) fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.error = Some(error);
        self.buffer = Vec::new();
        self.laden.clear();
        self.used = 0;
        self.scanned = 0;
        error
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn drain(lines: &mut Lines<u32>) -> Vec<(String, Option<u32>)> {
        core::iter::from_fn(|| {
            let Cut { line, handle } = lines.poll().unwrap()?;
            Some((core::str::from_utf8(line).unwrap().to_string(), handle))
        })
        .collect()
    }

    #[test]
    fn a_handle_belongs_to_the_line_of_the_last_byte() {
        let mut lines = Lines::new(100);
        lines.feed(b"one\ntwo\nlad", Some(7));
        assert_eq!(drain(&mut lines), [("one".to_string(), None), ("two".to_string(), None)]);
        assert!(lines.is_mid_line());
        lines.feed(b"en\n", None);
        assert_eq!(drain(&mut lines), [("laden".to_string(), Some(7))]);
        lines.feed(b"plain\nladen\n", Some(8));
        assert_eq!(
            drain(&mut lines),
            [("plain".to_string(), None), ("laden".to_string(), Some(8))]
        );
        assert!(!lines.is_mid_line());
    }

    #[test]
    fn a_handle_in_the_middle_of_a_line_is_an_error() {
        let mut lines = Lines::new(100);
        lines.feed(b"beg", None);
        lines.feed(b"un", Some(7));
        lines.feed(b"\n", None);
        assert_eq!(lines.poll().unwrap_err(), DecodeError::UnexpectedHandles);
        assert_eq!(lines.poll().unwrap_err(), DecodeError::UnexpectedHandles, "for good");
        let mut lines = Lines::new(100);
        lines.feed(b"twice", Some(7));
        lines.feed(b"\n", Some(8));
        assert_eq!(lines.poll().unwrap_err(), DecodeError::UnexpectedHandles);
    }

    #[test]
    fn a_long_line_is_an_error_before_its_end_is_there() {
        let mut lines = Lines::<u32>::new(4);
        lines.feed(b"1234", None);
        assert_eq!(drain(&mut lines).len(), 0);
        lines.feed(b"\n", None);
        assert_eq!(drain(&mut lines).len(), 1);
        lines.feed(b"12345", None);
        assert_eq!(lines.poll().unwrap_err(), DecodeError::FrameTooLong);
        lines.feed(&[b'x'; 1_000], None);
        assert!(lines.buffer.is_empty(), "nothing is kept after an error");
        let mut lines = Lines::<u32>::new(4);
        lines.feed(b"12345\n", None);
        assert_eq!(lines.poll().unwrap_err(), DecodeError::FrameTooLong);
    }

    #[test]
    fn the_memory_of_a_long_line_is_given_back() {
        for size in [2 * KEEP, KEEP + KEEP / 2] {
            let mut lines = Lines { buffer: Vec::with_capacity(size), ..Lines::<u32>::new(9) };
            lines.feed(b"x\n", None);
            assert_eq!((drain(&mut lines).len(), lines.buffer.capacity()), (1, size), "no more");
        }
        let mut lines = Lines::<u32>::new(1 << 20);
        lines.feed(&[b'x'; 3 * KEEP], None);
        assert_eq!(drain(&mut lines).len(), 0);
        lines.feed(b"\n", None);
        let all = drain(&mut lines);
        assert_eq!((all.len(), all[0].0.len()), (1, 3 * KEEP));
        assert!(lines.buffer.capacity() > 2 * KEEP);
        lines.feed(b"y", None);
        assert_eq!(lines.buffer.capacity(), KEEP);
    }

    proptest! {
        /// What was sent comes out, whatever the reads were: each laden send ends a read.
        #[test]
        fn cuts_do_not_matter(
            sends in prop::collection::vec(("[a-z]{0,9}", any::<bool>()), 1..20),
            cuts in prop::collection::vec(1_usize..7, 1..200),
        ) {
            let mut cuts = cuts.into_iter().cycle();
            let mut lines = Lines::new(100);
            let mut got = Vec::new();
            let mut wanted = Vec::new();
            // Bytes that were sent and not read yet; a laden send ends what one read can take.
            let mut waiting: Vec<u8> = vec![];
            let read = |bytes: &mut Vec<u8>, handle, lines: &mut Lines<u32>| {
                lines.feed(bytes, handle);
                bytes.clear();
                drain(lines)
            };
            for (number, (text, laden)) in sends.into_iter().enumerate() {
                let handle = laden.then_some(number as u32);
                wanted.push((text.clone(), handle));
                let line = [text.as_bytes(), b"\n"].concat();
                if laden {
                    // The first byte takes the handle, however much of the line comes with it.
                    let first = cuts.next().unwrap_or(1).min(line.len());
                    waiting.extend(&line[..first]);
                    got.extend(read(&mut waiting, handle, &mut lines));
                    waiting.extend(&line[first..]);
                } else {
                    waiting.extend(&line);
                }
                while waiting.len() > 8 {
                    let mut part: Vec<u8> =
                        waiting.drain(..cuts.next().unwrap_or(1)).collect();
                    got.extend(read(&mut part, None, &mut lines));
                }
            }
            got.extend(read(&mut waiting, None, &mut lines));
            prop_assert_eq!(got, wanted);
        }
    }
}
