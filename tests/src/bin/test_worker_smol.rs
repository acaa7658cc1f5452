//! See [`roundel_tests::test_worker`].

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use roundel_smol::{Listener, Worker};
use roundel_tests::test_worker::{self, Api};
use smol::block_on;

struct Smol(Worker);

impl Api for Smol {
    type Listener = Listener;

    fn join() -> io::Result<Self> {
        Worker::join().map(Smol)
    }

    fn suicide_on_panic(&self) {
        self.0.suicide_on_panic();
    }

    fn listen(&mut self, at: Option<&str>) -> io::Result<Listener> {
        match at {
            Some(at) => block_on(self.0.listen(at)),
            None => block_on(self.0.listen_nth(0)),
        }
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<Option<TcpStream>> {
        let Some(taken) = block_on(listener.accept())? else { return Ok(None) };
        let stream = taken.into_tcp_stream()?.into_inner()?;
        stream.set_nonblocking(false)?;
        Ok(Some(stream))
    }

    fn finish(self) -> ExitCode {
        block_on(self.0.finish())
    }
}

fn main() -> io::Result<ExitCode> {
    test_worker::main::<Smol>()
}
