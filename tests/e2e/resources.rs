//! Without descriptors, processes or room in files: what is wanting is waited for, counts against
//! nobody, and holds up no end.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::open_fds;

use crate::cells::{on_all, on_both, pass_over, skip};
use crate::harness::*;
use crate::logs::demo_after;
use crate::pair::Pair;

on_all! {
    a_listener_that_can_not_be_emptied_holds_up_no_end,
    with_one_descriptor_to_spare_everybody_in_the_queue_is_served,
    a_start_without_descriptors_is_tried_until_it_succeeds,
    descriptors_for_a_start_are_held_in_reserve,
}

on_both! {
    "the primary alone is in want":
    a_hundred_idle_control_clients_hold_up_no_end,
    without_descriptors_every_phase_ends,
    stop_is_heard_without_descriptors,
    a_start_without_processes_is_tried_until_it_succeeds,
    files_at_their_limit_end_nothing,
}

on_both! {
    "the primary alone is in want", one listener "it has sixty by itself":
    many_listeners_and_clients_at_the_limit_cost_nobody,
    a_configuration_that_the_limit_can_not_hold_is_refused,
}

/// Changes a limit of a process that runs; what is not said stays. False without prlimit(1).
fn limit(pid: i32, resource: &str, value: &str) -> bool {
    limit_by(Command::new("prlimit"), pid, resource, value)
}

fn limit_by(mut command: Command, pid: i32, resource: &str, value: &str) -> bool {
    command.arg(format!("--{resource}={value}")).args(["--pid", &pid.to_string()]);
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "prlimit: {status}");
            true
        }
        Err(_) => {
            skip("no prlimit(1)");
            false
        }
    }
}

/// From now on no descriptor is to be had, whatever is closed.
fn take_descriptors(cluster: &Cluster) -> bool {
    limit(cluster.pid(), "nofile", "3:")
}

/// From now on no descriptor is to be had before one is closed.
fn fill_descriptors(cluster: &Cluster) -> bool {
    // What has ended before is closed once it has heard both of these: one alone may have come in
    // the same turn.
    for count in 1..=2 {
        cluster.signal(Signal::SIGUSR2);
        let heard = || cluster.log().matches("SIGUSR2").count() == count;
        wait_for("a signal to be heard", || heard().then_some(()));
    }
    let used = fs::read_dir(format!("/proc/{}/fd", cluster.pid())).unwrap().flatten();
    let used: Vec<u32> = used.map(|fd| fd.file_name().to_str().unwrap().parse().unwrap()).collect();
    let first_free = (0..).find(|number| !used.contains(number)).unwrap();
    limit(cluster.pid(), "nofile", &format!("{first_free}:"))
}

fn give_descriptors(cluster: &Cluster) {
    limit(cluster.pid(), "nofile", "4096:");
}

/// Connects clients behind the back of the primary, which goes on with this signal: they are in the
/// listener's queue when it is read.
fn queue_then(cluster: &Cluster, clients: usize, signal: Signal) -> Vec<TcpStream> {
    cluster.signal(Signal::SIGSTOP);
    let streams = (0..clients).map(|_| send(cluster.addr, "/").unwrap()).collect();
    cluster.signal(signal);
    cluster.signal(Signal::SIGCONT);
    streams
}

/// Waits for the end, and fails if that comes much later than it should.
fn ends_within(cluster: &mut Cluster, begun: Instant, most: Duration) {
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    let took = begun.elapsed();
    assert!(took < most, "{took:?}");
    cluster.expect_nothing_left();
}

/// Fails if a process does more than now and then to look whether it can go on.
fn expect_no_spin(pid: i32) {
    let before = cpu_time(pid);
    // The span over which the CPU is measured.
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time(pid) - before;
    assert!(used < Duration::from_millis(100), "{used:?} in 2 s");
}

const SOON: Duration = Duration::from_secs(8);

fn a_hundred_idle_control_clients_hold_up_no_end(on: Pair) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(on.binary());
    let mut cluster = on.start_demo(command, &["-w", "2", "--drain-timeout", "60s"]);
    cluster.ready(2);
    let control = cluster.dir.join("control");
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&control).unwrap()).collect();
    // Nobody is served the worse for it.
    for _ in 0..30 {
        cluster.get("/").pid();
    }
    assert!(open_fds(cluster.pid()) < 64 - 8, "room is kept for connections and starts");
    let begun = Instant::now();
    cluster.signal(Signal::SIGTERM);
    ends_within(&mut cluster, begun, SOON);
    drop(idle);
}

/// Nothing can be accepted, so that nobody knows whether anybody is left.
fn a_listener_that_can_not_be_emptied_holds_up_no_end(on: Pair) {
    let mut cluster = on.demo(&["-w", "2", "--drain-timeout", "2s"]);
    cluster.ready(2);
    if !take_descriptors(&cluster) {
        return;
    }
    let begun = Instant::now();
    let streams = queue_then(&cluster, 20, Signal::SIGTERM);
    wait_for("the shutdown", || cluster.events_named("stopping").first().cloned());
    expect_no_spin(cluster.pid());
    ends_within(&mut cluster, begun, SOON);
    assert!(streams.into_iter().all(|stream| !matches!(receive(stream), Outcome::Ok(_))));
    let told = cluster.events_named("accept_failed").len();
    assert!(told <= on.listeners, "each listener tells it once");
}

fn with_one_descriptor_to_spare_everybody_in_the_queue_is_served(on: Pair) {
    let mut cluster = on.demo(&["-w", "2"]);
    cluster.ready(2);
    if !fill_descriptors(&cluster) {
        return;
    }
    let streams = queue_then(&cluster, 20, Signal::SIGTERM);
    for stream in streams {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    let begun = Instant::now();
    ends_within(&mut cluster, begun, SOON);
}

fn without_descriptors_every_phase_ends(on: Pair) {
    let journal = |cluster: &Cluster| cluster.dir.join("journal");
    let run = |mode: &str, drain: &str| {
        let dir = temp_dir();
        let path = dir.join("journal");
        let args = ["-w", "2", "--drain-timeout", drain, "--journal", path.to_str().unwrap()];
        let cluster = on.run(&args, &on.test_worker(&[mode]));
        (cluster, dir)
    };
    // Before anybody is ready; with workers that do not leave; with next to no time; all of it.
    for (mode, drain, ready) in [
        ("silent", "1s", false),
        ("ignore-drain", "1s", true),
        ("", "1ms", true),
        ("ignore-drain", "1ms", true),
    ] {
        let (mut cluster, dir) = run(mode, drain);
        if ready {
            cluster.ready(2);
        } else {
            let both = || cluster.events_named("spawned").len() == 2;
            wait_for("both", || both().then_some(()));
        }
        if !take_descriptors(&cluster) {
            return;
        }
        let begun = Instant::now();
        queue_then(&cluster, 3, Signal::SIGTERM);
        ends_within(&mut cluster, begun, SOON);
        assert!(!journal(&cluster).exists());
        assert!(fs::metadata(dir.join("journal")).unwrap().len() > 0);
        fs::remove_dir_all(dir).unwrap();
    }
    // A second TERM, and QUIT, end what would take a minute.
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let (mut cluster, dir) = run("ignore-drain", "60s");
        cluster.ready(2);
        if !take_descriptors(&cluster) {
            return;
        }
        queue_then(&cluster, 3, Signal::SIGTERM);
        wait_for("the shutdown", || cluster.events_named("stopping").first().cloned());
        let begun = Instant::now();
        cluster.signal(signal);
        ends_within(&mut cluster, begun, SOON);
        fs::remove_dir_all(dir).unwrap();
    }
}

fn stop_is_heard_without_descriptors(on: Pair) {
    let mut cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    if !fill_descriptors(&cluster) {
        return;
    }
    assert!(cluster.total("open_fds") > 0, "it is counted all the same");
    let begun = Instant::now();
    assert!(cluster.ask(r#"{"command":"stop"}"#).is_some());
    ends_within(&mut cluster, begun, SOON);
}

/// What counts against a program does not: the only worker is gone, nothing can be started for a
/// while, and whoever waits is served in the end.
fn a_start_without_descriptors_is_tried_until_it_succeeds(on: Pair) {
    let args = ["-w", "1", "--restart-intensity", "0/10"];
    let cluster = on.demo(&args);
    let pid = cluster.ready(1)[0];
    cluster.get("/").pid();
    if !take_descriptors(&cluster) {
        return;
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let failed = wait_for("a start in vain", || cluster.events_named("spawn_failed").pop());
    assert_eq!(failed["cause"], "Too many open files");
    let streams: Vec<_> = (0..20).map(|_| send(cluster.addr, "/").unwrap()).collect();
    expect_no_spin(cluster.pid());
    cluster.said("roundel keeps trying");
    assert_eq!(cluster.events_named("spawn_failed").len(), 1, "it is told once");
    give_descriptors(&cluster);
    for stream in streams {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    let status = cluster.status();
    assert_eq!(status["workers"][0]["restarts"], 1, "tries are no restarts: {status}");
    cluster.stop();
}

fn descriptors_for_a_start_are_held_in_reserve(on: Pair) {
    // Those of a worker's pipes are among them, although its predecessor's are still held open.
    let with_pipes =
        on.run(&["-w", "2", "--log-format", "prefix"], &demo_after(on, "setsid sleep 600 &"));
    for (cluster, kills) in [(on.demo(&["-w", "2"]), 3), (with_pipes, 1)] {
        let mut pids = cluster.ready(2);
        if !fill_descriptors(&cluster) {
            return;
        }
        for _ in 0..kills {
            kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
            let gone = pids[0];
            pids = wait_for("the next worker", || {
                let pids = cluster.pids("ready");
                (pids.len() == 2 && !pids.contains(&gone)).then_some(pids)
            });
        }
        assert_eq!(cluster.events_named("spawn_failed").len(), 0);
        cluster.stop();
    }
}

/// 60 listeners, 200 clients, 128 descriptors, and the only worker is killed.
fn many_listeners_and_clients_at_the_limit_cost_nobody(on: Pair) {
    let _load = alone();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]).arg(on.binary());
    let args = [&["run", "-w", "1"], &["-b", "127.0.0.1:0"].repeat(60)[..]].concat();
    let cluster = Cluster::start(command, &args, &on.test_worker(&[""]));
    let pid = cluster.ready(1)[0];
    wait_for("all listeners", || (cluster.events_named("bound").len() == 60).then_some(()));
    let bound = cluster.events_named("bound");
    let addresses = bound.iter().map(|event| event["address"].as_str().unwrap().parse().unwrap());
    let addresses: Vec<SocketAddr> = addresses.collect();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    // All of them wait at the first address, which is the worker's.
    let streams: Vec<_> = (0..200).map(|_| send(addresses[0], "/").unwrap()).collect();
    wait_for("the limit", || {
        (cluster.status()["listeners"][0]["accepting"] == false).then_some(())
    });
    assert!(open_fds(cluster.pid()) < 128 - 16, "{}", open_fds(cluster.pid()));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    for stream in streams {
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    assert_eq!(cluster.events_named("spawn_failed").len(), 0);
    cluster.stop();
}

/// EAGAIN of fork(2). The limit is for a user, and there is none for root.
fn a_start_without_processes_is_tried_until_it_succeeds(on: Pair) {
    if !nix::unistd::geteuid().is_root() {
        return pass_over("not root, so the limit would be on everything of this user");
    }
    let public = temp_dir();
    let dir = public.join("files");
    fs::create_dir(&dir).unwrap();
    for path in [&public, &dir] {
        std::os::unix::fs::chown(path, Some(65_533), Some(65_533)).unwrap();
    }
    let copy = |path: &std::path::Path| {
        let to = public.join(path.file_name().unwrap());
        fs::copy(path, &to).unwrap();
        to
    };
    let other = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65533", "--regid=65533", "--clear-groups"]);
        command
    };
    let limit = |pid, value| {
        let mut command = other();
        command.arg("prlimit");
        limit_by(command, pid, "nproc", value)
    };
    let mut command = other();
    command.arg(copy(&on.binary()));
    let bind = on.bind_options(&mut command);
    command.args(["demo", "-w", "1"]).args(bind);
    command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
    mark(&mut command, &dir);
    command.stderr(fs::File::create(dir.join("log")).unwrap());
    let Ok(child) = command.spawn() else { return skip("no setpriv(1)") };
    let cluster = Cluster::adopt_all(child, dir, on.listeners);
    let pid = cluster.ready(1)[0];
    cluster.get("/").pid();
    if !limit(cluster.pid(), "0:") {
        return;
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let failed = wait_for("a start in vain", || cluster.events_named("spawn_failed").pop());
    assert_eq!(failed["cause"], "Try again");
    let stream = send(cluster.addr, "/").unwrap();
    expect_no_spin(cluster.pid());
    limit(cluster.pid(), "4096:");
    assert!(matches!(receive(stream), Outcome::Ok(_)));
    assert_eq!(cluster.events_named("spawn_failed").len(), 1);
    cluster.stop();
    fs::remove_dir_all(public).unwrap();
}

fn a_configuration_that_the_limit_can_not_hold_is_refused(on: Pair) {
    let dir = temp_dir();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(on.binary());
    command.args(["demo", "-w", "2"]).args(["-b", "127.0.0.1:0"].repeat(60));
    command.arg("--control").arg(dir.join("control"));
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words}");
    let told = "the limit of 64 open files (ulimit -n) is too low for 2 workers and 60 listeners, \
                which need ";
    assert!(words.contains(told) && words.lines().count() == 1, "{words}");
    fs::remove_dir_all(dir).unwrap();
}

/// SIGXFSZ would end the primary when the event log or the journal is as long as a file may be.
fn files_at_their_limit_end_nothing(on: Pair) {
    let dir = temp_dir();
    let journal = dir.join("journal");
    let cluster = on.demo(&["-w", "1", "--journal", journal.to_str().unwrap()]);
    cluster.ready(1);
    if !limit(cluster.pid(), "fsize", "16384:") {
        return;
    }
    wait_for("the limit on all files", || {
        cluster.get("/").pid();
        let full = |path| fs::metadata(path).is_ok_and(|file| file.len() == 16_384);
        (full(cluster.dir.join("events")) && full(journal.clone())).then_some(())
    });
    for _ in 0..10 {
        cluster.get("/").pid();
    }
    // Its standard error is a file as well.
    limit(cluster.pid(), "fsize", "1:");
    cluster.signal(Signal::SIGHUP);
    for _ in 0..10 {
        cluster.get("/").pid();
    }
    cluster.stop();
    fs::remove_dir_all(dir).unwrap();
}
