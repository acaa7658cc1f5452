//! See [`roundel_tests::programs::test_worker`].

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use mio::{Events, Interest, Poll, Token};
use roundel_mio::{Listener, Worker};
use roundel_tests::programs::test_worker::{self, Api};

/// Waits at one listener in the call for that, at more of them in a `Poll` of its own.
struct Mio {
    worker: Worker,
    poll: Option<Poll>,
}

impl Mio {
    fn accept_any(&mut self, listeners: &[Listener]) -> io::Result<Option<TcpStream>> {
        let poll = match &mut self.poll {
            Some(poll) => poll,
            empty => {
                let poll = Poll::new()?;
                poll.registry().register(&mut self.worker, Token(0), Interest::READABLE)?;
                empty.insert(poll)
            }
        };
        loop {
            match self.worker.try_accept_any(listeners) {
                Ok((_, taken)) => return taken.into_tcp_stream().map(Some),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if self.worker.is_drained() => return Ok(None),
                Err(_) => {}
            }
            match poll.poll(&mut Events::with_capacity(16), None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}

impl Api for Mio {
    type Listener = Listener;

    fn join() -> io::Result<Self> {
        Ok(Mio { worker: Worker::join()?, poll: None })
    }

    fn replace_on_panic(&self) {
        self.worker.replace_on_panic();
    }

    fn listen(&mut self, at: &str) -> io::Result<Listener> {
        self.worker.listen(at)
    }

    fn listen_nth(&mut self, nth: u32) -> io::Result<Listener> {
        self.worker.listen_nth(nth)
    }

    fn accept(&mut self, listeners: &[Listener]) -> io::Result<Option<TcpStream>> {
        match listeners {
            [one] => one.accept()?.map(|taken| taken.into_tcp_stream()).transpose(),
            several => self.accept_any(several),
        }
    }

    fn finish(self) -> ExitCode {
        self.worker.finish()
    }
}

fn main() -> io::Result<ExitCode> {
    test_worker::main::<Mio>()
}
