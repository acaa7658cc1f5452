//! `top` in a terminal of its own.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::Termios;
use nix::unistd::Pid;
use roundel_tests::programs::terminal::Terminal;

use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it asks the primary alone":
    top_shows_workers_reloads_and_leaves,
    top_ends_with_its_primary,
    top_waits_for_a_primary_that_hangs,
    signals_give_the_terminal_back,
    top_needs_a_terminal,
    top_needs_a_terminal_that_moves_its_cursor,
}

struct Top {
    child: Child,
    terminal: Terminal,
    /// The settings of the terminal before.
    before: Termios,
}

impl Top {
    fn start(on: Pair, cluster: &Cluster) -> Top {
        let terminal = Terminal::new(20, 120);
        let before = terminal.settings();
        let mut command = Command::new(on.binary());
        command.arg("top").arg("--control").arg(cluster.dir.join("control"));
        command.env("RUST_BACKTRACE", "0");
        let child = terminal.start(command);
        let top = Top { child, terminal, before };
        top.terminal.line("the table", |line| line.starts_with("SLOT "));
        assert_ne!(top.terminal.settings(), top.before);
        assert!(top.is_taken_over());
        top
    }

    fn is_taken_over(&self) -> bool {
        let screen = self.terminal.screen();
        screen.screen().alternate_screen() && screen.screen().hide_cursor()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits until the terminal is as it was before.
    fn given_back(&self) {
        wait_for("the settings", || (self.terminal.settings() == self.before).then_some(()));
        wait_for("the first screen", || {
            let screen = self.terminal.screen();
            let is_as_before = !screen.screen().alternate_screen();
            (is_as_before && !screen.screen().hide_cursor()).then_some(())
        });
    }

    /// Waits for its end, which leaves the terminal as it was; its exit code, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = wait_for("its end", || self.child.try_wait().unwrap());
        self.given_back();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The row of a slot, if its worker is ready and of this generation.
fn is_row(line: &str, slot: &str, generation: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(&words[..], [first, _, "ready", third, ..] if *first == slot && *third == generation)
}

fn top_shows_workers_reloads_and_leaves(on: Pair) {
    let cluster = on.demo(&["-w", "2"]);
    let pids = cluster.ready(2);
    let top = Top::start(on, &cluster);
    let row = top.terminal.line("a worker", |line| is_row(line, "0", "1"));
    assert!(pids.iter().any(|pid| row.contains(&pid.to_string())), "{row}");
    let port = cluster.addr.to_string();
    top.terminal.line("the listener", |line| line.starts_with(&port));
    // A no, then a yes.
    for answer in ["n", "y"] {
        top.terminal.press("r");
        top.terminal.line("the question", |line| line.starts_with("reload: replace all workers?"));
        assert_eq!(cluster.events_named("reload_started").len(), 0);
        top.terminal.press(answer);
    }
    top.terminal.line("the end of the reload", |line| line == "reload: generation 2 serves");
    for slot in ["0", "1"] {
        top.terminal.line("a new worker", |line| is_row(line, slot, "2"));
    }
    top.terminal.press("+");
    top.terminal.line("the end of the scaling", |line| line == "scale: 3 workers, 2 before");
    top.terminal.line("the third worker", |line| is_row(line, "2", "2"));
    top.terminal.resize(5, 20);
    top.terminal.line("a low screen", |line| line == "3/3 ready  0 conn/s");
    top.terminal.press("q");
    assert_eq!(top.end(), (Some(0), String::new()));
    cluster.stop();
}

fn top_ends_with_its_primary(on: Pair) {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut cluster = on.demo(&["-w", "1"]);
        cluster.ready(1);
        let top = Top::start(on, &cluster);
        cluster.signal(signal);
        cluster.wait();
        let name = on.binary().file_name().unwrap().to_str().unwrap().to_owned();
        let line = format!("{name}: the primary {} has ended\n", cluster.pid());
        assert_eq!(top.end(), (Some(1), line));
    }
}

fn top_waits_for_a_primary_that_hangs(on: Pair) {
    let cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    let top = Top::start(on, &cluster);
    let other = Top::start(on, &cluster);
    cluster.signal(Signal::SIGSTOP);
    top.terminal.line("the silence", |line| line == "no answer since 3 s");
    top.terminal.line("more of it", |line| line == "no answer since 4 s");
    // Keys are heard meanwhile.
    other.terminal.press("?");
    other.terminal.line("help", |line| line.starts_with("r  ") && line.contains("reload"));
    other.terminal.press("q");
    assert_eq!(other.end(), (Some(0), String::new()));
    cluster.signal(Signal::SIGCONT);
    wait_for("an answer", || {
        let lines = top.terminal.lines();
        (!lines.iter().any(|line| line.starts_with("no answer"))).then_some(())
    });
    top.terminal.press("\u{3}");
    assert_eq!(top.end(), (Some(0), String::new()));
    cluster.stop();
}

fn signals_give_the_terminal_back(on: Pair) {
    let cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let top = Top::start(on, &cluster);
        kill(top.pid(), end).unwrap();
        assert_eq!(top.end(), (Some(0), String::new()));
    }
    let top = Top::start(on, &cluster);
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", top.pid())).unwrap();
        stat.contains(") T ").then_some(())
    };
    // From outside, and with the key.
    let stop: [&dyn Fn(); 2] =
        [&|| kill(top.pid(), Signal::SIGTSTP).unwrap(), &|| top.terminal.press("\u{1a}")];
    for stop in stop {
        stop();
        wait_for("its stop", is_stopped);
        top.given_back();
        kill(top.pid(), Signal::SIGCONT).unwrap();
        wait_for("its screen", || top.is_taken_over().then_some(()));
        top.terminal.line("a worker", |line| is_row(line, "0", "1"));
        assert_ne!(top.terminal.settings(), top.before);
    }
    top.terminal.press("q");
    assert_eq!(top.end(), (Some(0), String::new()));
    cluster.stop();
}

fn top_needs_a_terminal(on: Pair) {
    let cluster = on.demo(&["-w", "1"]);
    let mut command = Command::new(on.binary());
    command.arg("top").arg("--control").arg(cluster.dir.join("control"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), said.lines().count()), (Some(1), 0, 1));
    assert!(said.contains("top needs a terminal") && said.contains(" status "), "{said}");
    cluster.stop();
}

fn top_needs_a_terminal_that_moves_its_cursor(on: Pair) {
    let cluster = on.demo(&["-w", "1"]);
    for (words, why) in [(["-u", "TERM"], "TERM is not set"), (["-", "TERM=dumb"], "TERM=dumb")] {
        let terminal = Terminal::new(20, 120);
        let mut command = Command::new("env");
        command.args(words).arg(on.binary()).args(["top", "--control"]);
        command.arg(cluster.dir.join("control"));
        // One that takes the terminal over all the same leaves it again.
        terminal.press("q");
        let output = terminal.start(command).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let name = on.binary().file_name().unwrap().to_str().unwrap().to_owned();
        let line = format!(
            "{name}: top: the terminal can't move its cursor ({why}): {name} status prints the \
             same once\n"
        );
        assert_eq!((output.status.code(), said), (Some(1), line));
    }
    cluster.stop();
}
