//! A receiver at its limit on open files. The limit applies to the whole process, so this file has
//! only one test.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use roundel_runtime::unix::channel;

/// Copies of `fd` until descriptors run out.
fn fill(fd: &OwnedFd) -> Vec<OwnedFd> {
    std::iter::from_fn(|| fd.try_clone().ok()).collect()
}

#[test]
fn at_the_limit_bytes_arrive_and_no_descriptor_leaks() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(64), hard).unwrap();
    let (ours, theirs) = channel::pair().unwrap();
    let (cargo, _peer) = channel::pair().unwrap();
    let mut filler = fill(&cargo);
    let capacity = filler.len();
    assert!(capacity > 3);
    for free in [0, 1, 3] {
        filler.truncate(capacity - free);
        let load = [cargo.as_fd(); 3];
        assert_eq!(channel::send(theirs.as_fd(), b"laden", &load), Ok(5));
        let (mut buffer, mut handles) = ([0; 64], Vec::new());
        let received = channel::recv_handles(ours.as_fd(), &mut buffer, &mut handles).unwrap();
        assert_eq!((received.len, received.truncated), (5, free < 3), "{free} free");
        assert_eq!(handles.len(), free, "what the kernel installed is handed out");
        drop(handles);
        let again = fill(&cargo);
        assert_eq!(again.len(), free, "nothing is left open");
        filler.extend(again);
    }
}
