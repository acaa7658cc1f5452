//! What workers print: its forms, where it goes, who follows it, and that no reader of it holds up
//! anything.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::rss_kib;
use serde_json::Value;

use crate::cells::{on_all, on_both};
use crate::console::{Muted, fill, pipe, set_nonblocking};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    lines_carry_the_slot_and_the_process,
    a_flood_that_nobody_reads_holds_up_nothing,
}

on_both! {
    "what is printed is a shell's, whatever the column":
    lines_are_objects,
    a_log_file_is_opened_anew,
    logs_shows_one_slot_until_the_end,
    a_client_that_does_not_read_misses_lines,
    logs_is_refused_where_nothing_is_read,
    long_lines_are_not_mixed_with_others,
}

on_both! {
    "the program is a shell's", one listener "it serves nobody":
    the_last_words_of_a_crash_are_written,
    helpers_that_hold_a_pipe_hold_up_nothing,
}

/// Demo workers that do this first; the script goes on with the worker.
pub(crate) fn demo_after(on: Pair, script: &str) -> Vec<String> {
    let script = format!("{script}\nexec \"$@\"");
    let begin = ["sh", "-c", &script, "sh"].map(str::to_owned);
    begin.into_iter().chain(on.demo_worker()).collect()
}

fn lines_carry_the_slot_and_the_process(on: Pair) {
    let script = "echo \"out $ROUNDEL_SLOT\"; echo \"err $ROUNDEL_SLOT\" >&2";
    let cluster = on.run(&["-w", "2", "--log-format", "prefix"], &demo_after(on, script));
    cluster.ready(2);
    for worker in cluster.status()["workers"].as_array().unwrap() {
        let (slot, pid) = (&worker["slot"], &worker["pid"]);
        cluster.said(&format!("\n[{slot} pid {pid}] out {slot}\n"));
        cluster.said(&format!("\n[{slot} pid {pid}] err {slot}\n"));
    }
    // A worker is ready with its first listener; until its second one is there, the other worker
    // serves both.
    let mut served = BTreeSet::new();
    wait_for("an answer of each", || {
        served.insert(cluster.get("/").pid());
        (served.len() == 2).then_some(())
    });
    cluster.stop();
}

fn lines_are_objects(on: Pair) {
    // In bash all escapes of printf are the same everywhere.
    let script = r#"printf 'caf\303\251 \377 "quoted"\t\n' >&2
        head -c 70000 /dev/zero | tr '\0' x; echo; echo done"#;
    let cluster = on.run(&["-w", "1", "--log-format", "json"], &demo_after(on, script));
    let pid = cluster.ready(1)[0];
    let lines = || -> Vec<Value> {
        let log = cluster.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let lines = wait_for("all lines", || {
        let lines = lines();
        (lines.len() >= 4).then_some(lines)
    });
    let on_stderr = lines.iter().position(|line| line["stream"] == "stderr").unwrap();
    assert_eq!(lines[on_stderr]["line"], "caf\u{e9} \u{fffd} \"quoted\"\t");
    let out: Vec<&Value> = lines.iter().filter(|line| line["stream"] == "stdout").collect();
    let lengths = out.iter().map(|line| line["line"].as_str().unwrap().len());
    assert_eq!(lengths.collect::<Vec<_>>(), [65_536, 70_000 - 65_536, 4]);
    let cut = out.iter().map(|line| line.get("cut") == Some(&Value::Bool(true)));
    assert_eq!(cut.collect::<Vec<_>>(), [true, false, false]);
    for line in lines {
        assert_eq!((&line["slot"], &line["worker"]), (&0.into(), &1.into()));
        assert_eq!(line["pid"], pid);
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    cluster.stop();
}

fn a_log_file_is_opened_anew(on: Pair) {
    let dir = temp_dir();
    let (path, old) = (dir.join("log"), dir.join("log.1"));
    let script = r#"printf 'as it is: \377\n'; echo "by $$" >&2"#;
    let options = ["-w", "1", "--log-file", path.to_str().unwrap()];
    let cluster = on.run(&options, &demo_after(on, script));
    let first = cluster.ready(1)[0];
    let has = |path: &std::path::Path, pid: i32| {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines: Vec<&str> = text.lines().collect();
        // Standard output and standard error are two pipes.
        lines.sort_unstable();
        lines == ["as it is: \u{fffd}", &format!("by {pid}")]
    };
    wait_for("its lines", || has(&path, first).then_some(()));
    assert!(fs::read(&path).unwrap().contains(&0xff));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    fs::rename(&path, &old).unwrap();
    cluster.signal(Signal::SIGUSR1);
    wait_for("a new file", || path.exists().then_some(()));
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second =
        wait_for("the next worker", || cluster.pids("ready").into_iter().find(|pid| *pid != first));
    wait_for("its lines", || has(&path, second).then_some(()));
    assert!(has(&old, first));
    assert!(!cluster.log().contains("as it is"), "{}", cluster.log());
    cluster.stop();
    fs::remove_dir_all(&dir).unwrap();
}

/// The worst there is: short lines without pause, as objects, on a pipe that nobody reads.
fn a_flood_that_nobody_reads_holds_up_nothing(on: Pair) {
    let _load = alone();
    let (mut reader, writer) = pipe();
    fill(&writer);
    let program = demo_after(on, "yes '' & yes '' >&2 &");
    let options = ["--drain-timeout", "2s", "--log-format", "json"];
    let muted = Muted::start_with(on, writer, &options, &program);
    wait_for("both workers", || (muted.events("ready") == 2).then_some(()));
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let begun = Instant::now();
        get(muted.addr, "/").pid();
        longest = longest.max(begun.elapsed());
    }
    println!("FLOOD {longest:?} for the slowest answer");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let used = rss_kib(muted.pid().as_raw());
    assert!(used < 44 * 1024, "{used} KiB");
    // The reader finds whole lines when it reads again, and how many are missing.
    set_nonblocking(&reader, true);
    let (mut text, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    wait_for("the gap", || {
        let count = reader.read(&mut chunk).unwrap_or(0);
        text.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&text);
        let gap = text.lines().find(|line| line.starts_with("{\"dropped\":"))?;
        serde_json::from_str::<Value>(gap).ok()
    });
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.trim_start_matches('x').lines();
    lines.next_back();
    // The primary's own messages are among them.
    let lines = lines.filter(|line| !line.starts_with("roundel"));
    let is_whole = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert_eq!(lines.clone().find(|line| !is_whole(line)), None);
    assert!(lines.count() > 1_000);
    muted.works_and_ends();
}

/// Standard output and standard error are one pipe, which does not take a long line whole.
fn long_lines_are_not_mixed_with_others(on: Pair) {
    let _load = alone();
    let (mut reader, writer) = pipe();
    let script = "long=$(head -c 9000 /dev/zero | tr '\\0' z); yes '' & yes \"$long\" >&2 &";
    let options = ["--drain-timeout", "2s", "--log-format", "json"];
    let muted = Muted::start_with(on, writer, &options, &demo_after(on, script));
    // A slow reader, page by page: both writers wait for room all the time. There is always more.
    let (mut text, mut page) = (Vec::new(), [0; 4096]);
    while text.len() < 3_000_000 {
        let count = reader.read(&mut page).unwrap();
        assert_ne!(count, 0, "everything has ended");
        thread::park_timeout(Duration::from_micros(200));
        text.extend_from_slice(&page[..count]);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    lines.next_back();
    let is_whole = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    // The primary's own messages are among them.
    let mixed = lines.filter(|line| !line.starts_with("roundel") && !is_whole(line));
    assert_eq!(mixed.count(), 0);
    muted.works_and_ends();
}

/// The primary hears of everything at once: of the words, of the process and of its channel.
fn the_last_words_of_a_crash_are_written(on: Pair) {
    let dir = temp_dir();
    // More lines than are read in a turn, and no line end behind the last one.
    let script = format!(
        "while [ ! -e {}/go ]; do sleep 0.01; done
        yes | head -n 20000 >&2; printf 'last words' >&2; kill -9 $$",
        dir.display()
    );
    let program = ["sh", "-c", &script].map(str::to_owned);
    let options = ["-w", "1", "--restart-intensity", "0/10", "--log-format", "prefix"];
    let mut cluster = on.run(&options, &program);
    let pid = cluster.pids("starting")[0];
    cluster.signal(Signal::SIGSTOP);
    fs::write(dir.join("go"), "").unwrap();
    wait_for("its end", || (!is_running(pid)).then_some(()));
    cluster.signal(Signal::SIGCONT);
    assert_eq!(cluster.wait(), 3);
    let log = cluster.log();
    assert_eq!(log.matches("] y\n").count(), 20_000);
    assert!(log.contains("] last words\n"));
    fs::remove_dir_all(&dir).unwrap();
}

/// A program in a session of its own lives on, and has the pipe open for ever.
fn helpers_that_hold_a_pipe_hold_up_nothing(on: Pair) {
    let script = "setsid sh -c 'echo helper; exec sleep 600' & exec sleep 600";
    let program = ["sh", "-c", script].map(str::to_owned);
    let cluster = on.run(&["-w", "1", "--log-format", "prefix"], &program);
    let helpers = || cluster.log().matches("] helper\n").count();
    let pipes = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", cluster.pid())).unwrap().flatten();
        let names = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("pipe:")).count()
    };
    wait_for("the first helper", || (helpers() == 1).then_some(()));
    let before = pipes();
    for count in 2..=5 {
        let worker = cluster.pids("starting")[0];
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        wait_for("the next helper", || (helpers() == count).then_some(()));
        // Those of one ended worker, which is as many as there are slots, are kept for a while.
        assert!(pipes() <= before + 4, "{before}, then {}", pipes());
    }
    wait_for("only the last worker's pipes", || (pipes() == before).then_some(()));
    cluster.stop();
}

/// A primary whose workers say without pause in which slot they are.
fn ticking(on: Pair) -> Cluster {
    let script = "(while sleep 0.02; do echo \"tick $ROUNDEL_SLOT\"; done) &";
    let program = demo_after(on, script);
    let cluster = on.run(&["-w", "2", "--log-format", "json", "--drain-timeout", "2s"], &program);
    cluster.ready(2);
    cluster
}

fn logs(on: Pair, cluster: &Cluster, slot: &[&str]) -> Child {
    let mut command = Command::new(on.binary());
    command.arg("logs").args(slot).arg("--control").arg(cluster.dir.join("control"));
    mark(&mut command, &cluster.dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code, and standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let status = wait_for("the end of logs", || child.try_wait().unwrap());
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

fn logs_shows_one_slot_until_the_end(on: Pair) {
    let cluster = ticking(on);
    let pids = cluster.status()["workers"].as_array().unwrap().clone();
    let pid = &pids.iter().find(|worker| worker["slot"] == 1).unwrap()["pid"];
    let read = |child: &mut Child, count: usize| -> Vec<String> {
        let lines = BufReader::with_capacity(1, child.stdout.take().unwrap()).lines();
        lines.take(count).map(Result::unwrap).collect()
    };
    // Like `| head -3`.
    let mut one = logs(on, &cluster, &["1"]);
    assert_eq!(read(&mut one, 3), vec![format!("[1 pid {pid}] tick 1"); 3]);
    assert_eq!(ended(one), (Some(0), String::new()));
    let mut all = logs(on, &cluster, &[]);
    let mut lines = BufReader::new(all.stdout.take().unwrap()).lines().map(Result::unwrap);
    for slot in 0..2 {
        assert!(lines.any(|line| line.ends_with(&format!("] tick {slot}"))));
    }
    // The end of the primary, and its loss.
    cluster.stop();
    lines.for_each(drop);
    assert_eq!(ended(all), (Some(0), String::new()));
    let cluster = ticking(on);
    let mut lost = logs(on, &cluster, &["0"]);
    let mut lines = BufReader::new(lost.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().ends_with("] tick 0"));
    cluster.signal(Signal::SIGKILL);
    lines.for_each(drop);
    let (code, said) = ended(lost);
    assert!(code == Some(1) && said.ends_with("the primary closed the connection\n"), "{said}");
}

fn a_client_that_does_not_read_misses_lines(on: Pair) {
    let _load = alone();
    let program = demo_after(on, "yes 'some line' &");
    let options = ["-w", "1", "--log-file", "/dev/null", "--drain-timeout", "2s"];
    let cluster = on.run(&options, &program);
    cluster.ready(1);
    let mut stream = UnixStream::connect(cluster.dir.join("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{{\"command\":\"logs\"}}").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), r#"{"ok":true,"following":true}"#);
    // Meanwhile far more is printed than is kept for it.
    for _ in 0..100 {
        cluster.get("/").pid();
    }
    let begun = Instant::now();
    let mut in_time = lines.by_ref().take_while(|_| begun.elapsed() < PATIENCE);
    let gap = in_time.find(|line| line.starts_with("{\"dropped\":")).expect("a gap");
    let gap: Value = serde_json::from_str(&gap).unwrap();
    assert!(gap["dropped"].as_u64() > Some(0), "{gap}");
    // It goes on behind the gap, with whole lines.
    let next: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&next["line"], &next["stream"]), (&"some line".into(), &"stdout".into()));
    let used = rss_kib(cluster.pid());
    assert!(used < 44 * 1024, "{used} KiB");
    cluster.stop();
}

fn logs_is_refused_where_nothing_is_read(on: Pair) {
    let refused = |cluster: &Cluster, slot: &str| {
        let (code, said) = ended(logs(on, cluster, &[slot]));
        assert_eq!(code, Some(1), "{said}");
        said
    };
    let cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    let said = refused(&cluster, "0");
    assert!(said.contains("--log-format raw") && said.contains("--log-format prefix"), "{said}");
    cluster.stop();
    let cluster = on.demo(&["-w", "1", "--log-format", "prefix"]);
    cluster.ready(1);
    assert!(refused(&cluster, "1").contains("there is no slot 1"));
    cluster.stop();
    let mut command = Command::new(on.binary());
    command.args(["demo", "--log-file", "/nonexistent/log"]).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--log-file: "), "{said}");
}
