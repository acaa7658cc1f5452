//! One direction of a channel as unix(7) has it: bytes in order, handles on the first byte of a
//! send, a limit to what is under way, and an end.

use std::collections::VecDeque;

/// Bytes and handles under way.
#[derive(Debug)]
pub struct Pipe<H> {
    bytes: VecDeque<u8>,
    /// The sends that `bytes` came by; those without handles run together.
    sends: VecDeque<Sent<H>>,
    /// How many bytes may be under way.
    capacity: usize,
    writer_gone: bool,
    reader_gone: bool,
    /// The reader's peer died with something unread: told once.
    reset: bool,
}

#[derive(Debug)]
struct Sent<H> {
    len: usize,
    handles: Vec<H>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing is there now.
    Empty,
    /// ECONNRESET.
    Reset,
    /// End of file.
    End,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It is full.
    Full,
    /// EPIPE: nobody will read it.
    Broken,
}

impl<H> Pipe<H> {
    /// An empty pipe for so many bytes.
    pub const fn new(capacity: usize) -> Pipe<H> {
        Pipe {
            bytes: VecDeque::new(),
            sends: VecDeque::new(),
            capacity,
            writer_gone: false,
            reader_gone: false,
            reset: false,
        }
    }

    /// Writes what there is room for; with the first byte go all the handles.
    ///
    /// # Errors
    /// [`Unwritten`]: then no handle was taken either.
    pub fn write(
        &mut self,
        bytes: &[u8],
        handles: impl IntoIterator<Item = H>,
    ) -> Result<usize, Unwritten> {
        if self.reader_gone || self.writer_gone {
            return Err(Unwritten::Broken);
        }
        let len = bytes.len().min(self.capacity.saturating_sub(self.bytes.len()));
        if len == 0 {
            return Err(Unwritten::Full);
        }
        self.bytes.extend(&bytes[..len]);
        let handles: Vec<H> = handles.into_iter().collect();
        match self.sends.back_mut() {
            Some(last) if last.handles.is_empty() && handles.is_empty() => last.len += len,
            _ => self.sends.push_back(Sent { len, handles }),
        }
        Ok(len)
    }

    /// One read of at most `max` bytes, which are appended. It never goes past the end of a send
    /// with handles, though bytes before it may come along.
    pub fn read(&mut self, max: usize, bytes: &mut Vec<u8>, handles: &mut Vec<H>) -> Read {
        if self.bytes.is_empty() {
            return if std::mem::take(&mut self.reset) {
                Read::Reset
            } else if self.writer_gone || self.reader_gone {
                Read::End
            } else {
                Read::Empty
            };
        }
        let mut taken = 0;
        while taken < max
            && let Some(first) = self.sends.front_mut()
        {
            let len = first.len.min(max - taken);
            taken += len;
            first.len -= len;
            let laden = !first.handles.is_empty();
            handles.append(&mut first.handles);
            if first.len == 0 {
                self.sends.pop_front();
            }
            if laden {
                break;
            }
        }
        bytes.extend(self.bytes.drain(..taken));
        Read::Bytes(taken)
    }

    /// Nothing more will be written: end of file after what is there.
    pub fn end(&mut self) {
        self.writer_gone = true;
    }

    /// Nobody reads any more: what is there is dropped. True if there was something.
    pub fn abandon(&mut self) -> bool {
        self.reader_gone = true;
        let unread = !self.bytes.is_empty();
        self.bytes.clear();
        self.sends.clear();
        unread
    }

    /// The reader wants nothing that is written from here on: shutdown(2), SHUT_RD.
    pub fn shutdown_read(&mut self) {
        self.reader_gone = true;
    }

    /// The reader is told ECONNRESET before the end.
    pub fn reset(&mut self) {
        self.reset = true;
    }

    /// Whether the writer has ended it.
    pub fn is_ended(&self) -> bool {
        self.writer_gone
    }

    /// Whether a read would bring something, the end included.
    pub fn is_ready(&self) -> bool {
        !self.bytes.is_empty() || self.reset || self.writer_gone || self.reader_gone
    }

    /// Bytes under way.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Lets so many bytes be under way.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pipe: &mut Pipe<u8>, max: usize) -> (String, Vec<u8>, Read) {
        let (mut bytes, mut handles) = (Vec::new(), Vec::new());
        let read = pipe.read(max, &mut bytes, &mut handles);
        (String::from_utf8(bytes).unwrap(), handles, read)
    }

    #[test]
    fn a_read_ends_with_a_laden_send() {
        let mut pipe = Pipe::new(100);
        assert_eq!(pipe.write(b"plain", []), Ok(5));
        assert_eq!(pipe.write(b"laden", [1, 2]), Ok(5));
        assert_eq!(pipe.write(b"after", []), Ok(5));
        assert_eq!(read(&mut pipe, 64), ("plainladen".into(), vec![1, 2], Read::Bytes(10)));
        assert_eq!(read(&mut pipe, 64), ("after".into(), vec![], Read::Bytes(5)));
        assert_eq!(read(&mut pipe, 64).2, Read::Empty);
    }

    #[test]
    fn handles_come_with_the_first_byte() {
        let mut pipe = Pipe::new(100);
        assert_eq!(pipe.write(b"laden", [1]), Ok(5));
        assert_eq!(read(&mut pipe, 2), ("la".into(), vec![1], Read::Bytes(2)));
        assert_eq!(read(&mut pipe, 64), ("den".into(), vec![], Read::Bytes(3)));
    }

    #[test]
    fn a_full_pipe_takes_a_part() {
        let mut pipe: Pipe<u8> = Pipe::new(3);
        assert_eq!(pipe.write(b"laden", [1]), Ok(3));
        assert_eq!(pipe.write(b"en", []), Err(Unwritten::Full));
        read(&mut pipe, 64);
        assert_eq!(pipe.write(b"en", []), Ok(2));
    }

    #[test]
    fn written_bytes_outlive_the_writer() {
        let mut pipe: Pipe<u8> = Pipe::new(100);
        pipe.write(b"last", []).unwrap();
        pipe.reset();
        pipe.end();
        assert_eq!(read(&mut pipe, 64).0, "last");
        assert_eq!(read(&mut pipe, 64).2, Read::Reset);
        assert_eq!(read(&mut pipe, 64).2, Read::End);
    }

    #[test]
    fn a_fence_keeps_what_was_written_before_it() {
        let mut pipe: Pipe<u8> = Pipe::new(100);
        pipe.write(b"before", []).unwrap();
        pipe.shutdown_read();
        assert_eq!(pipe.write(b"after", []), Err(Unwritten::Broken));
        assert_eq!(read(&mut pipe, 64).0, "before");
        assert_eq!(read(&mut pipe, 64).2, Read::End);
    }
}
