//! The configuration file, and the command `check`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "the file says what the workers are":
    a_cluster_is_started_from_a_file_alone,
}

on_both! {
    "it is about the primary alone", one listener "the listeners are in the file":
    a_demo_is_started_from_a_file_alone,
    check_prints_what_run_would_do,
    what_is_wrong_is_told_before_anything_is_started,
}

/// Runs a primary's command to its end: its exit code, and what it printed on both outputs.
fn output(on: Pair, dir: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(on.binary());
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command.env_remove("WEB_CONCURRENCY").env_remove("NODE_CLUSTER_SCHED_POLICY");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A list of strings in TOML.
fn list<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    format!("{:?}", words.into_iter().collect::<Vec<_>>())
}

/// `BINARY VERB --config FILE`, where the file has these lines, and the logs of a test.
fn start(on: Pair, verb: &str, listeners: usize, lines: &str) -> Cluster {
    let dir = temp_dir();
    let own = ["control", "events"].map(|key| format!("{key} = {:?}\n", dir.join(key)));
    fs::write(dir.join("c.toml"), own.concat() + lines).unwrap();
    let mut command = Command::new(on.binary());
    command.args([verb, "--config", "c.toml"]).current_dir(&dir);
    command.env_remove("WEB_CONCURRENCY");
    let log = fs::File::create(dir.join("log")).unwrap();
    mark(&mut command, &dir);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Cluster::adopt_all(command.spawn().unwrap(), dir, listeners)
}

/// In a directory and with variables of its own.
fn a_cluster_is_started_from_a_file_alone(on: Pair) {
    let place = temp_dir();
    let script = "{ pwd; echo $GREETING $ROUNDEL_SLOT; } >>noted; exec \"$@\"".to_owned();
    let mut args = vec!["-c".to_owned(), script, "sh".to_owned()];
    args.extend(on.demo_worker());
    let bind = vec!["127.0.0.1:0".to_owned(); on.listeners];
    let cluster = start(
        on,
        "run",
        on.listeners,
        &format!(
            "program = \"sh\"\nargs = {}\nbind = {}\nworkers = 1\ncwd = {place:?}\n\
             [env]\nGREETING = \"good day\"\n",
            list(&args),
            list(&bind),
        ),
    );
    let pids = cluster.ready(1);
    assert_eq!(cluster.get("/").pid(), pids[0]);
    let noted = fs::read_to_string(place.join("noted")).unwrap();
    let expected = format!("{}\ngood day 0\n", place.canonicalize().unwrap().display());
    assert_eq!(noted, expected);
    assert_eq!(cluster.status()["workers"].as_array().unwrap().len(), 1);
    cluster.stop();
    fs::remove_dir_all(place).unwrap();
}

fn a_demo_is_started_from_a_file_alone(on: Pair) {
    let lines = "workers = 2\nbind = \"127.0.0.1:0\"\n[env]\nDEMO_VARIABLE = 1\n";
    let cluster = start(on, "demo", 1, lines);
    let pid = cluster.ready(2)[0];
    assert!(matches!(cluster.get("/"), Outcome::Ok(_)));
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.split('\0').any(|it| it == "DEMO_VARIABLE=1"), "{environment}");
    cluster.stop();
}

fn check_prints_what_run_would_do(on: Pair) {
    let dir = temp_dir();
    fs::write(dir.join("c.toml"), "\nworkers = 3\nevents = \"e\"\nprogram = \"sleep\"\n").unwrap();
    let (code, printed, said) = output(on, &dir, &["check", "--config", "c.toml", "--window", "2"]);
    assert_eq!((code, said.as_str()), (0, ""));
    for line in [
        "program = \"sleep\"  # file c.toml:4\n",
        "workers = 3  # file c.toml:2\n",
        "window = 2  # flag\n",
        "overflow = \"wait\"  # default\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
    // It is a file for the same, and nothing was started.
    fs::write(dir.join("again.toml"), &printed).unwrap();
    let (code, again, _) = output(on, &dir, &["check", "--config", "again.toml"]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!((code, values(&again)), (0, values(&printed)));
    assert!(!dir.join("e").exists());
    fs::write(dir.join("plain"), "").unwrap();
    fs::write(dir.join("twice.toml"), "workers = 1\nbind = [\"*:1\", \"*:1\"]\n").unwrap();
    for (args, exit, words) in [
        (&["check", "no-program-has-this-name"][..], 127, "not found in PATH"),
        (&["check", "./plain"], 126, "is not executable"),
        (&["check", "--window", "many"], 2, "--window: \"many\" is not a whole number"),
        (&["check", "-b", "*:1", "-b", "*:1", "sleep"], 2, "--bind *:1: given twice"),
        (&["check", "--config", "twice.toml", "sleep"], 2, ": twice.toml:2: bind *:1: given twice"),
        (&["run", "--config", "twice.toml", "sleep"], 2, ": twice.toml:2: bind *:1: given twice"),
        (
            &["run", "--max-requests-jitter", "9", "sleep"],
            2,
            "--max-requests-jitter: needs --max-requests",
        ),
        (
            &["check", "--max-requests-jitter", "9", "sleep"],
            2,
            "--max-requests-jitter: needs --max-requests",
        ),
        (
            &["check", "--events", "x", "--journal", "x"],
            2,
            "--journal: \"x\" is also the file of --events",
        ),
    ] {
        let (code, printed, said) = output(on, &dir, args);
        assert_eq!((code, printed.as_str(), said.lines().count()), (exit, "", 1), "{said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

fn what_is_wrong_is_told_before_anything_is_started(on: Pair) {
    let dir = temp_dir();
    let lines = "events = \"events\"\nworkres = 1\nwindow = 0\nbind = [\"127.0.0.1:0\"]\n[dem]\n";
    fs::write(dir.join("c.toml"), lines).unwrap();
    for verb in ["run", "demo", "check"] {
        let (code, printed, said) = output(on, &dir, &[verb, "--config", "c.toml"]);
        let name = on.binary().file_name().unwrap().to_str().unwrap().to_owned();
        let expected = format!(
            "{name}: c.toml:2: unknown key \"workres\"; did you mean \"workers\"?\n\
             {name}: c.toml:3: window: \"0\" is not a whole number from 1 to 1024\n\
             {name}: c.toml:5: unknown key \"dem\"; see run --help\n"
        );
        assert_eq!((code, printed.as_str(), said), (2, "", expected), "{verb}");
        assert!(!dir.join("events").exists());
    }
    fs::write(dir.join("c.toml"), b"\xff\0").unwrap();
    let (code, _, said) = output(on, &dir, &["run", "--config", "c.toml", "true"]);
    assert_eq!((code, said.contains("c.toml:1: is not valid UTF-8\n")), (2, true), "{said}");
    fs::remove_dir_all(dir).unwrap();
}
