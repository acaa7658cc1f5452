use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;

/// The directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("roundel-path-{pid}-{count}"));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wish() -> Wish {
    Wish {
        kind: SockType::Stream,
        backlog: Backlog::new(16).unwrap(),
        mode: None,
        file: FileOptions::default(),
        replace_stale: true,
    }
}

/// Leaves a stale socket behind. A child that another test forks may have a copy of the descriptor
/// for a moment, so it is shut down first.
fn leave_behind(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
}

#[test]
fn nothing_but_the_socket_is_left() {
    let dir = Dir::new();
    let (_fd, bound) = take(&dir.socket(), &wish()).unwrap();
    UnixStream::connect(dir.socket()).unwrap();
    assert_eq!(dir.names(), ["socket"]);
    bound.unlink();
    assert_eq!(dir.names(), [""; 0]);
}

#[test]
fn stale_sockets_are_replaced_only_on_request() {
    let dir = Dir::new();
    leave_behind(&dir.socket());
    let never = Wish { replace_stale: false, ..wish() };
    assert_eq!(take(&dir.socket(), &never).unwrap_err(), NotTaken::InUse);
    assert!(dir.socket().exists());
    let (_fd, _) = take(&dir.socket(), &wish()).unwrap();
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::InUse);
    UnixStream::connect(dir.socket()).unwrap();
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_yet_is_alive() {
    let dir = Dir::new();
    let fd = open(SockType::Stream).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&dir.socket()).unwrap()).unwrap();
    assert_eq!(dial(&dir.socket(), SockType::Stream).unwrap_err(), Errno::ECONNREFUSED);
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::InUse);
    listen(&fd, Backlog::new(1).unwrap()).unwrap();
    UnixStream::connect(dir.socket()).unwrap();
    // A closed listener is not live, though one of its connections lives on under its name.
    let client = UnixStream::connect(dir.socket()).unwrap();
    let _served = (crate::unix::sys::accept(std::os::fd::AsFd::as_fd(&fd)).unwrap(), client);
    nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    drop(fd);
    take(&dir.socket(), &wish()).unwrap();
}

#[test]
fn a_socket_of_another_type_and_a_file_stay() {
    let dir = Dir::new();
    let datagrams = UnixDatagram::bind(dir.socket()).unwrap();
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::InUse);
    let wish_datagrams = Wish { kind: SockType::Datagram, ..wish() };
    assert_eq!(take(&dir.socket(), &wish_datagrams).unwrap_err(), NotTaken::InUse);
    drop(datagrams);
    fs::remove_file(dir.socket()).unwrap();
    fs::write(dir.socket(), "kept").unwrap();
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::NotASocket);
    assert_eq!(fs::read(dir.socket()).unwrap(), b"kept");
    assert_eq!(dir.names(), ["socket"]);
}

/// Many processes find one stale socket at the same time: one gets the path, and keeps it.
#[test]
fn of_many_that_find_a_stale_path_one_gets_it() {
    let dir = Dir::new();
    let path = dir.socket();
    for _ in 0..200 {
        leave_behind(&path);
        let start = Barrier::new(4);
        let taken: Vec<_> = thread::scope(|scope| {
            let begin = || {
                start.wait();
                take(&path, &wish())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = taken.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{taken:?}");
        let client = UnixStream::connect(&path).unwrap();
        let (fd, bound) = winners[0];
        crate::unix::sys::accept(std::os::fd::AsFd::as_fd(fd)).unwrap();
        drop(client);
        bound.unlink();
        assert_eq!(dir.names(), [""; 0]);
    }
}

#[test]
fn a_path_being_taken_is_locked() {
    let dir = Dir::new();
    let lock = Lock::take(&dir.socket()).unwrap();
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::InUse);
    // The lock of a killed process blocks nobody.
    drop(lock);
    fs::write(lock_path(&dir.socket()).unwrap(), "").unwrap();
    take(&dir.socket(), &wish()).unwrap();
    assert_eq!(dir.names(), ["socket"]);
}

#[test]
fn a_link_in_the_place_of_the_lock_is_not_followed() {
    let dir = Dir::new();
    let target = dir.0.join("target");
    fs::write(&target, "kept").unwrap();
    std::os::unix::fs::symlink(&target, lock_path(&dir.socket()).unwrap()).unwrap();
    assert_eq!(take(&dir.socket(), &wish()).unwrap_err(), NotTaken::Os(Errno::ELOOP));
    assert_eq!(fs::read(&target).unwrap(), b"kept");
}

#[test]
fn places_that_cannot_be() {
    let dir = Dir::new();
    let taken = |path: &Path| take(path, &wish()).unwrap_err();
    assert_eq!(taken(&dir.0.join("no/socket")), NotTaken::Os(Errno::ENOENT));
    assert_eq!(taken(&dir.0.join("x".repeat(120))), NotTaken::Os(Errno::ENAMETOOLONG));
    assert_eq!(taken(Path::new("/proc/socket")), NotTaken::Os(Errno::ENOENT));
    assert_eq!(dir.names(), [""; 0]);
}

#[test]
fn lines_of_the_table_of_sockets() {
    let bound = |line: &str| is_bound_in(line.as_bytes(), &[b"/run/a b"]);
    assert!(bound("0000000000000000: 00000002 00000000 00000000 0001 01 12345 /run/a b"));
    assert!(!bound("0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a b"));
    assert!(!bound("0000000000000000: 00000003 00000000 00000000 0001 03 12345 /run/a b"));
    assert!(!bound("0000000000000000: 00000002 00000000 00000000 0001 01     5 /run/a"));
    assert!(!bound("0000000000000000: 00000002 00000000 00000000 0001 01     5"));
    assert!(!bound("Num       RefCount Protocol Flags    Type St Inode Path"));
    assert!(!bound(""));
}

#[test]
fn the_file_has_its_mode_and_owner_whatever_the_umask_is() {
    let dir = Dir::new();
    let path = dir.socket();
    let own = FileOptions { mode: Some(Mode::from_bits_truncate(0o666)), ..FileOptions::default() };
    let (_fd, bound) = take(&path, &Wish { file: own, ..wish() }).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o666);
    bound.unlink();
    let other = FileOptions { owner: Some(Uid::from_raw(12_345)), mode: None, group: None };
    let taken = take(&path, &Wish { file: other, ..wish() });
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(taken.unwrap_err(), NotTaken::Os(Errno::EPERM));
        assert!(!path.exists());
        return;
    }
    let (_fd, bound) = taken.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 12_345);
    bound.unlink();
}
