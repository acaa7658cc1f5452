//! At the limit on open files.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{on_all, on_both, pass_over};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    the_limit_on_open_files_is_no_spin,
    workers_at_their_own_limit_cost_no_spin_either,
}

on_both! {
    "the user of the primary is all that differs":
    nor_for_another_user,
}

/// How many requests are answered in a second.
fn rate(cluster: &Cluster) -> u32 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        cluster.get("/").pid();
        count += 1;
    }
    count
}

fn two_hundred_clients_with_64_descriptors(on: Pair, mut command: Command) {
    command.args(["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    let _load = alone();
    let public = temp_dir();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    // Of the worker's command line, what is a file is copied too.
    let worker = on.demo_worker().into_iter().map(|word| match Path::new(&word) {
        path if path.is_file() => publish(path, &public),
        _ => word,
    });
    command.arg(publish(&on.binary(), &public));
    let cluster = start_in(on, command, &public, worker.collect());
    let pids = cluster.ready(2);
    let base = cluster.total("open_fds");
    let before = rate(&cluster);
    // Stopped workers hold the connections up: the primary keeps as many as it may.
    for pid in &pids {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
    }
    let streams: Vec<_> = (0..200).map(|_| send(cluster.addr, "/").unwrap()).collect();
    wait_for("the limit", || {
        (cluster.status()["listeners"][0]["accepting"] == false).then_some(())
    });
    // What a respawn needs stays free: 32, and 8 a worker.
    let status = cluster.status();
    let held = |name: &str| status["primary"][name].as_u64().unwrap();
    assert!(held("pending") + held("in_flight") <= 64 - 32 - 2 * 8, "{status}");
    let before_span = cpu_time(cluster.pid());
    // The span over which the CPU is measured.
    thread::sleep(Duration::from_secs(4));
    let used = cpu_time(cluster.pid()) - before_span;
    assert!(used < Duration::from_millis(200), "{used:?} in 4 s");
    for pid in &pids {
        kill(Pid::from_raw(*pid), Signal::SIGCONT).unwrap();
    }
    let relief = Instant::now();
    // All read at once: the workers' descriptors are few, and an answer that nobody reads holds one
    // for a while, so one reader after the other would wait for those behind it.
    thread::scope(|scope| {
        for stream in streams {
            scope.spawn(|| assert!(matches!(receive(stream), Outcome::Ok(_))));
        }
    });
    assert!(relief.elapsed() < Duration::from_secs(2), "{:?}", relief.elapsed());
    // Asked again, as both are at the mercy of what else runs here.
    wait_for("half the rate of before", || (rate(&cluster) > before / 2).then_some(()));
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    cluster.stop();
    fs::remove_dir_all(public).unwrap();
}

/// A copy that everybody may read and run.
fn publish(from: &Path, public: &Path) -> String {
    let to = public.join(from.file_name().unwrap());
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
    to.to_str().unwrap().to_owned()
}

/// Its files must be in a place where another user can make them.
fn start_in(on: Pair, mut command: Command, public: &Path, worker: Vec<String>) -> Cluster {
    let dir = public.join("files");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let bind = on.bind_options(&mut command);
    command.args(["run", "-w", "2"]).args(bind);
    command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
    command.args(worker);
    mark(&mut command, &dir);
    let log = fs::File::create(dir.join("log")).unwrap();
    command.stderr(log);
    Cluster::adopt_all(command.spawn().unwrap(), dir, on.listeners)
}

fn the_limit_on_open_files_is_no_spin(on: Pair) {
    two_hundred_clients_with_64_descriptors(on, Command::new("env"));
}

fn nor_for_another_user(on: Pair) {
    if !nix::unistd::geteuid().is_root() {
        pass_over("not root, so the other test is this one");
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    two_hundred_clients_with_64_descriptors(on, command);
}

/// Here the workers run: it is they who have no descriptor left, decline, and are asked again.
fn workers_at_their_own_limit_cost_no_spin_either(on: Pair) {
    let _load = alone();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(on.binary());
    let cluster = on.start_demo(command, &["-w", "2"]);
    let pids = cluster.ready(2);
    let base = cluster.total("open_fds");
    let before = rate(&cluster);
    // They say nothing, and stay.
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(cluster.addr).unwrap()).collect();
    wait_for("the limit", || {
        let accepting = &cluster.status()["listeners"][0]["accepting"];
        (*accepting == false && !cluster.events_named(on.refusal()).is_empty()).then_some(())
    });
    let all = [pids[0], pids[1], cluster.pid()];
    let before_span = all.map(cpu_time);
    // The span over which the CPU is measured.
    thread::sleep(Duration::from_secs(4));
    for (pid, before) in all.into_iter().zip(before_span) {
        let used = cpu_time(pid) - before;
        assert!(used < Duration::from_millis(200), "{used:?} in 4 s in {pid}");
    }
    assert_eq!(cluster.total("refused_total"), 0);
    drop(silent);
    let relief = Instant::now();
    cluster.get("/").pid();
    assert!(relief.elapsed() < Duration::from_secs(2), "{:?}", relief.elapsed());
    // Asked again, as both are at the mercy of what else runs here.
    wait_for("half the rate of before", || (rate(&cluster) > before / 2).then_some(()));
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    assert_eq!(cluster.pids("ready"), pids);
    cluster.stop();
}
