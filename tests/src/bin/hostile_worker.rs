//! A worker that misbehaves on its channel: `hostile_worker MODE`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use roundel_core::{
    Address, Errno, FromWorker, Inbox, ListenKey, ListenerId, Received, Seq, ToWorker, wire,
};
use roundel_runtime::unix::channel;

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let _open = misbehave(&mode);
    // It is for the primary to end this.
    loop {
        std::thread::park();
    }
}

#[expect(unsafe_code, reason = "the channel is known by its number only")]
fn channel_fd() -> OwnedFd {
    let number = std::env::var("ROUNDEL_CHANNEL_FD").expect("a channel").parse().expect("a number");
    // SAFETY: the primary left this descriptor open under this number for this process.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn message(msg: &FromWorker) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(msg, wire::MAX_FRAME_DEFAULT, &mut bytes).expect("a short message");
    bytes
}

fn query(seq: u64, address: Address, data: Vec<u8>) -> Vec<u8> {
    let seq = Seq::from_raw(seq).expect("not zero");
    let key = Box::new(ListenKey::stream(address));
    message(&FromWorker::Query { seq, key, backlog: 0, data })
}

fn listener(n: u64) -> ListenerId {
    ListenerId::from_raw(n).expect("not zero")
}

/// Returns what must stay open.
fn misbehave(mode: &str) -> (OwnedFd, File) {
    let fd = channel_fd();
    let file = File::from(fd.try_clone().expect("a copy"));
    let mut hello = Vec::new();
    wire::encode_hello(&mut hello);
    let seq = |n| Seq::from_raw(n).expect("not zero");
    let online = [hello.clone(), message(&FromWorker::Online)].concat();
    // Writes fail once the primary has had enough.
    let write = |bytes: &[u8]| (&file).write_all(bytes).is_ok();
    match mode {
        "random" => {
            write(b"\x01\xd3\x8b random \x00\x00 bytes");
        }
        "http" => {
            write(b"GET / HTTP/1.1\r\n\r\n");
        }
        "two-newer" => {
            hello[5] += 2;
            write(&[hello, message(&FromWorker::Online)].concat());
        }
        "one-newer" => {
            // What the next version of the library would say to a primary of this one.
            hello[5] += 1;
            write(&[hello, message(&FromWorker::Online)].concat());
            write(&query(1, Address::Nth(0), Vec::new()));
            serve(&fd, write);
        }
        "no-version" => {
            hello[5] = 0;
            write(&[hello, message(&FromWorker::Online)].concat());
        }
        "random-bodies" => {
            write(&online);
            let mut dice = Dice(7);
            let body = |dice: &mut Dice| (0..16).map(|_| dice.roll()).collect::<Vec<u8>>();
            while write(&[vec![16, 0, 0, 0], body(&mut dice)].concat()) {}
        }
        "newconn" => {
            // What only the primary may say.
            let (first_seq, listener) = (seq(1), ListenerId::from_raw(1).expect("not zero"));
            let handoff = ToWorker::NewConn { first_seq, listener, count: 9 };
            let mut bytes = online;
            wire::encode(&handoff, wire::MAX_FRAME_DEFAULT, &mut bytes).expect("a short message");
            write(&bytes);
        }
        "descriptors-first" => {
            let null = File::open("/dev/null").expect("/dev/null");
            let handles = [null.as_fd(); 250];
            for _ in 0..20 {
                while channel::send(fd.as_fd(), &[0], &handles) == Err(Errno::EAGAIN) {
                    std::thread::yield_now();
                }
            }
        }
        "bad-hello" => {
            write(b"\xFFnot the hello");
        }
        "bad-message" => {
            write(&[online, vec![3, 0, 0, 0, 250, 250, 250]].concat());
        }
        "huge" => {
            write(&[online, vec![0xFF; 4]].concat());
        }
        "half" => {
            write(&[online, vec![200, 0, 0, 0, 1]].concat());
        }
        "before-online" => {
            let listener = ListenerId::from_raw(1).expect("not zero");
            write(&[hello, message(&FromWorker::Listening { listener })].concat());
        }
        "strays" => {
            write(&online);
            for n in 1..2_000 {
                write(&message(&FromWorker::Ack { ack: seq(n), accepted: true }));
            }
        }
        "flood" => {
            write(&online);
            let flood = message(&FromWorker::Load { open: 1 }).repeat(1_000);
            while write(&flood) {}
        }
        "bytes" => {
            // One byte a write, and a descriptor with it, which nobody takes.
            write(&online);
            let null = File::open("/dev/null").expect("/dev/null");
            let load = message(&FromWorker::Load { open: 1 });
            for byte in load.iter().cycle() {
                let sent = loop {
                    match channel::send(fd.as_fd(), &[*byte], &[null.as_fd()]) {
                        Err(Errno::EAGAIN) => std::thread::yield_now(),
                        sent => break sent,
                    }
                };
                if sent.is_err() {
                    break;
                }
            }
        }
        "descriptors" => {
            write(&online);
            let null = File::open("/dev/null").expect("/dev/null");
            let load = message(&FromWorker::Load { open: 1 });
            for _ in 0..2_000 {
                let handles = [null.as_fd(); 10];
                while channel::send(fd.as_fd(), &load, &handles) == Err(Errno::EAGAIN) {
                    std::thread::yield_now();
                }
            }
            // So that it can be seen that all was read.
            write(&query(1, Address::Any { port: 0 }, Vec::new()));
        }
        "deaf" => {
            // Asks without end and never reads the answers.
            write(&online);
            write(&query(1, Address::Nth(0), Vec::new()));
            let close = message(&FromWorker::Close { listener: listener(1) });
            let more = [close, query(2, Address::Nth(0), Vec::new())].concat();
            while write(&more) {}
        }
        "pongs" => {
            write(&online);
            let pong = message(&FromWorker::Pong { ack: seq(1) }).repeat(100);
            while write(&pong) {}
        }
        "long-paths" => {
            // Their answers are read, so nothing slows it.
            let answers = fd.try_clone().expect("a copy");
            std::thread::spawn(move || {
                std::io::copy(&mut File::from(answers), &mut std::io::sink())
            });
            write(&online);
            let path = format!("/{}", "long\n".repeat(100_000));
            while write(&query(1, Address::Unix(path.clone()), Vec::new())) {}
        }
        other => misbehave_as_node(other, &fd, write),
    }
    (fd, file)
}

/// Serves like a good worker, until the channel ends.
fn serve(fd: &OwnedFd, write: impl Fn(&[u8]) -> bool) {
    let mut inbox = Inbox::new(wire::MAX_FRAME_DEFAULT);
    let mut buffer = [0; 4096];
    loop {
        let mut handles = Vec::new();
        let len = match channel::recv_handles(fd.as_fd(), &mut buffer, &mut handles) {
            Ok(read) => read.len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            Err(_) => return,
        };
        inbox.feed(&buffer[..len], handles);
        while let Some(Received { msg, .. }) = inbox.poll().expect("the primary's messages") {
            match msg {
                ToWorker::QueryReply { result: Ok(granted), .. } => {
                    write(&message(&FromWorker::Listening { listener: granted.listener }));
                }
                ToWorker::NewConn { first_seq, .. } => {
                    let client = inbox.take_handle().expect("a connection");
                    write(&message(&FromWorker::Ack { ack: first_seq, accepted: true }));
                    let body = format!("newer {}\n", std::process::id());
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    let mut client = TcpStream::from(client);
                    let _ = client.set_nonblocking(false);
                    let _ = client.read(&mut [0; 1024]);
                    let _ = client.write_all((head + &body).as_bytes());
                }
                ToWorker::Drain { .. } | ToWorker::Disconnect => std::process::exit(0),
                _ => {}
            }
        }
        if len == 0 {
            return;
        }
    }
}

fn misbehave_as_node(mode: &str, fd: &OwnedFd, write: impl Fn(&[u8]) -> bool) {
    let null = File::open("/dev/null").expect("/dev/null");
    let online = |rest: &[u8]| {
        let online = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n";
        write(&[online, rest].concat())
    };
    match mode {
        "node-garbage" => {
            online(b"{\"cmd\":\"NODE_CLUSTER\",\"act\n");
        }
        "node-long-line" => {
            online(b"{\"cmd\":\"NODE_CLUSTER\",\"data\":\"");
            let mut written = 0;
            while written < 100_000_000 && write(&[b'x'; 65_536]) {
                written += 65_536;
            }
        }
        "node-long-message" => {
            online(b"\"");
            for _ in 0..1_526 {
                write(&[b'x'; 65_536]);
            }
            write(b"\"\n");
        }
        "node-handle-each-byte" => {
            online(b"");
            while !matches!(
                channel::send(fd.as_fd(), b" ", &[null.as_fd()]),
                Err(Errno(libc::EPIPE | libc::ECONNRESET))
            ) {}
        }
        "node-deep" => {
            let deep = [&[b'['; 1_000][..], &[b']'; 1_000]].concat();
            let line = [b"{\"cmd\":\"NODE_CLUSTER\",\"data\":", &deep[..], b"}\n"].concat();
            online(&line);
        }
        "node-nacks" => {
            online(&b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n".repeat(2_000));
        }
        "node-handle-on-a-plain-line" => {
            online(b"");
            // The first read takes no handles, so it may take a few.
            loop {
                let sent = channel::send(fd.as_fd(), b"\"here\"\n", &[null.as_fd()]);
                if !matches!(sent, Ok(_) | Err(Errno::EAGAIN)) {
                    break;
                }
                std::thread::yield_now();
            }
        }
        "node-two-handles" => {
            online(b"");
            let line = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":1}\n";
            loop {
                let sent = channel::send(fd.as_fd(), line, &[null.as_fd(), null.as_fd()]);
                if !matches!(sent, Ok(_) | Err(Errno::EAGAIN)) {
                    break;
                }
                std::thread::yield_now();
            }
        }
        other => panic!("no mode {other:?}"),
    }
}

/// Random numbers, the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u8
    }
}
