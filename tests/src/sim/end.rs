//! An end of a simulated channel, as the runtime's link and outbox want it.

use std::io;

use nix::libc;
use roundel_core::Errno;
use roundel_runtime::unix::channel::End;

use super::pipe::{Pipe, Read, Unwritten};
use super::socket::Handle;

/// What befalls the next send with handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// ETOOMANYREFS.
    TooManyRefs,
    /// An error that is about the message.
    Fails,
}

/// An end, for one turn.
pub struct PipeEnd<'a> {
    /// What the other end writes.
    pub from: &'a mut Pipe<Handle>,
    /// What the other end reads.
    pub to: &'a mut Pipe<Handle>,
    /// How many bytes come in one read; without it, nothing can be read.
    pub size: Option<&'a mut dyn FnMut() -> usize>,
    /// So many more may be read; then it is as if nothing were there.
    pub budget: usize,
    /// What befalls the next send with handles.
    pub trouble: Option<&'a mut Option<Trouble>>,
    /// The last write was a short one.
    pub is_cut: bool,
}

impl<'a> PipeEnd<'a> {
    /// An end to write to.
    pub fn new(from: &'a mut Pipe<Handle>, to: &'a mut Pipe<Handle>) -> PipeEnd<'a> {
        PipeEnd { from, to, size: None, budget: 0, trouble: None, is_cut: false }
    }

    fn read(&mut self, buffer: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<usize> {
        let size = self.size.as_mut().map_or(0, |size| size());
        let most = size.min(self.budget).min(buffer.len());
        if most == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::new();
        match self.from.read(most, &mut bytes, handles) {
            Read::Bytes(count) => {
                buffer[..count].copy_from_slice(&bytes);
                self.budget -= count;
                Ok(count)
            }
            Read::Empty => Err(io::ErrorKind::WouldBlock.into()),
            Read::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Read::End => Ok(0),
        }
    }
}

impl End for PipeEnd<'_> {
    type Handle = Handle;
    type Lent<'a> = Handle;

    /// Without room for them the kernel discards handles.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer, &mut Vec::new())
    }

    fn recv_handles(
        &mut self,
        buffer: &mut [u8],
        room: usize,
        handles: &mut Vec<Handle>,
    ) -> io::Result<usize> {
        let mut came = Vec::new();
        let count = self.read(buffer, &mut came)?;
        handles.extend(came.into_iter().take(room));
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8], handles: &[Handle]) -> Result<usize, Errno> {
        if !handles.is_empty() {
            match self.trouble.as_mut().and_then(|trouble| trouble.take()) {
                None => {}
                Some(Trouble::TooManyRefs) => return Err(Errno(libc::ETOOMANYREFS)),
                Some(Trouble::Fails) => return Err(Errno::EINVAL),
            }
        }
        match self.to.write(bytes, handles.iter().cloned()) {
            Ok(count) => {
                self.is_cut = count < bytes.len();
                Ok(count)
            }
            Err(Unwritten::Full) => Err(Errno::EAGAIN),
            Err(Unwritten::Broken) => Err(Errno(libc::EPIPE)),
        }
    }

    fn shutdown_read(&mut self) {
        self.from.shutdown_read();
    }
}
