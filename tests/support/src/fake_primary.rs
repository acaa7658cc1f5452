//! A primary played by hand, one message at a time.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use roundel_core::wire::{self, Decoder};
use roundel_core::{Codec, FromWorker, Granted, ListenerId, Seq, SockName, ToWorker};
use roundel_runtime::unix::channel;
use roundel_runtime::worker::WorkerDriver;

const MAX: u32 = wire::MAX_FRAME_DEFAULT;
/// How long anything may take before a test fails.
pub const SOON: Duration = Duration::from_secs(10);

/// The other end of a worker's channel, by hand.
pub struct FakePrimary {
    fd: OwnedFd,
    decoder: Decoder<FromWorker>,
    greeted: bool,
    /// The worker's end, to write there what the worker did not.
    worker: Arc<OwnedFd>,
}

impl FakePrimary {
    /// One of a worker in this process.
    pub fn new() -> (FakePrimary, WorkerDriver) {
        // The first end does not block, as a worker's must not.
        let (worker, fd) = channel::pair().unwrap();
        let driver = WorkerDriver::new(Some((worker, Codec::Native)));
        let worker = Arc::clone(driver.channel_fd().unwrap());
        (FakePrimary { fd, decoder: Decoder::new(MAX), greeted: false, worker }, driver)
    }

    /// One of a worker process, and the end that is the worker's.
    pub fn of_process() -> (FakePrimary, OwnedFd) {
        let (worker, fd) = channel::pair().unwrap();
        let own = Arc::new(worker.try_clone().unwrap());
        (FakePrimary { fd, decoder: Decoder::new(MAX), greeted: false, worker: own }, worker)
    }

    /// Says something.
    pub fn send(&mut self, msg: &ToWorker, handles: &[&OwnedFd]) {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.greeted, true) {
            wire::encode_hello(&mut bytes);
        }
        wire::encode(msg, MAX, &mut bytes).unwrap();
        let handles: Vec<_> = handles.iter().map(|fd| fd.as_fd()).collect();
        assert_eq!(channel::send(self.fd.as_fd(), &bytes, &handles), Ok(bytes.len()));
    }

    /// Waits for the first ask, grants it, and waits until the worker listens.
    pub fn grant_first(&mut self) {
        while !matches!(self.hear(), FromWorker::Query { .. }) {}
        self.grant();
        while !matches!(self.hear(), FromWorker::Listening { .. }) {}
    }

    /// Grants the first ask, before or after it was made.
    pub fn grant(&mut self) {
        let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
        let listener = ListenerId::from_raw(1).unwrap();
        let granted = Granted { listener, sockname, shared: false, data: vec![] };
        self.send(&ToWorker::QueryReply { ack: seq(1), result: Ok(Box::new(granted)) }, &[]);
    }

    /// Hands connections over, under numbers from `first` on.
    pub fn hand_over(&mut self, first: u64, handles: &[&OwnedFd]) {
        let listener = ListenerId::from_raw(1).unwrap();
        let count = u32::try_from(handles.len()).unwrap();
        self.send(&ToWorker::NewConn { first_seq: seq(first), listener, count }, handles);
    }

    /// Leaves the worker no room to write to, and says by how many bytes.
    pub fn clog(&self) -> usize {
        let mut count = 0;
        for size in [4096, 1] {
            while let Ok(written) = channel::send(self.worker.as_fd(), &[b'#'; 4096][..size], &[]) {
                count += written;
            }
        }
        count
    }

    /// Reads those bytes.
    pub fn clear(&mut self, count: usize) {
        self.stream().read_exact(&mut vec![0; count]).unwrap();
    }

    /// Waits for the next message, skipping those that tell how many connections are open: they
    /// come whenever a timer says so.
    pub fn hear(&mut self) -> FromWorker {
        loop {
            match self.hear_any() {
                FromWorker::Load { .. } => {}
                msg => return msg,
            }
        }
    }

    /// Waits until it is told that so many connections are open.
    pub fn hear_load(&mut self, wanted: u32) {
        while self.hear_any() != (FromWorker::Load { open: wanted }) {}
    }

    fn hear_any(&mut self) -> FromWorker {
        let mut stream = self.stream();
        loop {
            if let Some((msg, _)) = self.decoder.poll().unwrap() {
                return msg;
            }
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the channel has ended");
            self.decoder.feed(&buffer[..count]);
        }
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::from(self.fd.try_clone().unwrap());
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }
}

/// A message's number.
pub fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

/// A client and the server's end of its connection, which does not block, as the primary's do.
pub fn connection() -> (TcpStream, OwnedFd) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let (ours, _) = door.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (client, ours.into())
}

/// Does something on a thread of its own that must come to an end soon.
pub fn soon<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(act()));
    wait.recv_timeout(SOON).expect("it hangs")
}
