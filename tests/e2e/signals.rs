//! What signals do to the primary, and what they don't.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

use crate::cells::{as_process_one, on_both};
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "signals are for the primary":
    no_signal_ends_the_primary_by_its_default_action,
    quit_ends_at_once_and_in_order,
}

on_both! {
    "signals are for the primary", one listener "the worker listens to nothing":
    workers_start_with_signals_as_they_are_by_default,
}

as_process_one! {
    no_signal_ends_the_primary_by_its_default_action,
    quit_ends_at_once_and_in_order,
}

/// Those that end it, those that tell of a fault, and those that stop or continue.
const OTHERS: [i32; 16] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    // The C library's own.
    32,
    33,
];

fn send_number(pid: i32, number: i32) {
    let status = Command::new("sh").args(["-c", &format!("kill -{number} {pid}")]).status();
    assert!(status.unwrap().success(), "signal {number}");
}

fn no_signal_ends_the_primary_by_its_default_action(on: Pair) {
    let cluster = on.demo(&["-w", "1"]);
    let first = cluster.ready(1);
    let numbers = (1..=libc::SIGRTMAX()).filter(|number| !OTHERS.contains(number));
    let mut count = 0;
    for number in numbers {
        send_number(cluster.pid(), number);
        count += 1;
    }
    assert!(count > 45);
    // What was sent before it was asked has been read by then.
    cluster.get("/").pid();
    for line in ["upgrade is not available yet; SIGUSR2 is ignored", "SIGXCPU: "] {
        cluster.said(line);
    }
    // HUP reloads; TTIN and TTOU together change nothing.
    wait_for("the reload", || cluster.events_named("reload_done").pop());
    wait_for("the new worker alone", || (cluster.pids("ready").len() == 1).then_some(()));
    assert_ne!(cluster.pids("ready"), first);
    assert_eq!(cluster.status()["primary"]["wanted"], 1);
    cluster.stop();
}

fn quit_ends_at_once_and_in_order(on: Pair) {
    let mut cluster = on.demo(&["-w", "2", "--drain-timeout", "60s"]);
    cluster.ready(2);
    let stream = send(cluster.addr, "/sleep?ms=50000").unwrap();
    wait_for("it to be taken", || (cluster.total("accepted_total") == 1).then_some(()));
    let begun = Instant::now();
    cluster.signal(Signal::SIGQUIT);
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(!matches!(receive(stream), Outcome::Ok(_)));
    cluster.expect_nothing_left();
    assert!(!cluster.dir.join("control").exists());
}

/// Also where the primary was started with others blocked and ignored. The worker is one that
/// changes nothing itself.
fn workers_start_with_signals_as_they_are_by_default(on: Pair) {
    let mut command = Command::new("env");
    // HUP and USR1 as nohup has them, and whatever a careless parent has left.
    command.args(["--ignore-signal=HUP,USR1,CHLD,QUIT", "--block-signal=TERM,USR2,ALRM"]);
    command.arg(on.binary());
    let program = ["sleep", "1000"].map(str::to_owned);
    let args = ["run", "-b", "127.0.0.1:0", "-w", "1", "--drain-timeout", "1s"];
    let mut cluster = Cluster::start(command, &args, &program);
    let spawned = wait_for("the worker", || cluster.events_named("spawned").pop());
    let status = format!("/proc/{}/status", spawned["pid"]);
    let masks = wait_for("its exec", || {
        let text = fs::read_to_string(&status).ok()?;
        let mask = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        text.starts_with("Name:\tsleep\n").then(|| [mask("SigBlk:"), mask("SigIgn:")])
    });
    // The C library keeps two for itself, which nobody can send or change through it.
    let own = 1 << 31 | 1 << 32;
    assert_eq!(masks.map(|mask| mask & !own), [0, 0], "{masks:x?}");
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    cluster.expect_nothing_left();
}
