//! `--workers auto`: as many as can run at the same time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cells::{may_make_namespaces, on_both, pass_over};
use crate::harness::temp_dir;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "nobody listens":
    automatic_workers_are_those_of_the_affinity_mask,
    automatic_workers_are_no_more_than_the_quota_allows,
}

/// How many workers `check` says that there would be.
fn automatic(mut command: Command) -> usize {
    command.stdin(Stdio::null()).env_remove("WEB_CONCURRENCY");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# workers: auto, "));
    let number = line.and_then(|line| line.strip_suffix(" here")?.parse().ok());
    number.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The processors that this process may use, as proc_pid_status(5) lists them.
fn allowed() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse().unwrap()..=last.parse::<usize>().unwrap()
    };
    list.trim().split(',').flat_map(range).collect()
}

fn automatic_workers_are_those_of_the_affinity_mask(on: Pair) {
    let allowed = allowed();
    for count in [1, allowed.len()] {
        let list: Vec<String> = allowed.iter().take(count).map(ToString::to_string).collect();
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &list.join(",")]).arg(on.binary()).arg("check");
        assert_eq!(automatic(command), count);
    }
}

/// The primary in the group `/outer/inner` of a version 2 hierarchy, whose files are the test's.
fn within(on: Pair, dir: &Path, outer: &str, inner: &str) -> usize {
    let group = dir.join("outer/inner");
    fs::create_dir_all(&group).unwrap();
    fs::write(dir.join("cgroup"), "0::/outer/inner\n").unwrap();
    for place in [dir, &dir.join("outer"), &group] {
        fs::write(place.join("cgroup.controllers"), "cpu\n").unwrap();
    }
    fs::write(dir.join("outer/cpu.max"), outer).unwrap();
    fs::write(group.join("cpu.max"), inner).unwrap();
    let script = r#"
        set -e
        mount --bind "$1/cgroup" /proc/$$/cgroup
        mount --bind "$1" /sys/fs/cgroup
        exec "$2" check"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(dir).arg(on.binary());
    automatic(command)
}

fn automatic_workers_are_no_more_than_the_quota_allows(on: Pair) {
    if !may_make_namespaces() {
        return pass_over("needs the right to mount");
    }
    let (dir, all) = (temp_dir(), allowed().len());
    let none = "max 100000\n";
    assert_eq!(within(on, &dir, none, none), all);
    assert_eq!(within(on, &dir, none, "900000000 100000\n"), all);
    assert_eq!(within(on, &dir, none, "1000 100000\n"), 1, "a tiny one");
    assert_eq!(within(on, &dir, none, "199000 100000\n"), 1, "rounded down");
    assert_eq!(within(on, &dir, "100000 100000\n", none), 1, "that of the parent");
    assert_eq!(within(on, &dir, none, "200000 100000\n"), all.min(2));
    fs::remove_dir_all(dir).unwrap();
}
