//! See [`roundel_tests::programs::test_worker`].

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use roundel_mio::{Listener, Worker};
use roundel_tests::programs::test_worker::{self, Api};

struct Mio(Worker);

impl Api for Mio {
    type Listener = Listener;

    fn join() -> io::Result<Self> {
        Worker::join().map(Mio)
    }

    fn replace_on_panic(&self) {
        self.0.replace_on_panic();
    }

    fn listen(&mut self, at: &str) -> io::Result<Listener> {
        self.0.listen(at)
    }

    fn listen_nth(&mut self, nth: u32) -> io::Result<Listener> {
        self.0.listen_nth(nth)
    }

    fn accept(&mut self, listeners: &[Listener]) -> io::Result<Option<TcpStream>> {
        self.0.accept_any(listeners)?.map(|(_, taken)| taken.into_tcp_stream()).transpose()
    }

    fn finish(self) -> ExitCode {
        self.0.finish()
    }
}

fn main() -> io::Result<ExitCode> {
    test_worker::main::<Mio>()
}
