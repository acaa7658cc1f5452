//! The client's side: finding a primary, and talking to it.

use super::*;

#[test]
fn the_only_one_running_is_found() {
    let (first, second) = (Dir::new(), Dir::new());
    let places = [first.0.clone(), second.0.clone(), PathBuf::from("/nonexistent")];
    let places = places.map(Directory::Given);
    let none = find_in(&places).unwrap_err();
    assert!(none.starts_with("no primary is running (looked in \""), "{none}");
    // Dead sockets, sockets with other names, and files that are not sockets do not count.
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
    assert!(find_in(&[Directory::Given(dir.0.clone())]).is_err());
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
    let answers =
        ["{\"a\":1}\n", "{\"ok\":false,\"error\":\"no \\\"a\\\"\\n\\u001bb\"}\n", "{\"half"];
    let primary = answering(&path, answers.map(String::from).to_vec());
    let mut connection = Connection::open(&path).unwrap();
    assert_eq!(connection.pid(), Some(std::process::id().cast_signed()));
    assert_eq!(connection.ask(&Request::Status, LIMIT), Ok("{\"a\":1}".into()));
    let refused = connection.ask(&Request::Stop, LIMIT).unwrap_err();
    assert_eq!(refused, "the primary says: no \"a\"\n\\u{1b}b");
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
    let id = primary.server.accept(primary.now).unwrap().unwrap();
    let error = connection.ask(&Request::Status, Duration::from_millis(20)).unwrap_err();
    assert!(error.ends_with(": the primary does not answer"), "{error}");
    assert!(!connection.wait_for_end(Duration::from_millis(1)));
    drop(primary.server);
    assert!(connection.wait_for_end(LIMIT));
    assert_eq!(id, ClientId(1));
}

#[test]
fn requests_that_take_their_time_are_given_up_when_the_primary_is_silent() {
    let (short, request) = (Duration::from_millis(20), Request::Reload { dry_run: false });
    let primary = Primary::new();
    let mut connection = Connection::open(primary.server.path()).unwrap();
    let error = connection.ask_within(&request, short, LIMIT, |_| {}).unwrap_err();
    assert!(error.ends_with(": the primary does not answer"), "{error}");

    let dir = Dir::new();
    let path = dir.socket("1");
    let line = "{\"ready\":0,\"wanted\":2}\n";
    let primary = answering(&path, vec![line.repeat(3) + "{\"ok\":true}\n", line.repeat(2)]);
    let mut connection = Connection::open(&path).unwrap();
    let mut told = Vec::new();
    let answer = connection.ask_within(&request, LIMIT, LIMIT, |progress| told.push(progress));
    assert_eq!(answer, Ok("{\"ok\":true}".into()));
    assert_eq!(told, [Progress { ready: 0, wanted: 2 }], "repeated lines tell nothing");
    // The other end closes after its last answer: only the beginning is told of.
    let end = connection.ask_within(&request, LIMIT, short, |_| {}).unwrap_err();
    assert!(end.contains("--control: "), "{end}");
    primary.join().unwrap();
}

#[test]
fn one_that_had_to_make_room_learns_why() {
    let mut primary = Primary::new();
    let mut connection = Connection::open(primary.server.path()).unwrap();
    assert!(primary.server.accept(primary.now).unwrap().is_some());
    let _clients: Vec<_> = (0..MAX_CLIENTS).map(|_| primary.connect()).collect();
    let error = connection.ask(&Request::Status, LIMIT).unwrap_err();
    assert_eq!(error, "the primary says: too many clients");
}
