//! A whole worker in one file, from `roundel-core` and the system's calls alone: a loop around
//! poll(2), and a thread for each connection.
//!
//! `roundel run -b 127.0.0.1:8080 target/debug/examples/poll_worker`, or with the sibling example
//! `poll_loop` as the primary.
//!
//! What the shipped library has besides: the codec of Node, listeners that are shared, programs
//! that take fewer connections than come, and a replacement that starts when a thread panics.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use roundel_core::{
    Address, Custody, FromWorker, Inbox, ListenKey, Time, Worker, WorkerInput, WorkerOutput,
    environment, wire,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const MAX_FRAME: u32 = wire::MAX_FRAME_DEFAULT;

/// A worker with its channel and its connections.
struct Embedder {
    core: Worker,
    epoch: Instant,
    /// `None` once it has ended.
    channel: Option<UnixStream>,
    inbox: Inbox<OwnedFd>,
    custody: Custody<OwnedFd>,
    /// Encoded messages, and how much of the first one was sent.
    unsent: VecDeque<Vec<u8>>,
    sent: usize,
    /// Nothing new will come.
    leaving: bool,
    /// The channel is closed when everything is sent.
    closing: bool,
    serving: Vec<JoinHandle<()>>,
    refused: Option<io::Error>,
}

fn main() -> io::Result<ExitCode> {
    let mut embedder = Embedder {
        core: Worker::new(),
        epoch: Instant::now(),
        channel: Some(take_channel()?),
        inbox: Inbox::new(MAX_FRAME),
        custody: Custody::new(),
        unsent: VecDeque::new(),
        sent: 0,
        leaving: false,
        closing: false,
        serving: Vec::new(),
        refused: None,
    };
    let key = Box::new(ListenKey::stream(Address::Nth(0)));
    embedder.tell(WorkerInput::Listen { ask: 0, key, backlog: 0, data: Vec::new() });
    embedder.carry_out();
    while !embedder.is_done() {
        embedder.wait()?;
        embedder.read();
        embedder.take();
        embedder.carry_out();
    }
    for thread in embedder.serving {
        // One that panicked has said so.
        let _ = thread.join();
    }
    embedder.refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The channel that this process was started with: close-on-exec first of all, so that helpers do
/// not hold it open.
fn take_channel() -> io::Result<UnixStream> {
    let value = std::env::var(environment::CHANNEL_VAR).map_err(io::Error::other)?;
    let number: i32 = value.parse().map_err(io::Error::other)?;
    // SAFETY: a primary leaves a socket open under this number for this process. It is adopted
    // once, before anything else was opened that could have the number if that is not so.
    let channel = unsafe { UnixStream::from_raw_fd(number) };
    fcntl_setfd(&channel, FdFlags::CLOEXEC)?;
    channel.set_nonblocking(true)?;
    Ok(channel)
}

impl Embedder {
    /// Whether everything that has come was taken or declined, and everything said.
    fn is_done(&self) -> bool {
        let taken = self.core.untaken() == 0 && !self.core.awaits_delivery();
        (self.leaving && taken && self.unsent.is_empty()) || self.refused.is_some()
    }

    fn tell(&mut self, input: WorkerInput) {
        let now = Time::ZERO + self.epoch.elapsed();
        self.core.handle_input(now, input).expect("an embedder that says only what is so");
    }

    /// Waits until the channel is ready. The machine has no deadlines.
    fn wait(&self) -> io::Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.unsent.is_empty());
        match poll(&mut [PollFd::new(channel, flags)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads until it would block, or to the end of the channel.
    fn read(&mut self) {
        while let Some(channel) = &self.channel {
            let mut buffer = [0; 4096];
            // As many descriptors as one message can carry (SCM_MAX_FD, unix(7)), so that nothing
            // but the limit on open files can cut them off. What is cut off then (MSG_CTRUNC), the
            // machine sees as missing, and declines: the primary still has its copy.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let parts = &mut [IoSliceMut::new(&mut buffer)];
            let count = match recvmsg(channel, parts, &mut control, flags) {
                Ok(received) if received.bytes > 0 => received.bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => return self.close(),
            };
            let handles = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            self.inbox.feed(&buffer[..count], handles.flatten());
            loop {
                match self.inbox.poll() {
                    Ok(Some(received)) => {
                        let fds = (0..received.handles).map_while(|_| self.inbox.take_handle());
                        let handles = self.custody.admit_all(fds);
                        self.tell(WorkerInput::Message { msg: received.msg, handles });
                    }
                    Ok(None) => break,
                    // A primary that can't be understood is none.
                    Err(_) => return self.close(),
                }
            }
        }
    }

    /// Wants all that has come. What a program does not take stays the primary's.
    fn take(&mut self) {
        while self.core.untaken() > 0 {
            self.tell(WorkerInput::Take { listener: None });
        }
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                self.execute(output);
            }
            self.flush();
            if !self.core.has_output() {
                return;
            }
        }
    }

    fn execute(&mut self, output: WorkerOutput) {
        match output {
            WorkerOutput::Send(msg) => self.push(&msg),
            // The acknowledgement is in the kernel: from here on it is nobody else's.
            WorkerOutput::Deliver { conn, .. } => {
                if let Some(fd) = self.custody.release(conn) {
                    self.serving.retain(|thread| !thread.is_finished());
                    self.serving.push(thread::spawn(|| {
                        // A client that has left is no reason to stop.
                        let _ = serve(TcpStream::from(fd));
                    }));
                }
            }
            // A plain close: no shutdown, as another worker may have the same connection.
            WorkerOutput::Discard { conn } => drop(self.custody.release(conn)),
            WorkerOutput::Granted { handle: None, .. } => {}
            // A listener that is shared: this example does not accept for itself.
            WorkerOutput::Granted { handle: Some(_), .. } => {
                self.refused = Some(ErrorKind::Unsupported.into());
            }
            WorkerOutput::Refused { errno, .. } => {
                self.refused = Some(io::Error::from_raw_os_error(errno.0));
            }
            WorkerOutput::Draining { .. } | WorkerOutput::PrimaryGone => self.leaving = true,
            WorkerOutput::CloseChannel => self.closing = true,
            _ => {}
        }
    }

    fn push(&mut self, msg: &FromWorker) {
        let mut bytes = Vec::new();
        if *msg == FromWorker::Online {
            // Always the first one. The hello is no message of its own to the machine.
            wire::encode_hello(&mut bytes);
        }
        wire::encode(msg, MAX_FRAME, &mut bytes).expect("it is not too long");
        self.unsent.push_back(bytes);
    }

    /// Sends until it would block. Each message that is in the kernel to its last byte is told.
    fn flush(&mut self) {
        while let (Some(first), Some(channel)) = (self.unsent.front(), &mut self.channel) {
            match channel.write(&first[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EPIPE: what is not said will not be heard.
                Err(_) => return self.close(),
            }
            if self.sent == first.len() {
                self.unsent.pop_front();
                self.sent = 0;
                self.tell(WorkerInput::Sent);
            }
        }
        if self.closing {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.channel.take().is_some() {
            self.unsent.clear();
            self.tell(WorkerInput::ChannelClosed);
        }
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    // The primary may have made it non-blocking.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let id = std::env::var(environment::WORKER_VAR).unwrap_or_default();
    let words = format!("worker {id} pid {}\n", std::process::id());
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{words}")?;
    // The primary may hold its copy for a moment longer, and a close says nothing before the last
    // one is closed.
    stream.shutdown(Shutdown::Write)
}
