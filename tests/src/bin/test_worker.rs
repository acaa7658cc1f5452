//! See [`roundel_tests::test_worker`].

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use roundel_mio::{Listener, Worker};
use roundel_tests::test_worker::{self, Api};

struct Mio(Worker);

impl Api for Mio {
    type Listener = Listener;

    fn join() -> io::Result<Self> {
        Worker::join().map(Mio)
    }

    fn suicide_on_panic(&self) {
        self.0.suicide_on_panic();
    }

    fn listen(&mut self, at: Option<&str>) -> io::Result<Listener> {
        match at {
            Some(at) => self.0.listen(at),
            None => self.0.listen_nth(0),
        }
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<Option<TcpStream>> {
        self.0.accept(listener)?.map(|taken| taken.into_tcp_stream()).transpose()
    }

    fn finish(self) -> ExitCode {
        self.0.finish()
    }
}

fn main() -> io::Result<ExitCode> {
    test_worker::main::<Mio>()
}
