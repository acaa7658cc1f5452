//! What the docs of the core say of the kernel and of the standard library, tried. The rest is
//! tried where the runtime relies on it (`unix/channel.rs` and `outbox.rs` there).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::dup;
use roundel_tests::programs::observe::{PATIENCE, alone};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};

use crate::cluster::{role, unprivileged};

/// In the environment of a process that plays a role here.
const PLAYS: &str = "ROUNDEL_EMBED_PLAYS";

/// Plays a role in a process of its own, since it changes limits.
fn play(name: &str, change: fn(&mut Command)) {
    let role = role(name);
    let mut command = Command::new(&role[0]);
    command.args(&role[1..]).env(PLAYS, "1");
    change(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn plays() -> bool {
    std::env::var_os(PLAYS).is_some()
}

/// sendmsg(2) without waiting.
pub(crate) fn send(socket: &UnixStream, bytes: &[u8], handles: &[i32]) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(handles)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)
}

/// How many bytes and descriptors come, and whether some were cut off.
fn receive(socket: &UnixStream) -> (usize, usize, bool) {
    let mut buffer = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut buffer)];
    let received = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let count = control.drain().map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(fds) => fds.count(),
        _ => 0,
    });
    (received.bytes, count.sum(), received.flags.contains(ReturnFlags::CTRUNC))
}

fn is_writable(socket: &UnixStream) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).unwrap();
    asked[0].revents().unwrap().contains(PollFlags::POLLOUT)
}

/// A connection: the client's end, and the server's.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_channel_whose_other_end_reads_no_more_is_ready_to_write_for_ever() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.shutdown(Shutdown::Read).unwrap();
    for _ in 0..2 {
        assert!(is_writable(&ours));
        assert_eq!(send(&ours, b"x", &[]), Err(Errno::EPIPE));
    }
    (&theirs).write_all(b"ack").unwrap();
    assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 3, "what it says is still read");
}

#[test]
fn a_send_that_would_block_takes_no_descriptor() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (cargo, peer) = UnixStream::pair().unwrap();
    while send(&ours, &[0; 4096], &[]).is_ok() {}
    assert_eq!(send(&ours, b"x", &[cargo.as_raw_fd()]), Err(Errno::EAGAIN));
    assert!(!is_writable(&ours));
    // Had it been taken, the channel would hold it open now.
    drop(cargo);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&peer).read(&mut [0; 8]).unwrap(), 0);
    drop(theirs);
}

#[test]
fn too_many_descriptors_under_way_are_told_by_no_readiness() {
    // The kernel counts the descriptors under way of all processes of a user (unix(7),
    // ETOOMANYREFS).
    let _alone = alone();
    play("kernel::sender_of_too_many", |command| {
        unprivileged(command);
    });
}

#[test]
#[ignore = "plays a role in another test"]
fn sender_of_too_many() {
    if !plays() {
        return;
    }
    let limit = 64;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (cargo, _peer) = UnixStream::pair().unwrap();
    let mut sent: u64 = 0;
    let errno = loop {
        match send(&ours, b"x", &[cargo.as_raw_fd()]) {
            Ok(_) => sent += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, Errno::ETOOMANYREFS, "after {sent}");
    assert!(sent <= limit + 1);
    assert!(is_writable(&ours), "and still it can't be sent");
    assert_eq!(send(&ours, b"x", &[]), Ok(1), "bytes alone can");
    // What an answer tells: the worker has taken some.
    for _ in 0..2 {
        assert_eq!(receive(&theirs).1, 1);
    }
    assert_eq!(send(&ours, b"x", &[cargo.as_raw_fd()]), Ok(1));
}

#[test]
fn a_receiver_without_descriptors_gets_the_bytes_alone() {
    play("kernel::receiver_at_its_limit", |_| {});
}

#[test]
#[ignore = "plays a role in another test"]
fn receiver_at_its_limit() {
    if !plays() {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut client, server) = connection();
    assert_eq!(send(&ours, b"newconn", &[server.as_raw_fd()]), Ok(7));
    let next = dup(&ours).unwrap().as_raw_fd();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(next).unwrap(), hard).unwrap();
    assert_eq!(receive(&theirs), (7, 0, true));
    // The sender's copy is as good as before.
    (&server).write_all(b"served elsewhere").unwrap();
    assert_eq!(client.read(&mut [0; 64]).unwrap(), 16);
}

#[test]
fn an_end_is_sent_when_the_last_copy_is_closed_or_one_is_shut_down() {
    let (mut client, server) = connection();
    let copy = server.try_clone().unwrap();
    drop(server);
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    copy.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn copies_of_a_descriptor_block_or_not_together() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let copy = ours.try_clone().unwrap();
    copy.set_nonblocking(true).unwrap();
    assert_eq!((&ours).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Whether a set in /proc/PID/status has a signal.
fn has(status: &str, set: &str, signal: Signal) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    let bits = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap();
    bits & (1 << (signal as i32 - 1)) != 0
}

#[test]
fn a_child_inherits_what_is_blocked_and_not_what_is_caught() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).unwrap();
    let (_caught, writes) = UnixStream::pair().unwrap();
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGUSR2, writes).unwrap();
    let output = Command::new("cat").arg("/proc/self/status").process_group(0).output();
    before.thread_set_mask().unwrap();
    let status = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(has(&status, "SigBlk", Signal::SIGUSR1), "std leaves the mask as it is");
    assert!(!has(&status, "SigCgt", Signal::SIGUSR2));
    assert!(!has(&status, "SigIgn", Signal::SIGPIPE), "which std ignores in this process");
}

#[test]
fn a_peer_that_ends_with_something_unread_is_read_to_its_end() -> io::Result<()> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(Duration::from_secs(10)))?;
    (&ours).write_all(b"newconn")?;
    theirs.write_all(b"ack")?;
    drop(theirs);
    // A process that another test starts may have a copy until it executes its program.
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::empty())];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    assert_eq!(send(&ours, b"newconn", &[]), Err(Errno::EPIPE));
    assert_eq!((&ours).read(&mut [0; 8])?, 3);
    assert_eq!((&ours).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((&ours).read(&mut [0; 8])?, 0);
    Ok(())
}
