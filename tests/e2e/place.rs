//! Where the control socket is, and what the primary does where it can't be.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cells::{on_all, on_both, skip};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    without_its_default_place_the_primary_serves_on,
}

on_both! {
    "it is about the primary alone", one listener "it is about the control socket and files":
    the_default_place_is_a_directory_of_the_user,
    another_container_with_the_same_pid_is_no_hindrance,
    commands_look_where_primaries_are,
    a_place_that_was_asked_for_is_an_error,
    two_that_find_a_stale_path_are_never_both_ready,
    a_socket_that_does_not_listen_yet_is_not_taken_over,
    as_many_as_like_to_be_connected_never_keep_a_command_out,
    two_options_never_name_one_file,
    logs_are_for_the_user_alone,
}

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A primary that says on standard error where it listens, in a temporary directory of its own.
struct Placed {
    primary: Started,
    dir: PathBuf,
}

impl Placed {
    fn start(on: Pair, temporary: &Path, options: &[&str]) -> Placed {
        Placed::start_by(on, Command::new(on.binary()), temporary, options)
    }

    fn start_by(on: Pair, mut command: Command, temporary: &Path, options: &[&str]) -> Placed {
        let dir = temp_dir();
        let bind = on.bind_options(&mut command);
        command.args(["run", "-w", "1"]).args(bind).args(options).args(on.demo_worker());
        command.env("TMPDIR", temporary).env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null()).stderr(fs::File::create(dir.join("log")).unwrap());
        Placed { primary: Started::new(command, dir.clone()), dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn line(&self, with: &str) -> String {
        wait_for(with, || self.log().lines().find(|line| line.contains(with)).map(str::to_owned))
    }

    fn addr(&self) -> SocketAddr {
        self.line("listening on ").split("listening on ").nth(1).unwrap().parse().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.line("control socket ").split("control socket ").nth(1).unwrap().into()
    }
}

fn ask(on: Pair, temporary: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(on.binary());
    command.args(args).env("TMPDIR", temporary).env_remove("XDG_RUNTIME_DIR");
    command.output().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn without_its_default_place_the_primary_serves_on(on: Pair) {
    let dir = temp_dir();
    let ours = format!("roundel-{}", uid());
    let make = |name: &str| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let long = make(&"x".repeat(150));
    let (file, link, open) = (make("file"), make("link"), make("open"));
    fs::write(file.join(&ours), "").unwrap();
    symlink(&dir, link.join(&ours)).unwrap();
    fs::create_dir(open.join(&ours)).unwrap();
    fs::set_permissions(open.join(&ours), fs::Permissions::from_mode(0o777)).unwrap();
    let mut places = vec![
        (dir.join("missing"), "No such file"),
        (long, "too long"),
        (file, "not a directory"),
        (link, "not a directory"),
        (open, "other users can access it"),
        // Nobody can make anything there, root neither.
        (PathBuf::from("/proc"), "No such file"),
    ];
    if uid() == 0 {
        let another = make("another");
        fs::create_dir(another.join(&ours)).unwrap();
        std::os::unix::fs::chown(another.join(&ours), Some(65_534), None).unwrap();
        places.push((another, "another user"));
    }
    for (place, cause) in places {
        let placed = Placed::start(on, &place, &[]);
        get(placed.addr(), "/").pid();
        let line = placed.line("without a control socket");
        assert!(line.contains(cause) && line.contains("--control off"), "{line}");
        assert_eq!(placed.log().matches("control socket").count(), 1, "{}", placed.log());
        placed.primary.stop();
    }
    let placed = Placed::start(on, &dir.join("missing"), &["--control", "off"]);
    get(placed.addr(), "/").pid();
    assert!(!placed.log().contains("control socket"), "{}", placed.log());
    placed.primary.stop();
    fs::remove_dir_all(dir).unwrap();
}

fn the_default_place_is_a_directory_of_the_user(on: Pair) {
    let dir = temp_dir();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let placed = Placed::start(on, &dir, &[]);
    let pid = placed.primary.child.id();
    let ours = dir.join(format!("roundel-{}", uid()));
    assert_eq!(placed.socket(), ours.join(format!("roundel-{pid}.sock")));
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&ours), mode(&placed.socket())), (0o700, 0o600));
    placed.primary.stop();
    assert_eq!(fs::read_dir(&ours).unwrap().count(), 0);
    // One that is given is used, if it is the user's own.
    for (mode, used) in [(0o700, true), (0o777, false)] {
        let runtime = temp_dir();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new("env");
        command.arg(format!("XDG_RUNTIME_DIR={}", runtime.display())).arg(on.binary());
        let placed = Placed::start_by(on, command, &dir, &[]);
        let wanted = if used { &runtime } else { &ours };
        assert_eq!(placed.socket().parent(), Some(wanted.as_path()));
        placed.primary.stop();
        fs::remove_dir_all(runtime).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}

/// As where two containers share a /tmp: each primary is process 1.
fn another_container_with_the_same_pid_is_no_hindrance(on: Pair) {
    let dir = temp_dir();
    let ours = dir.join(format!("roundel-{}", uid()));
    fs::create_dir(&ours).unwrap();
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o700)).unwrap();
    let go = dir.join("go");
    let mut command = Command::new("sh");
    let script = r#"until [ -e "$0" ]; do sleep 0.01; done; exec "$@""#;
    command.args(["-c", script]).arg(&go).arg(on.binary());
    let placed = Placed::start_by(on, command, &dir, &[]);
    // The shell becomes the primary: it keeps its number.
    let path = ours.join(format!("roundel-{}.sock", placed.primary.child.id()));
    let another = UnixListener::bind(&path).unwrap();
    fs::write(go, "").unwrap();
    get(placed.addr(), "/").pid();
    let line = placed.line("without a control socket");
    assert!(line.contains("a running primary"), "{line}");
    placed.primary.stop();
    UnixStream::connect(&path).unwrap();
    drop(another);
    fs::remove_dir_all(dir).unwrap();
}

/// The control socket of a primary that runs on this machine and is none of the tests', if its place
/// is one where commands always look.
fn another_primary() -> Option<PathBuf> {
    let places = [format!("/run/user/{}", uid()), format!("/tmp/roundel-{}", uid())];
    let files = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let sockets = files.map(|file| file.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("roundel-") && name.ends_with(".sock")
    });
    sockets.into_iter().find(|path| UnixStream::connect(path).is_ok())
}

fn commands_look_where_primaries_are(on: Pair) {
    if let Some(socket) = another_primary() {
        return skip(&format!("commands find another primary: {}", socket.display()));
    }
    let dir = temp_dir();
    let none = ask(on, &dir, &["status"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(error_of(&none).contains("no primary is running"), "{}", error_of(&none));
    let first = Placed::start(on, &dir, &[]);
    first.line("is ready");
    let status = ask(on, &dir, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["primary"]["pid"], first.primary.child.id());
    let second = Placed::start(on, &dir, &[]);
    second.line("is ready");
    let several = error_of(&ask(on, &dir, &["status"]));
    for placed in [&first, &second] {
        assert!(several.contains(placed.socket().to_str().unwrap()), "{several}");
    }
    assert_eq!(several.matches("--control").count(), 1, "{several}");
    second.primary.stop();
    let mut primary = first.primary;
    assert_eq!(ask(on, &dir, &["stop"]).status.code(), Some(0));
    assert_eq!(primary.wait(), 0);
    if uid() == 0 {
        let ours = dir.join(format!("roundel-{}", uid()));
        std::os::unix::fs::chown(&ours, Some(65_534), None).unwrap();
        let refused = error_of(&ask(on, &dir, &["stop"]));
        assert!(refused.contains("belongs to another user"), "{refused}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Where a path was given, nothing starts without it, and the line names the option once.
fn a_place_that_was_asked_for_is_an_error(on: Pair) {
    let dir = temp_dir();
    let (file, live) = (dir.join("file"), dir.join("live"));
    fs::write(&file, "kept").unwrap();
    let _live = UnixListener::bind(&live).unwrap();
    let bad = [dir.join("missing/socket"), dir.join("x".repeat(120)), file, live];
    for path in bad {
        let path = path.to_str().unwrap();
        let output = Command::new(on.binary())
            .args(["run", "-w", "1", "--control", path, "sleep", "1000"])
            .output()
            .unwrap();
        let error = error_of(&output);
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert_eq!(error.matches("--control").count(), 1, "{error}");
        assert!(error.contains(path), "{error}");
    }
    fs::remove_dir_all(dir).unwrap();
}

fn two_that_find_a_stale_path_are_never_both_ready(on: Pair) {
    let dir = temp_dir();
    let path = dir.join("control");
    for _ in 0..10 {
        drop(UnixListener::bind(&path).unwrap());
        let start = |_| {
            let own = temp_dir();
            let mut command = Command::new(on.binary());
            command.args(["run", "-w", "1", "--control"]).arg(&path).args(["sleep", "1000"]);
            command.stderr(fs::File::create(own.join("log")).unwrap());
            (Started::new(command, own.clone()), own)
        };
        let both: Vec<_> = (0..2).map(start).collect();
        let has_path = |own: &PathBuf| {
            let log = fs::read_to_string(own.join("log")).unwrap();
            match () {
                () if log.contains("control socket") => Some(true),
                () if log.contains("--control") => Some(false),
                () => None,
            }
        };
        let outcomes: Vec<bool> =
            both.iter().map(|(_, own)| wait_for("an outcome", || has_path(own))).collect();
        assert_eq!(outcomes.iter().filter(|ready| **ready).count(), 1, "{outcomes:?}");
        UnixStream::connect(&path).unwrap();
        for ((mut started, _), ready) in both.into_iter().zip(outcomes) {
            if ready { started.stop() } else { assert_eq!(started.wait(), 1) }
        }
        assert!(!path.exists());
    }
    fs::remove_dir_all(dir).unwrap();
}

/// It is bound and will listen in a moment: to connect(2) it looks as one that nobody has any more.
fn a_socket_that_does_not_listen_yet_is_not_taken_over(on: Pair) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    use std::os::fd::AsRawFd;
    let dir = temp_dir();
    let (control, listener) = (dir.join("control"), dir.join("listener"));
    let bound = [&control, &listener].map(|path| {
        let (family, flags) = (AddressFamily::Unix, SockFlag::SOCK_CLOEXEC);
        let fd = socket(family, SockType::Stream, flags, None).unwrap();
        bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        fd
    });
    for (options, code) in [
        (vec!["--control".to_owned(), control.to_str().unwrap().to_owned()], 1),
        (vec!["--bind".to_owned(), format!("unix:{}", listener.display())], 4),
    ] {
        let mut command = Command::new(on.binary());
        command.args(["run", "-w", "1"]).args(&options).args(["sleep", "1000"]);
        let output = command.env("TMPDIR", &dir).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {}", error_of(&output));
    }
    for (fd, path) in bound.iter().zip([&control, &listener]) {
        nix::sys::socket::listen(fd, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        UnixStream::connect(path).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Those that say nothing make room, the newest command gets in, and serving goes on in a flood.
fn as_many_as_like_to_be_connected_never_keep_a_command_out(on: Pair) {
    let _load = alone();
    let mut cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    let path = cluster.dir.join("control");
    let _idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
    cluster.ready(1);
    let (over, flooded) = (std::sync::atomic::AtomicBool::new(false), path.clone());
    std::thread::scope(|scope| {
        use std::sync::atomic::Ordering::Relaxed;
        scope.spawn(|| {
            while !over.load(Relaxed) {
                // A full backlog is no failure of the test.
                let _ = UnixStream::connect(&flooded);
            }
        });
        for _ in 0..50 {
            cluster.get("/").pid();
        }
        over.store(true, Relaxed);
    });
    let _idle: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let stop = Command::new(on.binary()).args(["stop", "--control"]).arg(&path).output().unwrap();
    assert_eq!(stop.status.code(), Some(0), "{}", error_of(&stop));
    assert_eq!(cluster.wait(), 0);
}

/// The start is refused, and what was there is as it was.
fn two_options_never_name_one_file(on: Pair) {
    let dir = temp_dir();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(at("file"), "kept").unwrap();
    fs::hard_link(at("file"), at("hard")).unwrap();
    symlink(at("new"), at("soft")).unwrap();
    let (file, hard, new, soft) = (at("file"), at("hard"), at("new"), at("soft"));
    let bad = [
        [["--events", file.as_str()], ["--journal", &file]],
        [["--events", &file], ["--journal", &hard]],
        [["--events", &new], ["--journal", &soft]],
        [["--events", "-"], ["--journal", &hard]],
        [["--events", "-"], ["--journal", "/dev/stdout"]],
        [["--control", &new], ["--events", &soft]],
        [["--journal", &new], ["--control", &new]],
    ];
    for options in bad {
        let output = Command::new(on.binary())
            .args(["run", "-w", "1"])
            .args(options.as_flattened())
            .args(["sleep", "1000"])
            .stdout(fs::File::options().append(true).open(at("file")).unwrap())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let error = error_of(&output);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        for [option, _] in options {
            assert_eq!(error.matches(option).count(), 1, "{error}");
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"kept");
        assert!(!Path::new(&new).exists());
    }
    fs::remove_dir_all(dir).unwrap();
}

fn logs_are_for_the_user_alone(on: Pair) {
    let journal = temp_dir().join("journal");
    let cluster = on.demo(&["-w", "1", "--journal", journal.to_str().unwrap()]);
    cluster.ready(1);
    let mode = |path: &Path| fs::metadata(path).map(|it| it.permissions().mode() & 0o777).ok();
    let events = cluster.dir.join("events");
    assert_eq!((mode(&events), mode(&journal)), (Some(0o600), Some(0o600)));
    fs::rename(&events, cluster.dir.join("events.1")).unwrap();
    cluster.signal(nix::sys::signal::Signal::SIGUSR1);
    wait_for("the new file", || mode(&events).map(|mode| assert_eq!(mode, 0o600)));
    cluster.stop();
    fs::remove_dir_all(journal.parent().unwrap()).unwrap();
}
