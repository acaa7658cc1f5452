//! What the primary reads from a channel in a turn.

use std::os::fd::{AsFd, OwnedFd};

use roundel_core::{DecodeError, FromWorker, Seq, ToWorker, Violation, wire};

use super::*;
use crate::unix::channel;

/// Returns one byte for each read of a channel, however much is there, and counts the reads.
struct ByteByByte<'a> {
    bytes: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    /// How many handles come with each byte.
    handles: usize,
    reads: u32,
}

impl End for ByteByByte<'_> {
    type Handle = ();
    type Lent<'a> = ();

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        buffer[0] = *self.bytes.next().unwrap();
        Ok(1)
    }

    fn recv_handles(
        &mut self,
        buffer: &mut [u8],
        room: usize,
        handles: &mut Vec<()>,
    ) -> io::Result<usize> {
        handles.extend(std::iter::repeat_n((), self.handles.min(room)));
        self.recv(buffer)
    }

    fn send(&mut self, bytes: &[u8], _: &[()]) -> Result<usize, roundel_core::Errno> {
        Ok(bytes.len())
    }

    fn shutdown_read(&mut self) {}
}

fn config() -> Config {
    Config::builder().build().unwrap()
}

fn turn(channel: &mut WorkerChannel, end: &mut impl End) -> (ReadState, Vec<ChannelEvent>) {
    let mut heard = Vec::new();
    let state = read(channel, end, &mut [0; 1024], |it| heard.push(it));
    (state, heard)
}

#[test]
fn a_turn_has_so_many_reads_and_no_more() {
    let mut native = Vec::new();
    wire::encode_hello(&mut native);
    wire::encode(&FromWorker::Ready, 1 << 10, &mut native).unwrap();
    for bytes in [&native, &b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n".to_vec()] {
        let mut end = ByteByByte { bytes: bytes.iter().cycle(), handles: 0, reads: 0 };
        let mut channel = new(None, &config());
        for turns in 1..4 {
            let (state, _) = turn(&mut channel, &mut end);
            assert_eq!((state, end.reads), (ReadState::More, turns * READS_PER_TURN));
        }
    }
}

#[test]
fn a_second_handle_on_a_line_ends_it() {
    for handles in [1, 9] {
        let mut end = ByteByByte { bytes: b" ".iter().cycle(), handles, reads: 0 };
        let mut channel = new(Some(Codec::Node), &config());
        let (_, heard) = turn(&mut channel, &mut end);
        let [ChannelEvent::Hello(Codec::Node), ChannelEvent::Violation(what)] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(*what, Violation::Decode(DecodeError::TooManyHandles));
        // From here on everything that comes is discarded, handles included.
        let (state, heard) = turn(&mut channel, &mut end);
        assert!(state == ReadState::More && heard.is_empty(), "{heard:?}");
    }
}

/// A Node worker's channel on which `online` has come.
fn online() -> (WorkerChannel, OwnedFd, OwnedFd) {
    let (ours, theirs) = channel::pair().unwrap();
    let mut channel = new(None, &config());
    let line = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n";
    channel::send(theirs.as_fd(), line, &[]).unwrap();
    let (_, heard) = turn(&mut channel, &mut ours.as_fd());
    assert_eq!(heard.len(), 2, "{heard:?}");
    (channel, ours, theirs)
}

#[test]
fn a_line_of_node_may_take_its_time() {
    let (mut channel, ours, theirs) = online();
    channel::send(theirs.as_fd(), b"{\"cmd\":\"NODE_CLUSTER\"", &[]).unwrap();
    let (state, heard) = turn(&mut channel, &mut ours.as_fd());
    assert!(state == ReadState::Wait && heard.is_empty(), "no frame is begun: {heard:?}");
}

#[test]
fn the_handle_of_a_begun_line_is_closed_already() {
    let (mut channel, ours, theirs) = online();
    let (cargo, peer) = channel::pair().unwrap();
    let line = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":1}\n";
    let (begin, end) = line.split_at(9);
    channel::send(theirs.as_fd(), begin, &[cargo.as_fd()]).unwrap();
    drop(cargo);
    let (_, heard) = turn(&mut channel, &mut ours.as_fd());
    assert!(heard.is_empty(), "{heard:?}");
    // Only a child that another test forks may still hold it for a moment, so wait.
    let mut fds = [nix::poll::PollFd::new(peer.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(10_000_u16)), Ok(1));
    channel::send(theirs.as_fd(), end, &[]).unwrap();
    let (_, heard) = turn(&mut channel, &mut ours.as_fd());
    assert!(matches!(&heard[..], [ChannelEvent::User { json, handle: Some(_) }] if json == "1"));
}

/// The bytes that wait for a worker are bounded too: it is not read while much waits.
#[test]
fn a_worker_with_many_unsent_messages_is_not_read() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use roundel_core::{Granted, ListenerId, SockName};

    let (ours, mut worker) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut channel = new(None, &config());
    let mut bytes = Vec::new();
    wire::encode_hello(&mut bytes);
    wire::encode(&FromWorker::Online, wire::MAX_FRAME_DEFAULT, &mut bytes).unwrap();
    worker.write_all(&bytes).unwrap();
    let heard = |channel: &mut WorkerChannel| {
        let mut count = 0;
        read(channel, &mut ours.as_fd(), &mut [0; 4096], |_| count += 1);
        count
    };
    for seq in 1..=3 {
        let granted = Granted {
            listener: ListenerId::from_raw(1).unwrap(),
            sockname: SockName::Unix("/a".into()),
            shared: false,
            data: vec![0; 400_000],
        };
        let ack = Seq::from_raw(seq).unwrap();
        channel.push(ToWorker::QueryReply { ack, result: Ok(Box::new(granted)) }, None);
    }
    assert_eq!(heard(&mut channel), 0);
    channel.hung_up();
    assert_eq!(heard(&mut channel), 2);
}
