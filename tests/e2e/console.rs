//! Standard error and standard output that take nothing, are shared, or are gone.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::rss_kib;
use roundel_tests::programs::optional;

use crate::addresses::Addresses;
use crate::cells::{on_all, on_both, skip};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    a_standard_error_that_nobody_reads_holds_up_nothing,
    a_terminal_that_is_stopped_holds_up_nothing,
    a_standard_error_that_is_gone_is_no_reason_to_stop,
    no_line_is_lost_on_a_pipe_that_workers_made_non_blocking,
}

on_both! {
    "its programs are Node's, whatever the column":
    unread_program_messages_cause_one_hint,
    an_event_log_that_nobody_reads_costs_bounded_memory,
    names_of_workers_forge_no_lines,
}

on_both! {
    "it is about the primary alone", one listener "it ends before anybody listens":
    an_error_at_the_start_ends_it_though_nobody_reads,
    messages_begin_with_the_name_of_the_binary,
}

pub(crate) fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    for fd in [reader.as_fd(), writer.as_fd()] {
        fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
    }
    (reader.into(), writer)
}

/// For all who share what is open here.
pub(crate) fn set_nonblocking(fd: impl AsFd, on: bool) {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).unwrap());
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(&fd, FcntlArg::F_SETFL(flags)).unwrap();
}

/// Writes until nothing more goes in; how much did.
pub(crate) fn fill(writer: &OwnedFd) -> usize {
    set_nonblocking(writer, true);
    let mut file = File::from(writer.try_clone().unwrap());
    let mut count = 0;
    while let Ok(some) = file.write(&[b'x'; 4096]) {
        count += some;
    }
    set_nonblocking(writer, false);
    count
}

/// A primary whose standard error is this.
pub(crate) struct Muted {
    primary: Started,
    dir: PathBuf,
    pub(crate) addr: Addresses,
}

impl Muted {
    fn start(on: Pair, stderr: impl Into<Stdio>, options: &[&str]) -> Muted {
        let set = |command: &mut Command| {
            command.stderr(stderr);
        };
        Muted::start_as(on, set, options, &on.demo_worker())
    }

    /// With this program, and the same for standard output.
    pub(crate) fn start_with(
        on: Pair,
        output: OwnedFd,
        options: &[&str],
        program: &[String],
    ) -> Muted {
        let set = |command: &mut Command| {
            command.stdout(output.try_clone().unwrap()).stderr(output);
        };
        Muted::start_as(on, set, options, program)
    }

    fn start_as(
        on: Pair,
        set: impl FnOnce(&mut Command),
        options: &[&str],
        program: &[String],
    ) -> Muted {
        let dir = temp_dir();
        let mut command = Command::new(on.binary());
        let bind = on.bind_options(&mut command);
        command.args(["run", "-w", "2"]).args(bind).args(options);
        command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
        command.args(program).stdin(Stdio::null());
        set(&mut command);
        let primary = Started::new(command, dir.clone());
        let addr = wait_for("the listeners", || {
            let events = fs::read_to_string(dir.join("events")).ok()?;
            let bound = events.lines().filter(|line| line.contains("\"bound\"")).map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                event["address"].as_str()?.parse().ok()
            });
            let bound: Vec<SocketAddr> = bound.collect::<Option<_>>()?;
            (bound.len() >= on.listeners).then(|| Addresses::new(bound[0], bound.get(1).copied()))
        });
        Muted { primary, dir, addr }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.primary.child.id() as i32)
    }

    pub(crate) fn events(&self, name: &str) -> usize {
        let events = fs::read_to_string(self.dir.join("events")).unwrap();
        events.matches(&format!("\"event\":\"{name}\"")).count()
    }

    /// Serves, also after a worker's death, and ends in time though a client keeps its worker.
    pub(crate) fn works_and_ends(mut self) {
        for _ in 0..10 {
            get(self.addr, "/").pid();
        }
        kill(Pid::from_raw(get(self.addr, "/").pid()), Signal::SIGKILL).unwrap();
        wait_for("the next worker", || (self.events("ready") == 3).then_some(()));
        get(self.addr, "/").pid();
        let _slow = send(self.addr, "/sleep?ms=600000").unwrap();
        let begun = Instant::now();
        kill(self.pid(), Signal::SIGTERM).unwrap();
        assert_eq!(self.primary.wait(), 0);
        // The deadline is 2 s; the machine may be busy with other tests.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

fn a_standard_error_that_nobody_reads_holds_up_nothing(on: Pair) {
    let (reader, writer) = pipe();
    let junk = fill(&writer);
    Muted::start(on, writer, &["--drain-timeout", "2s"]).works_and_ends();
    // Nothing went in, or the test tested nothing.
    assert_eq!({ reader }.read_to_end(&mut Vec::new()).unwrap(), junk);
}

/// Somebody has pressed Ctrl-S.
fn a_terminal_that_is_stopped_holds_up_nothing(on: Pair) {
    use nix::sys::termios::{FlowArg, tcflow};
    let pair = nix::pty::openpty(None, None).unwrap();
    tcflow(&pair.slave, FlowArg::TCOOFF).unwrap();
    let muted = Muted::start(on, pair.slave.try_clone().unwrap(), &["--drain-timeout", "2s"]);
    muted.works_and_ends();
    set_nonblocking(&pair.master, true);
    let mut nothing = [0; 100];
    assert!(File::from(pair.master).read(&mut nothing).is_err(), "the terminal was not stopped");
}

fn a_standard_error_that_is_gone_is_no_reason_to_stop(on: Pair) {
    let (reader, writer) = pipe();
    drop(reader);
    // EPIPE, EBADF and ENOSPC.
    let gone = [
        Stdio::from(writer),
        Stdio::from(File::open("/dev/null").unwrap()),
        Stdio::from(File::options().write(true).open("/dev/full").unwrap()),
    ];
    for stderr in gone {
        Muted::start(on, stderr, &["--drain-timeout", "2s"]).works_and_ends();
    }
}

/// Node does that to its standard error, and so to everybody's who shares what is open there.
fn no_line_is_lost_on_a_pipe_that_workers_made_non_blocking(on: Pair) {
    let (reader, writer) = pipe();
    let junk = fill(&writer);
    set_nonblocking(&writer, true);
    let more = ["-b", "127.0.0.1:0"].repeat(100);
    let mut muted = Muted::start(on, writer, &more);
    let listeners = on.listeners + 100;
    wait_for("all listeners", || (muted.events("bound") == listeners).then_some(()));
    wait_for("both workers", || (muted.events("ready") == 2).then_some(()));
    kill(Pid::from_raw(get(muted.addr, "/").pid()), Signal::SIGKILL).unwrap();
    wait_for("its end", || (muted.events("exited") == 1).then_some(()));
    let read = std::thread::spawn(move || {
        let mut reader = BufReader::with_capacity(512, reader);
        reader.read_exact(&mut vec![0; junk]).unwrap();
        reader.lines().map(Result::unwrap).collect::<Vec<_>>()
    });
    kill(muted.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(muted.primary.wait(), 0);
    let lines = read.join().unwrap();
    let said = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!(said("listening on "), listeners, "{lines:?}");
    assert_eq!(
        (said("is ready"), said("has ended")),
        (muted.events("ready"), muted.events("exited"))
    );
    assert_eq!((said("stopping"), said("missing")), (1, 0), "{lines:?}");
    let place = |words| lines.iter().position(|line| line.contains(words)).unwrap();
    assert!(place("control socket") < place("listening on "));
    assert!(place("listening on ") < place("is ready") && place("is ready") < place("stopping"));
}

fn an_error_at_the_start_ends_it_though_nobody_reads(on: Pair) {
    for (arguments, code) in [
        (["run", "--control", "/nonexistent/dir/socket", "true"], 1),
        (["run", "-w", "1", "/nonexistent/program"], 127),
    ] {
        let (reader, writer) = pipe();
        fill(&writer);
        let mut command = Command::new(on.binary());
        command.args(arguments).stderr(writer);
        let mut primary = Started::new(command, temp_dir());
        assert_eq!(primary.wait(), code);
        drop(reader);
    }
}

fn messages_begin_with_the_name_of_the_binary(on: Pair) {
    let (mut reader, writer) = pipe();
    let muted = Muted::start(on, writer, &[]);
    wait_for("both workers", || (muted.events("ready") == 2).then_some(()));
    muted.primary.stop();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let name = format!("{}: ", on.binary().file_name().unwrap().to_str().unwrap());
    assert!(said.lines().count() > 4 && said.lines().all(|line| line.starts_with(&name)), "{said}");
}

/// `roundel run ARGS` with this program for Node; `None` where there is no Node.
fn with_node(on: Pair, args: &[&str], stdout: Stdio, script: &str) -> Option<(Started, PathBuf)> {
    let Some(node) = optional::node() else {
        skip("no node");
        return None;
    };
    let dir = temp_dir();
    fs::write(dir.join("program.js"), script).unwrap();
    let mut command = Command::new(on.binary());
    command.args(["run", "-w", "1", "--control"]).arg(dir.join("control")).args(args);
    command.arg(node).arg(dir.join("program.js")).current_dir(&dir);
    command.stdin(Stdio::null()).stdout(stdout).stderr(File::create(dir.join("log")).unwrap());
    Some((Started::new(command, dir.clone()), dir))
}

fn unread_program_messages_cause_one_hint(on: Pair) {
    let script = "for (let n = 0; n < 5; n++) process.send({ topic: 'log4js:message', n });
        setInterval(() => process.send('more'), 5);
        require('net').createServer().listen(0);";
    let Some((primary, dir)) = with_node(on, &[], Stdio::null(), script) else { return };
    let log = || fs::read_to_string(dir.join("log")).unwrap();
    wait_for("the worker", || log().contains("is ready").then_some(()));
    let hints = |log: &str| {
        let hints = log.lines().filter(|line| line.contains("disableClustering"));
        hints.map(|line| assert!(line.contains("--events"), "{line}")).count()
    };
    wait_for("the hint", || (hints(&log()) == 1).then_some(()));
    primary.stop();
    // What is asked for is heard.
    let script = "require('net').createServer().listen(0, () => process.send('ready'))";
    let Some((primary, dir)) = with_node(on, &["--wait-ready"], Stdio::null(), script) else {
        return;
    };
    let log = || fs::read_to_string(dir.join("log")).unwrap();
    wait_for("the worker", || log().contains("is ready").then_some(()));
    assert_eq!(hints(&log()), 0);
    primary.stop();
    // With an event log, that is where they are.
    let events = ["--events", "events"];
    let script = "process.send('more'); require('net').createServer().listen(0);";
    let Some((primary, dir)) = with_node(on, &events, Stdio::null(), script) else { return };
    wait_for("a message", || {
        let events = fs::read_to_string(dir.join("events")).ok()?;
        events.contains("user_message").then_some(())
    });
    assert_eq!(hints(&fs::read_to_string(dir.join("log")).unwrap()), 0);
    primary.stop();
}

fn an_event_log_that_nobody_reads_costs_bounded_memory(on: Pair) {
    let _load = alone();
    // 60 MB of what programs say, 60 kB at a time. It listens anew to show how far it is.
    let script = "const text = 'x'.repeat(60_000);
        let n = 0;
        (function more() {
          for (let i = 0; i < 10; i++) process.send(text);
          if (++n % 20 === 0) require('net').createServer().listen(0);
          if (n < 100) setImmediate(more);
        })();";
    let (reader, writer) = pipe();
    let Some((primary, dir)) = with_node(on, &["--events", "-"], writer.into(), script) else {
        return;
    };
    let log = || fs::read_to_string(dir.join("log")).unwrap();
    let mut most = 0;
    for part in 1..=5 {
        wait_for("more of what it says", || {
            most = most.max(rss_kib(primary.child.id() as i32));
            (log().matches("listening on ").count() >= part).then_some(())
        });
    }
    assert!(most < 44 * 1024, "{most} KiB");
    primary.stop();
    let lines = BufReader::new(reader).lines().map_while(Result::ok);
    let whole = lines.filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert!(whole.count() > 0);
}

/// A path can hold anything. On a line of people's, and in a table, it is shown for what it is.
fn names_of_workers_forge_no_lines(on: Pair) {
    let script = r"const forged = 'a\nroundel: forged\x1b[2J\u009b2J\u202e';
        const net = require('net');
        net.createServer().listen('no/such/dir/' + forged).on('error', () => {
          net.createServer().listen(forged);
        });";
    let Some((primary, dir)) = with_node(on, &[], Stdio::null(), script) else { return };
    let log = || fs::read_to_string(dir.join("log")).unwrap();
    wait_for("the worker", || log().contains("is ready").then_some(()));
    let mut status = Command::new(on.binary());
    let table = status.args(["status", "--control"]).arg(dir.join("control")).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    for shown in [log(), table] {
        assert!(shown.contains(r"a\nroundel: forged\u{1b}[2J\u{9b}2J\u{202e}"), "{shown}");
        let raw = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
        assert!(!shown.contains(raw) && !shown.contains("\nroundel: forged"), "{shown}");
    }
    primary.stop();
}
