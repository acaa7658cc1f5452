//! Where the socket is, and which users may use it.

use std::io::{BufRead, BufReader};

use super::*;

#[test]
fn the_mode_is_0600_whatever_the_umask() {
    let primary = Primary::new();
    let metadata = std::fs::metadata(primary.server.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

/// The next test runs this in a process of another user.
#[test]
fn as_another_user() {
    let Some(path) = std::env::var_os("ROUNDEL_TEST_CONTROL") else { return };
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // It is told why, whatever it asks for; then the connection is closed, so the write may fail.
    let _ = stream.write_all(b"{\"command\":\"stop\"}\n");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("only root and the user of the primary may ask"), "{answer}");
}

#[test]
fn another_user_is_turned_away_though_the_mode_lets_him_in() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    // The other user must be able to run the test program from its place.
    let dir = Dir::new();
    let program = dir.0.join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let path = dir.socket("1");
    let mut server = ControlServer::bind(Some(&path)).unwrap();
    for (path, mode) in [(&dir.0, 0o755), (&program, 0o755), (&path, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut child = std::process::Command::new(&program)
        .args(["--exact", concat!(module_path!(), "::as_another_user").split_once("::").unwrap().1])
        .env("ROUNDEL_TEST_CONTROL", &path)
        .stdout(std::process::Stdio::null())
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .spawn()
        .unwrap();
    let mut fds = [PollFd::new(server.fd().as_fd(), PollFlags::POLLIN)];
    let came = poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
    let accepted = if came == 1 { server.accept(Time::ZERO).unwrap() } else { Some(ClientId(0)) };
    let status = child.wait().unwrap();
    assert_eq!((came, accepted), (1, None));
    assert!(status.success());
}

#[test]
fn a_stale_path_is_taken_over() {
    let dir = Dir::new();
    let path = dir.socket("1");
    hang_up(&UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = ControlServer::bind(Some(&path)).unwrap();
    UnixStream::connect(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_live_path_is_left_alone() {
    let dir = Dir::new();
    let path = dir.socket("1");
    let server = ControlServer::bind(Some(&path)).unwrap();
    let error = ControlServer::bind(Some(&path)).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    let line = format!("{path:?} belongs to a running primary");
    assert_eq!(error.to_string(), line);
    UnixStream::connect(&path).unwrap();
    drop(server);
    // A listener whose backlog is full is alive too.
    let listener = full_listener(&path);
    let error = ControlServer::bind(Some(&path)).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert_eq!(
        Connection::open(&path).unwrap_err(),
        format!("--control: {path:?}: the primary does not answer")
    );
    drop(listener);
}

/// A listener that takes no further connection, and the connections that fill it.
fn full_listener(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = crate::observe::control::path::dial(path) {
        waiting.push(stream);
        assert!(waiting.len() < 100);
    }
    (listener, waiting)
}

#[test]
fn a_command_waits_for_a_place_in_a_full_backlog() {
    let dir = Dir::new();
    let path = dir.socket("1");
    let (listener, _waiting) = full_listener(&path);
    let mut naps = 0;
    let dialled = dial_patiently(&path, || {
        naps += 1;
        drop(listener.accept().unwrap());
    });
    assert!(dialled.is_ok(), "{dialled:?}");
    assert_eq!(naps, 1);
}

#[test]
fn a_file_that_is_not_a_socket_is_never_removed() {
    let dir = Dir::new();
    let file = dir.socket("file");
    std::fs::write(&file, "mine").unwrap();
    let link = dir.socket("link");
    std::os::unix::fs::symlink(dir.0.join("nowhere"), &link).unwrap();
    let datagram = dir.socket("datagram");
    let _socket = UnixDatagram::bind(&datagram).unwrap();
    for path in [&file, &link, &datagram, &dir.0] {
        assert!(ControlServer::bind(Some(path)).is_err(), "{path:?}");
        assert!(std::fs::symlink_metadata(path).is_ok(), "{path:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let error = ControlServer::bind(Some(&file)).unwrap_err().to_string();
    assert_eq!(error, format!("{file:?} exists and is not a socket"));
}

#[test]
fn a_path_that_cannot_be() {
    let dir = Dir::new();
    for path in [dir.0.join("no/such/dir.sock"), dir.0.join("x".repeat(120)), PathBuf::new()] {
        let error = ControlServer::bind(Some(&path)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path:?}: ")), "{error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_path_that_another_has_taken_is_theirs() {
    let dir = Dir::new();
    let path = dir.socket("1");
    let server = ControlServer::bind(Some(&path)).unwrap();
    // Moved rather than removed: a removed file's number could be given to the next one.
    std::fs::rename(&path, dir.0.join("old")).unwrap();
    let next = ControlServer::bind(Some(&path)).unwrap();
    drop(server);
    UnixStream::connect(&path).unwrap();
    drop(next);
    assert!(!path.exists());
}

#[test]
fn the_default_place_is_the_first_one_possible() {
    let dir = Dir::new();
    let missing = Directory::Given("/nonexistent".into());
    let ours = Directory::Ours(dir.0.join("ours"));
    let name = format!("roundel-{}.sock", std::process::id());
    let (fd, place) = claim_default(&[missing.clone(), ours.clone()]).unwrap();
    assert_eq!(place.path(), ours.path().join(&name));
    let mode = std::fs::metadata(ours.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(place);
    // The directory stays, and the next primary finds it there.
    claim_default(&[ours]).unwrap();
    drop(fd);
    assert_eq!(claim_default(&[missing]).unwrap_err().to_string(), no_entry("/nonexistent"));
    let nowhere = Directory::Ours("/nonexistent/ours".into());
    let error = claim_default(&[nowhere]).unwrap_err().to_string();
    assert_eq!(error, no_entry("/nonexistent/ours"));
    assert!(claim_default(&[]).is_err());
}

fn no_entry(path: &str) -> String {
    format!("{path:?}: {}", std::io::Error::from(nix::errno::Errno::ENOENT))
}

#[test]
fn a_directory_that_others_can_write_to_is_none() {
    let dir = Dir::new();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (given, ours) = (dir.0.join("given"), dir.0.join("ours"));
    for (directory, harmless, open) in [
        (Directory::Given(given.clone()), 0o755, 0o777),
        (Directory::Ours(ours.clone()), 0o700, 0o750),
    ] {
        let path = directory.path();
        std::fs::create_dir(path).unwrap();
        set(path, open);
        let error = claim_default(std::slice::from_ref(&directory)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path:?}: ")), "{error}");
        assert!(find_in(std::slice::from_ref(&directory)).unwrap_err().contains("other users"));
        set(path, harmless);
        claim_default(&[directory]).unwrap();
    }
    // Things that look like a directory are not trusted either.
    let (link, file) = (Directory::Ours(dir.0.join("link")), Directory::Ours(dir.0.join("file")));
    std::os::unix::fs::symlink(&ours, link.path()).unwrap();
    std::fs::write(file.path(), "").unwrap();
    for it in [link, file] {
        let error = claim_default(std::slice::from_ref(&it)).unwrap_err().to_string();
        assert_eq!(error, format!("{:?} is not a directory", it.path()));
    }
    if std::os::unix::fs::chown(&ours, Some(65_534), None).is_err() {
        eprintln!("SKIPPED: only root can give a directory away");
        return;
    }
    let error = claim_default(&[Directory::Ours(ours.clone())]).unwrap_err().to_string();
    assert_eq!(error, format!("{ours:?} belongs to another user"));
    let none = find_in(&[Directory::Ours(ours.clone())]).unwrap_err();
    assert_eq!(none, format!("no primary is running ({ours:?} belongs to another user)"));
}
