use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roundel_core::Time;
use serde_json::json;

use super::client::find_in;
use super::conversation::MAX_REQUEST;
use super::path::{claim, claim_default};
use super::server::MAX_CLIENTS;
use super::*;

/// What a test waits for at most.
const LIMIT: Duration = Duration::from_secs(10);

/// A directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "roundel-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn socket(&self, id: &str) -> PathBuf {
        self.0.join(format!("roundel-{id}.sock"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server, and the event loop that a primary has around it.
struct Primary {
    server: ControlServer,
    now: Time,
    _dir: Dir,
}

impl Primary {
    fn new() -> Self {
        let dir = Dir::new();
        let server = ControlServer::bind(Some(&dir.socket("1"))).unwrap();
        Primary { server, now: Time::from_millis(5), _dir: dir }
    }

    /// A client, and what the primary calls it.
    fn connect(&mut self) -> (UnixStream, ClientId) {
        let stream = self.dial();
        let id = self.server.accept().unwrap().unwrap();
        assert_eq!(self.server.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        (stream, id)
    }

    fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.path()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn ready(&mut self, id: ClientId) -> Option<Request> {
        self.server.on_ready(id, self.now)
    }

    fn reply(&mut self, id: ClientId, answer: &impl Serialize) {
        self.server.reply(id, answer, self.now);
    }

    fn is_gone(&self, id: ClientId) -> bool {
        self.server.wants_write(id).is_none()
    }
}

/// As closing, but at once: a process that another test forks off has a copy of every descriptor
/// until it execs.
fn hang_up(socket: &impl AsRawFd) {
    let both = nix::sys::socket::Shutdown::Both;
    nix::sys::socket::shutdown(socket.as_raw_fd(), both).unwrap();
}

/// What there is until the end of file.
fn read_all(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            // The server closed with bytes of ours unread; what it wrote came before.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Until a line break.
fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn error_of(text: &str) -> String {
    let failed: Failed = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
    assert!(!failed.ok);
    failed.error
}

#[test]
fn a_request_and_its_answer_and_the_next_one() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    assert_eq!(primary.ready(id), None);
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &json!({"a": 1}));
    assert_eq!(read_line(&mut stream), "{\"a\":1}\n");
    stream.write_all(b" {\"command\": \"stop\", \"later\": 1} \r\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Stop));
    primary.reply(id, &Stopping::YES);
    assert_eq!(read_line(&mut stream), "{\"ok\":true,\"stopping\":true}\n");
    assert_eq!(primary.server.wants_write(id), Some(false));
    assert_eq!(primary.server.deadline(), None);
    hang_up(&stream);
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id) && primary.server.client_fd(id).is_none());
}

#[test]
fn requests_come_out_one_by_one() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let lines = b"{\"command\":\"status\"}\n{\"command\":\"stop\"}\n{\"comm";
    stream.write_all(lines).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    assert_eq!(primary.ready(id), None, "not before the answer");
    primary.reply(id, &1);
    assert_eq!(primary.ready(id), Some(Request::Stop));
    primary.reply(id, &2);
    assert_eq!(primary.ready(id), None);
    assert_eq!(primary.server.deadline(), Some(primary.now.after(Duration::from_secs(10))));
    stream.write_all(b"and\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    assert_eq!(primary.server.deadline(), None);
}

#[test]
fn one_who_has_said_all_is_still_answered() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &true);
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id));
    assert_eq!(read_all(&mut stream), "true\n");
}

#[test]
fn garbage_is_answered_and_closed() {
    let garbage: [&[u8]; 8] = [
        b"\n",
        b"status\n",
        b"\xff\xfe\x00\n",
        b"{}\n",
        b"{\"command\":\"dance\"}\n",
        b"{\"command\":7}\n",
        b"[\"status\"]\n",
        b"{\"command\":\"status\"} more\n",
    ];
    let mut primary = Primary::new();
    for bytes in garbage {
        let (mut stream, id) = primary.connect();
        stream.write_all(bytes).unwrap();
        assert_eq!(primary.ready(id), None, "{bytes:?}");
        assert!(primary.is_gone(id), "{bytes:?}");
        let text = read_all(&mut stream);
        assert!(error_of(&text).starts_with("not a request: "), "{text}");
    }
    let nested = [vec![b'['; 60_000], vec![b'\n']].concat();
    let (mut stream, id) = primary.connect();
    stream.write_all(&nested).unwrap();
    assert_eq!(primary.ready(id), None);
    assert!(error_of(&read_all(&mut stream)).starts_with("not a request: "));
}

#[test]
fn a_request_has_a_longest_length() {
    let padded = |len: usize| {
        let request = b"{\"command\":\"status\"}".to_vec();
        [request, vec![b' '; len - 21], vec![b'\n']].concat()
    };
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(&padded(MAX_REQUEST)).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    let (mut stream, id) = primary.connect();
    stream.write_all(&padded(MAX_REQUEST + 1)).unwrap();
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id));
    assert_eq!(error_of(&read_all(&mut stream)), "a request is longer than 64 KiB");
}

#[test]
fn a_begun_request_must_end_in_time() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let (_idle, idle) = primary.connect();
    assert_eq!((primary.ready(id), primary.server.deadline()), (None, None));
    let deadline = primary.now.after(Duration::from_secs(10));
    // Going on with it does not move the deadline.
    for byte in b"{\"command\":" {
        stream.write_all(&[*byte]).unwrap();
        assert_eq!(primary.ready(id), None);
        assert_eq!(primary.server.deadline(), Some(deadline));
        primary.now = primary.now.after(Duration::from_millis(100));
    }
    assert_eq!(primary.server.expire(Time::from_nanos(deadline.as_nanos() - 1)), []);
    assert_eq!(primary.server.expire(deadline), [id]);
    assert!(primary.is_gone(id) && !primary.is_gone(idle));
    assert_eq!(error_of(&read_all(&mut stream)), "the request was not complete within 10 s");
    assert_eq!(primary.server.deadline(), None);
}

#[test]
fn a_slow_reader_holds_up_nobody() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let long = "x".repeat(4 << 20);
    stream.write_all(b"{\"command\":\"status\"}\n{\"command\":\"stop\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &long);
    assert_eq!(primary.server.wants_write(id), Some(true));
    assert_eq!(primary.ready(id), None, "no further request while an answer waits");
    let mut got = Vec::new();
    let mut chunk = [0; 64 * 1024];
    while got.last() != Some(&b'\n') {
        primary.now = primary.now.after(Duration::from_secs(1));
        let count = stream.read(&mut chunk).unwrap();
        got.extend_from_slice(&chunk[..count]);
        if primary.server.wants_write(id) == Some(true) {
            assert_eq!(primary.server.expire(primary.now), [], "it does read");
            match primary.ready(id) {
                None => {}
                next => assert_eq!(next, Some(Request::Stop)),
            }
        }
    }
    assert_eq!(got.len(), long.len() + 3);
    assert_eq!(primary.server.wants_write(id), Some(false));
    // Who reads nothing at all is let go.
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &long);
    let deadline = primary.server.deadline().unwrap();
    assert_eq!(deadline, primary.now.after(Duration::from_secs(10)));
    assert_eq!(primary.ready(id), None);
    assert_eq!(primary.server.expire(deadline), [id]);
    let text = read_all(&mut stream);
    assert!(text.len() < long.len() && text.trim_start_matches('"').chars().all(|c| c == 'x'));
}

#[test]
fn a_reader_that_leaves_is_forgotten() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    hang_up(&stream);
    primary.reply(id, &"for nobody");
    assert!(primary.is_gone(id));
    primary.reply(id, &"again");
    primary.server.close(id);
    assert_eq!(primary.ready(id), None);
}

#[test]
fn closing_is_seen_whoever_holds_the_descriptor() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let _held = Arc::clone(primary.server.client_fd(id).unwrap());
    primary.server.close(id);
    assert_eq!(read_all(&mut stream), "");
}

#[test]
fn one_too_many_is_told_so() {
    let mut primary = Primary::new();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| primary.connect()).collect();
    let mut late = primary.dial();
    assert_eq!(primary.server.accept().unwrap(), None);
    assert_eq!(error_of(&read_all(&mut late)), "too many clients");
    let (first, id) = clients.remove(0);
    hang_up(&first);
    assert_eq!(primary.ready(id), None);
    let (_stream, next) = primary.connect();
    assert!(clients.iter().all(|(_, id)| *id != next) && next != id);
}

#[test]
fn the_socket_is_readable_when_somebody_comes() {
    let primary = Primary::new();
    let is_ready = || {
        let mut fds = [PollFd::new(primary.server.fd().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!is_ready());
    let _stream = primary.dial();
    assert!(is_ready());
}

#[test]
fn the_mode_is_0600_whatever_the_umask() {
    let primary = Primary::new();
    let metadata = std::fs::metadata(primary.server.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

/// Run in a process of another user by the test after it.
#[test]
fn as_another_user() {
    let Some(path) = std::env::var_os("ROUNDEL_TEST_CONTROL") else { return };
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // It is closed without a word; writing may fail already.
    let _ = stream.write_all(b"{\"command\":\"stop\"}\n");
    assert_eq!(read_all(&mut stream), "");
}

#[test]
fn another_user_is_turned_away_though_the_mode_lets_him_in() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    // The test program must be where the other user can run it.
    let dir = Dir::new();
    let program = dir.0.join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let path = dir.socket("1");
    let mut server = ControlServer::bind(Some(&path)).unwrap();
    for (path, mode) in [(&dir.0, 0o755), (&program, 0o755), (&path, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut child = std::process::Command::new(&program)
        .args(["--exact", "control::tests::as_another_user"])
        .env("ROUNDEL_TEST_CONTROL", &path)
        .stdout(std::process::Stdio::null())
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .spawn()
        .unwrap();
    let mut fds = [PollFd::new(server.fd().as_fd(), PollFlags::POLLIN)];
    let came = poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
    let accepted = if came == 1 { server.accept().unwrap() } else { Some(ClientId(0)) };
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
    let line = format!("--control: {path:?} belongs to a primary that is running");
    assert_eq!(error.to_string(), line);
    UnixStream::connect(&path).unwrap();
    drop(server);
    // One whose backlog is full is alive too.
    let listener = full_listener(&path);
    let error = ControlServer::bind(Some(&path)).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert_eq!(
        Connection::open(&path).unwrap_err(),
        format!("--control: {path:?}: the primary does not answer")
    );
    drop(listener);
}

/// A listener that takes no connection more, and those that fill it.
fn full_listener(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = super::path::dial(path) {
        waiting.push(stream);
        assert!(waiting.len() < 100);
    }
    (listener, waiting)
}

#[test]
fn what_is_no_socket_is_never_removed() {
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
    assert_eq!(error, format!("--control: {file:?} exists and is no socket"));
}

#[test]
fn a_path_that_cannot_be() {
    let dir = Dir::new();
    for path in [dir.0.join("no/such/dir.sock"), dir.0.join("x".repeat(120)), PathBuf::new()] {
        let error = ControlServer::bind(Some(&path)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--control: {path:?}: ")), "{error}");
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
    let (dir, missing) = (Dir::new(), PathBuf::from("/nonexistent"));
    let name = format!("roundel-{}.sock", std::process::id());
    let (_fd, place) = claim_default(&[missing.clone(), dir.0.clone()]).unwrap();
    assert_eq!(place.path(), dir.0.join(&name));
    assert!(claim_default(&[missing]).is_err());
    assert!(claim_default(&[]).is_err());
}

#[test]
fn the_only_one_running_is_found() {
    let (first, second) = (Dir::new(), Dir::new());
    let places = [first.0.clone(), second.0.clone(), PathBuf::from("/nonexistent")];
    let none = find_in(&places).unwrap_err();
    assert!(none.starts_with("no primary is running (looked in \""), "{none}");
    // Neither the dead, nor those of other names, nor what is no socket counts.
    hang_up(&UnixListener::bind(first.socket("9")).unwrap());
    let _other = UnixListener::bind(first.0.join("other.sock")).unwrap();
    std::fs::write(first.socket("8"), "").unwrap();
    let one = claim(&second.socket("1")).unwrap();
    assert_eq!(find_in(&places), Ok(second.socket("1")));
    let two = claim(&first.socket("2")).unwrap();
    let several = find_in(&places).unwrap_err();
    let mut paths = [first.socket("2"), second.socket("1")];
    paths.sort();
    let [a, b] = paths;
    assert_eq!(several, format!("--control: several primaries are running: {a:?}, {b:?}"));
    drop(two);
    assert_eq!(find_in(&places), Ok(second.socket("1")));
    drop(one);
    assert!(find_in(&places).is_err());
    assert_eq!(find(Some(Path::new("/x"))), Ok(PathBuf::from("/x")));
}

#[test]
fn sockets_of_other_users_are_not_looked_at() {
    let dir = Dir::new();
    let path = dir.socket("1");
    let _claimed = claim(&path).unwrap();
    if std::os::unix::fs::lchown(&path, Some(65_534), None).is_err() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    assert!(find_in(std::slice::from_ref(&dir.0)).is_err());
}

/// A primary on a thread, which answers each line it gets with the next of `answers` and closes.
fn answering(path: &Path, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let answer = |answer: String| {
            let line = read_line(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            line
        };
        let lines = answers.into_iter().map(answer).collect();
        hang_up(&stream);
        hang_up(&listener);
        lines
    })
}

#[test]
fn asking() {
    let dir = Dir::new();
    let path = dir.socket("1");
    let answers = ["{\"a\":1}\n", "{\"ok\":false,\"error\":\"no\\n\"}\n", "{\"half"];
    let primary = answering(&path, answers.map(String::from).to_vec());
    let mut connection = Connection::open(&path).unwrap();
    assert_eq!(connection.pid(), Some(std::process::id().cast_signed()));
    assert_eq!(connection.ask(&Request::Status, LIMIT), Ok("{\"a\":1}".into()));
    let refused = connection.ask(&Request::Stop, LIMIT).unwrap_err();
    assert_eq!(refused, "the primary says: \"no\\n\"");
    let cut = connection.ask(&Request::Stop, LIMIT).unwrap_err();
    assert_eq!(cut, format!("--control: {path:?}: the primary closed the connection"));
    let asked = primary.join().unwrap();
    let (status, stop) = ("{\"command\":\"status\"}\n", "{\"command\":\"stop\"}\n");
    assert_eq!(asked, [status, stop, stop]);
    assert!(connection.wait_for_end(LIMIT));
    assert_eq!(
        Connection::open(&path).unwrap_err(),
        format!("--control: {path:?}: no primary is running there")
    );
}

#[test]
fn a_primary_that_does_not_answer() {
    let mut primary = Primary::new();
    let mut connection = Connection::open(primary.server.path()).unwrap();
    let id = primary.server.accept().unwrap().unwrap();
    let error = connection.ask(&Request::Status, Duration::from_millis(20)).unwrap_err();
    assert!(error.ends_with(": the primary does not answer"), "{error}");
    assert!(!connection.wait_for_end(Duration::from_millis(1)));
    drop(primary.server);
    assert!(connection.wait_for_end(LIMIT));
    assert_eq!(id, ClientId(1));
}

#[test]
fn one_turned_away_learns_why() {
    let mut primary = Primary::new();
    let _clients: Vec<_> = (0..MAX_CLIENTS).map(|_| primary.connect()).collect();
    let mut connection = Connection::open(primary.server.path()).unwrap();
    assert_eq!(primary.server.accept().unwrap(), None);
    let error = connection.ask(&Request::Status, LIMIT).unwrap_err();
    assert_eq!(error, "the primary says: \"too many clients\"");
}
