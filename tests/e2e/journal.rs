//! Live runs, recorded and replayed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::{Adapter, Pair};

on_all! {
    a_run_with_kills_replays_as_recorded,
    a_killed_primary_leaves_what_replays_up_to_the_cut,
    a_full_disk_ends_the_recording_alone,
    a_limit_ends_the_recording_alone,
}

on_both! {
    "it starts no worker", one listener "it starts nothing":
    journal_errors_are_one_line,
    a_replay_that_cannot_be_printed_blames_the_output,
    the_diagram_in_the_docs_is_what_the_command_prints,
}

fn replay(with: Adapter, journal: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(with.binary());
    command.arg("replay").arg(journal).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A demo that records into a new directory.
fn recorded(on: Pair, more: &[&str]) -> (Cluster, std::path::PathBuf) {
    let journal = temp_dir().join("journal");
    let mut args = vec!["-w", "3", "--journal", journal.to_str().unwrap()];
    args.extend(more);
    let cluster = on.demo(&args);
    cluster.ready(3);
    (cluster, journal)
}

fn length(journal: &Path) -> u64 {
    fs::metadata(journal).unwrap().len()
}

fn a_run_with_kills_replays_as_recorded(on: Pair) {
    let _load = alone();
    let (cluster, journal) = recorded(on, &[]);
    // Started again by mistake, with the same journal.
    let mut twice = Command::new(on.binary());
    twice.args(["demo", "-b", &cluster.addr.to_string(), "--journal"]).arg(&journal);
    let output = twice.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is in use by a running primary"));
    let outcomes = under_load(cluster.addr, 6, || {
        for _ in 0..20 {
            let victim = cluster.ready(3)[1];
            kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
            wait_for("its end", || {
                cluster.events_named("exited").into_iter().find(|event| event["pid"] == victim)
            });
        }
    });
    let status = cluster.status();
    let total = |name: &str| status["primary"][name].as_u64().unwrap();
    let (accepted, redispatched) = (total("accepted_total"), total("redispatched_total"));
    let (declined, unknown) = (total("declined_total"), total("unknown_total"));
    cluster.stop();
    assert!(outcomes.len() > 100 && accepted > 100);
    // Each binary replays what any recorded.
    for with in [Adapter::Mio, Adapter::Smol] {
        let output = replay(with, &journal, &[]);
        let printed = text(&output.stdout);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{printed}");
        assert!(printed.contains("outputs as recorded\n"), "{printed}");
        let wanted = format!(
            "{} arrived, {} handed off, {accepted} accepted, {declined} declined, {redispatched} \
             redispatched, {unknown} refused\n",
            accepted + unknown,
            accepted + unknown + redispatched + declined
        );
        assert!(printed.contains(&wanted), "{wanted}: {printed}");
        assert!(printed.contains("workers: 23 started, 23 ended\n"), "{printed}");
    }
}

fn a_killed_primary_leaves_what_replays_up_to_the_cut(on: Pair) {
    let (mut cluster, journal) = recorded(on, &[]);
    for _ in 0..30 {
        cluster.get("/").pid();
    }
    // Nothing else happens: it is written all the same, and can be read before the end.
    let served = "connections: 30 arrived, 30 handed off, 30 accepted";
    wait_for("what was served", || {
        text(&replay(on.primary, &journal, &[]).stdout).contains(served).then_some(())
    });
    cluster.signal(Signal::SIGKILL);
    assert_eq!(cluster.wait(), -9);
    let output = replay(on.primary, &journal, &[]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains(served), "{printed}");
    assert!(text(&output.stderr).contains("is cut off without an end after entry "));
    // A cut inside a record is told as well.
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() - 3]).unwrap();
    let output = replay(on.primary, &journal, &[]);
    assert_eq!(output.status.code(), Some(0));
    let place = format!("at byte {}", bytes.len() - 3);
    let note = text(&output.stderr);
    assert!(note.contains("inside the record") && note.contains(&place), "{note}");
}

fn a_full_disk_ends_the_recording_alone(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--journal", "/dev/full"]);
    cluster.ready(2);
    let stopped = wait_for("the end of the recording", || {
        cluster.get("/").pid();
        cluster.events_named("journal_stopped").pop()
    });
    let cause = stopped["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("/dev/full") && cause.contains("No space left"), "{cause}");
    cluster.said(&cause);
    for _ in 0..50 {
        cluster.get("/").pid();
    }
    assert_eq!(cluster.events_named("journal_stopped").len(), 1);
    cluster.stop();
}

fn a_limit_ends_the_recording_alone(on: Pair) {
    let (cluster, journal) = recorded(on, &["--journal-limit", "4KiB"]);
    let stopped = wait_for("the end of the recording", || {
        cluster.get("/").pid();
        cluster.events_named("journal_stopped").pop()
    });
    assert!(stopped["cause"].as_str().unwrap().ends_with("reached its size limit"), "{stopped}");
    for _ in 0..50 {
        cluster.get("/").pid();
    }
    cluster.stop();
    let length = length(&journal);
    assert!((3_500..=4_096).contains(&length), "{length}");
    let output = replay(on.primary, &journal, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("the run went on"), "{}", text(&output.stderr));
}

fn journal_errors_are_one_line(on: Pair) {
    let name = on.binary().file_name().unwrap().to_str().unwrap().to_owned();
    let dir = temp_dir();
    let fails = |args: &[&str], code: i32, line: &str| {
        let output = Command::new(on.binary()).args(args).output().unwrap();
        let said = text(&output.stderr).to_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.starts_with(&format!("{name}: {line}")), "{said}");
    };
    let control = dir.join("control");
    let control = control.to_str().unwrap();
    let to_nowhere = ["demo", "-b", "127.0.0.1:0", "--control", control, "--journal", "/no/such/j"];
    fails(&to_nowhere, 1, "--journal: /no/such/j: No such file");
    fails(&["replay", "/no/such/j"], 2, "/no/such/j: No such file");
    let path = dir.join("x");
    let path = path.to_str().unwrap();
    fs::write(path, "").unwrap();
    fails(&["replay", path], 1, &format!("{path}: is not a journal: it ends after 0 bytes"));
    fs::write(path, "{\"event\":\"ready\"}\n").unwrap();
    fails(&["replay", path], 1, &format!("{path}: is not a journal: "));
    fails(&["replay", dir.to_str().unwrap()], 1, &format!("{}: Is a directory", dir.display()));
}

fn a_replay_that_cannot_be_printed_blames_the_output(on: Pair) {
    let journal = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.journal");
    for more in [&["--diagram"][..], &[]] {
        let mut command = Command::new(on.binary());
        command.arg("replay").arg(&journal).args(more);
        command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(": standard output: No space left"), "{said}");
        assert!(!said.contains("journal"), "{said}");
    }
}

/// `docs/journal.md` shows a recorded run: a handoff, a redispatch, a suicide.
fn the_diagram_in_the_docs_is_what_the_command_prints(on: Pair) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let output = replay(on.primary, &docs.join("example.journal"), &["--diagram"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let page = fs::read_to_string(docs.join("journal.md")).unwrap();
    let block = page.split("```mermaid\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(block, text(&output.stdout), "record it anew: docs/record-example");
    for row in ["->>P: suicide", "is back in its queue", "-->>P: ack ", "newconn "] {
        assert!(block.contains(row), "{row}");
    }
}
