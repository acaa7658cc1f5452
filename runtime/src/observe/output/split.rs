//! Bytes of a stream, cut into lines.

/// The longest line in bytes, without its line end. A longer one is cut into pieces.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// Cuts a stream into lines, however its bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// The beginning of a line whose end has not come; at most [`MAX_LINE`] bytes.
    begun: Vec<u8>,
}

impl Splitter {
    /// Takes more of the stream and tells every line that is complete, without its line end. True
    /// comes with a piece of a line that goes on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.take(line, &mut tell);
            tell(&self.begun, false);
            self.begun.clear();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.take(bytes, &mut tell);
    }

    /// Tells what is left: the stream has ended without a line end.
    pub(crate) fn finish(&mut self, tell: impl FnOnce(&[u8], bool)) {
        if !self.begun.is_empty() {
            tell(&self.begun, false);
        }
        self.begun = Vec::new();
    }

    /// Adds bytes of one line, and tells its pieces while it is too long.
    fn take(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(&[u8], bool)) {
        while self.begun.len() + bytes.len() > MAX_LINE {
            let (now, later) = bytes.split_at(MAX_LINE - self.begun.len());
            self.begun.extend_from_slice(now);
            let end = last_boundary(&self.begun);
            let (piece, rest) = self.begun.split_at(end);
            tell(piece, true);
            self.begun = rest.to_vec();
            bytes = later;
        }
        self.begun.extend_from_slice(bytes);
    }
}

/// Where to cut so that no character is split, if it is UTF-8: before a character whose bytes are
/// not all there.
fn last_boundary(bytes: &[u8]) -> usize {
    for back in 1..=3 {
        let Some(at) = bytes.len().checked_sub(back) else { break };
        let Some(byte) = bytes.get(at) else { break };
        let length = match byte {
            0b1111_0000.. => 4,
            0b1110_0000.. => 3,
            0b1100_0000.. => 2,
            // In the middle of a character.
            0b1000_0000.. => continue,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (mut splitter, mut told) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, |line, goes_on| told.push((line.to_vec(), goes_on)));
            assert!(splitter.begun.len() <= MAX_LINE);
        }
        splitter.finish(|line, goes_on| told.push((line.to_vec(), goes_on)));
        told
    }

    /// Numbers that look random, the same in each run.
    fn numbers() -> impl FnMut(usize) -> usize {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        }
    }

    /// Lines of all lengths around the limit, of characters of one to four bytes and of no UTF-8.
    fn stream(next: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..6 {
            let around = [0, 1, 80, MAX_LINE, 2 * MAX_LINE][next(5)];
            let length = (around + next(7)).saturating_sub(3);
            let end = bytes.len() + length;
            while bytes.len() < end {
                let some: [&[u8]; 6] = [
                    b"a",
                    "\u{e9}".as_bytes(),
                    "\u{20ac}".as_bytes(),
                    "\u{1f600}".as_bytes(),
                    b"\xff",
                    b"\x80",
                ];
                bytes.extend_from_slice(some[next(6)]);
            }
            bytes.push(b'\n');
        }
        bytes.truncate(bytes.len() - next(3));
        bytes
    }

    #[test]
    fn any_chunks_give_the_same_lines() {
        let mut next = numbers();
        for _ in 0..60 {
            let bytes = stream(&mut next);
            let whole = split(&[&bytes]);
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            let most = [1, 10, 4096, 100_000][next(4)];
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at((1 + next(most)).min(rest.len()));
                chunks.push(chunk);
                rest = later;
            }
            assert!(split(&chunks) == whole, "chunks of at most {most}");
            // Put together again, they are the stream.
            let mut back = Vec::new();
            for (line, goes_on) in &whole {
                assert!(line.len() <= MAX_LINE && (!goes_on || line.len() > MAX_LINE - 4));
                back.extend_from_slice(line);
                if !goes_on {
                    back.push(b'\n');
                }
            }
            if !bytes.ends_with(b"\n") && !bytes.is_empty() {
                back.pop();
            }
            assert!(back == bytes);
        }
    }

    #[test]
    fn a_line_is_cut_only_if_it_is_too_long() {
        let full = vec![b'x'; MAX_LINE];
        assert_eq!(split(&[&full, b"\n"]), [(full.clone(), false)]);
        assert_eq!(split(&[&full, b"y", b"\n"]), [(full.clone(), true), (b"y".into(), false)]);
        assert_eq!(split(&[b"a\n\nb"]).len(), 3);
        assert_eq!(split(&[b""]), []);
    }

    #[test]
    fn no_character_is_split() {
        for character in ["\u{e9}", "\u{20ac}", "\u{1f600}"] {
            for shift in 0..4 {
                let text = "x".repeat(shift) + &character.repeat(MAX_LINE);
                for (piece, _) in split(&[text.as_bytes()]) {
                    assert!(std::str::from_utf8(&piece).is_ok());
                }
            }
        }
    }
}
