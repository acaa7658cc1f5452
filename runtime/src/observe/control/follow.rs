//! The client's side of a request that is answered with many lines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::client::{Connection, in_words};
use super::{Failed, Followed, Request};

/// The longest line in bytes; what workers print is cut far below that.
const MAX_LINE: u64 = 1024 * 1024;

/// What workers print, line by line.
#[derive(Debug)]
pub struct Follow {
    connection: Connection,
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Connection {
    /// Follows what workers of a slot print, or all workers. Waits up to `patience` for the
    /// primary's answer.
    ///
    /// # Errors
    /// One line that says why there is no answer, or why the primary refused.
    pub fn follow(mut self, slot: Option<u32>, patience: Duration) -> Result<Follow, String> {
        let mut request = serde_json::to_vec(&Request::Logs { slot }).map_err(|e| e.to_string())?;
        request.push(b'\n');
        let stream = self.stream();
        let reader = stream.set_read_timeout(Some(patience)).and_then(|()| stream.try_clone());
        let sent =
            stream.set_write_timeout(Some(patience)).and_then(|()| stream.write_all(&request));
        let reader = BufReader::new(reader.map_err(|error| self.explain(&error))?);
        let mut follow = Follow { connection: self, reader, line: Vec::new() };
        // A primary that turned this client away has closed, but its reason may still be readable.
        match (follow.read_line(), sent) {
            (Ok(()), _) => {}
            (Err(error), Ok(())) | (Err(_), Err(error)) => {
                return Err(follow.connection.explain(&error));
            }
        }
        match serde_json::from_slice::<Failed>(&follow.line) {
            Ok(failed) if !failed.ok => return Err(in_words(&failed)),
            _ => {}
        }
        let waiting = follow.reader.get_ref().set_read_timeout(None);
        waiting.map_err(|error| follow.connection.explain(&error))?;
        Ok(follow)
    }
}

impl Follow {
    /// Waits for the next line, for as long as it takes.
    ///
    /// # Errors
    /// One line that says why nothing more comes, although the primary has not said that it ends.
    pub fn next_line(&mut self) -> Result<Followed<'_>, String> {
        self.read_line().map_err(|error| self.connection.explain(&error))?;
        match serde_json::from_slice(&self.line) {
            Ok(Followed::Failed(failed)) => Err(in_words(&failed)),
            Ok(line) => Ok(line),
            Err(_) => Err(self.connection.explain(&io::ErrorKind::InvalidData.into())),
        }
    }

    fn read_line(&mut self) -> io::Result<()> {
        self.line.clear();
        self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        match self.line.last() {
            Some(b'\n') => Ok(()),
            _ if self.line.len() as u64 == MAX_LINE => Err(io::ErrorKind::InvalidData.into()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
