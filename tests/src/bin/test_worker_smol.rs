//! See [`roundel_tests::programs::test_worker`].

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use roundel_smol::{Listener, Worker};
use roundel_tests::programs::test_worker::{self, Api};
use smol::{block_on, future};

struct Smol(Worker);

impl Api for Smol {
    type Listener = Listener;

    fn join() -> io::Result<Self> {
        Worker::join().map(Smol)
    }

    fn replace_on_panic(&self) {
        self.0.replace_on_panic();
    }

    fn listen(&mut self, at: &str) -> io::Result<Listener> {
        block_on(self.0.listen(at))
    }

    fn listen_nth(&mut self, nth: u32) -> io::Result<Listener> {
        block_on(self.0.listen_nth(nth))
    }

    fn accept(&mut self, listeners: &[Listener]) -> io::Result<Option<TcpStream>> {
        let taken = block_on(async {
            match listeners {
                [one, two] => future::race(one.accept(), two.accept()).await,
                _ => listeners[0].accept().await,
            }
        })?;
        let Some(taken) = taken else { return Ok(None) };
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
