//! What is at the program's path when a reload comes.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::cells::on_all;
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::{all_answered, command, only_generation, reload};

on_all! {
    case_12_the_program_is_found_anew,
}

/// By a path that is relative, over a symbolic link that moves, of a file that is replaced.
fn case_12_the_program_is_found_anew(on: Pair) {
    let dir = temp_dir();
    let write = |release: &str| {
        let place = dir.join(release);
        fs::create_dir_all(&place).unwrap();
        let words: Vec<String> = on.demo_worker().iter().map(|word| format!("'{word}'")).collect();
        let script = format!("#!/bin/sh\nexport RELEASE={release}\nexec {}\n", words.join(" "));
        let temporary = place.join("new");
        fs::write(&temporary, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&temporary, mode).unwrap();
        fs::rename(&temporary, place.join("app")).unwrap();
    };
    let point_at = |release: &str| {
        let temporary = dir.join("next");
        symlink(dir.join(release), &temporary).unwrap();
        fs::rename(&temporary, dir.join("current")).unwrap();
    };
    write("one");
    point_at("one");
    // As a shell does it: the directory that it is in has the name by which it was entered.
    let mut start = Command::new(on.binary());
    start.current_dir(dir.join("current")).env("PWD", dir.join("current"));
    let bind = on.bind_options(&mut start);
    let mut words = vec!["run", "-w", "2", "--ready-hold", "0"];
    words.extend(bind.iter().map(String::as_str));
    let cluster = Cluster::start(start, &words, &["./app".to_owned()]);
    cluster.ready(2);
    let release_of = |pid: i32| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let value = environment.split('\0').find_map(|it| it.strip_prefix("RELEASE="));
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        (value.unwrap().to_owned(), cwd.file_name().unwrap().to_str().unwrap().to_owned())
    };
    write("two");
    point_at("two");
    reload(on, &cluster);
    for pid in only_generation(&cluster, 2, 2) {
        assert_eq!(release_of(pid), ("two".into(), "two".into()));
    }
    // Gone: an error that says so, and everything goes on. The old place is not used again.
    fs::remove_file(dir.join("two/app")).unwrap();
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert!(code == 1 && said.contains("app"), "{said}");
    all_answered(&[cluster.get("/")]);
    write("two");
    reload(on, &cluster);
    // Another one in its place, and then a link to one that is elsewhere.
    for (release, how) in [("three", "replaced"), ("four", "linked")] {
        write(release);
        let (from, to) = (dir.join(release).join("app"), dir.join("two/app"));
        if how == "replaced" {
            fs::rename(from, to).unwrap();
        } else {
            symlink(from, dir.join("link")).unwrap();
            fs::rename(dir.join("link"), to).unwrap();
        }
        reload(on, &cluster);
        let generation = cluster.status()["primary"]["generation"].as_u64().unwrap();
        for pid in only_generation(&cluster, generation, 2) {
            assert_eq!(release_of(pid), (release.into(), "two".into()), "{how}");
        }
    }
    cluster.stop();
}
