//! What the docs say of the code is what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use roundel_core::Event;
use roundel_tests::programs::observe::{binary, scratch};
use roundel_tests::sim::variants::names;

#[test]
fn the_life_diagram_is_printed_from_the_table() {
    let page = include_str!("../ARCHITECTURE.md");
    let block = page.split("<!-- life diagram -->\n```mermaid\n").nth(1).expect("a diagram");
    let block = block.split("```").next().expect("its end");
    assert_eq!(block, roundel_core::life_diagram(), "print it anew from `life_diagram()`");
}

/// Events of the core by the names of their variants, and those that the driver adds.
#[test]
fn the_page_of_events_names_every_event() {
    let rows = include_str!("../docs/events.md").lines().filter(|line| line.starts_with("| `"));
    let named: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
    let of_core = names::<Event>().iter().map(|name| match *name {
        // The wire's word stays in the log.
        "Failing" => "suicide".to_owned(),
        name => snake_case(name),
    });
    let of_driver = ["handed_off", "accepted", "refused", "accept_failed", "journal_stopped"];
    let missing: Vec<String> = of_core
        .chain(of_driver.map(str::to_owned))
        .filter(|name| !named.iter().any(|cell| cell.contains(&format!("`{name}`"))))
        .collect();
    assert_eq!(missing, [""; 0]);
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// A section of "To add something": its heading, words whose files must all be in it, and words of
/// which each of its files has one.
type Section = (&'static str, &'static [&'static str], &'static [&'static str]);

const SECTIONS: [Section; 10] = [
    (
        "A policy",
        &["Policy::Shared", "workers_accept"],
        &["olicy", "pick", "ready_queue", "Load", "WorkerRecord", "WorkerDriver"],
    ),
    ("A message to workers", &["ToWorker::Drain"], &["ToWorker", "worker"]),
    ("A message from workers", &["FromWorker::Pong"], &["FromWorker", "worker"]),
    ("An event", &["Event::Stalled"], &["Event", "event"]),
    (
        "A control command",
        &["Request::Stop", "ClientCommand::Stop"],
        &["Request", "Command", "stop", "pause", "backlog", "accept_paused", "Stop", "stalled"],
    ),
    ("A counter in `status`, of the machine", &["stalled", "stalled_total"], &["stalled"]),
    ("A counter in `status`, of the driver", &["messages_skipped_total"], &["skipped", "stalled"]),
    ("A column of a worker in `status`", &["WorkerRow"], &["Worker", "worker"]),
    ("An option that the machine needs", &[], &["onfig", "Options", "overflow"]),
    ("Another option", &[], &["Options", "etup", "clap", "--", "instance_var", "PrimaryDriver"]),
];

#[test]
fn the_files_to_touch_are_those_that_name_the_like() {
    let page = include_str!("../ARCHITECTURE.md");
    let table = page.split("<!-- to add -->").nth(1).expect("sections");
    let table = table.split("<!-- end -->").next().expect("its end");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for (heading, all, any) in SECTIONS {
        let text = table.split("\n### ").find(|text| text.lines().next() == Some(heading));
        let text = text.expect("a section").strip_prefix(heading).unwrap_or_default();
        let words = text.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs"));
        let listed: BTreeSet<String> = words.map(Into::into).collect();
        let named: BTreeSet<String> = all.iter().flat_map(|word| files_with(word)).collect();
        let missing: Vec<&String> = named.difference(&listed).collect();
        assert!(missing.is_empty(), "{heading} {missing:?}");
        let shipped = |file: &&String| !file.starts_with("tests/") && !file.starts_with("fuzz/");
        for file in listed.iter().filter(shipped) {
            let text = fs::read_to_string(root.join(file)).unwrap();
            assert!(any.iter().any(|word| text.contains(word)), "{heading} {file}");
        }
    }
}

/// Sources that have a word as an identifier, tests and comments apart.
fn files_with(word: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut found = BTreeSet::new();
    let mut rooms: Vec<PathBuf> = ["core/src", "runtime/src", "cli/src", "fuzz/src", "tests/src"]
        .map(|it| root.join(it))
        .into();
    while let Some(path) = rooms.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "bin" {
            rooms.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            if lines
                .flat_map(|line| line.match_indices(word).map(move |at| (line, at)))
                .any(is_whole)
            {
                let path = path.strip_prefix(root).unwrap();
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// Whether a match is an identifier, not a part of one.
fn is_whole((line, (at, word)): (&str, (usize, &str))) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '"';
    let before = line[..at].chars().next_back().is_some_and(is_part);
    let after = line[at + word.len()..].chars().next().is_some_and(is_part);
    !before && !after
}

/// Each line of the example is in effect.
#[test]
fn the_example_of_a_configuration_file_is_one() {
    let page = include_str!("../docs/configuration.md");
    let example = page.split("```toml\n").nth(1).expect("an example");
    let example = example.split("```").next().expect("its end");
    let dir = scratch("roundel-docs");
    fs::write(dir.join("shop.toml"), example).unwrap();
    fs::write(dir.join("server.js"), "").unwrap();
    // What is checked is the file, not whether Node is there.
    fs::write(dir.join("node"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(dir.join("node"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(binary("roundel"));
    command.args(["check", "--config", "shop.toml"]).current_dir(&dir).env("PATH", &dir);
    let output = command.env_remove("WEB_CONCURRENCY").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    for (line, number) in example.lines().zip(1..).filter(|(line, _)| line.contains('=')) {
        let setting = line.split('#').next().unwrap_or_default().trim_end();
        let expected = format!("{setting}  # file shop.toml:{number}\n");
        assert!(printed.contains(&expected), "{expected}{printed}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn paths_in_the_tour_exist() {
    let page = include_str!("../ARCHITECTURE.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let is_path = |word: &&str| {
        let is_rooted = [
            "core/",
            "runtime/",
            "runtime-mio/",
            "runtime-smol/",
            "cli/",
            "tests/",
            "fuzz/",
            "docs/",
        ];
        is_rooted.iter().any(|crate_| word.starts_with(crate_)) && !word.contains(' ')
    };
    let missing: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_path)
        .filter(|path| !root.join(path).exists())
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// The pages for readers, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let in_docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let in_root = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name));
    let pages = in_docs.chain(in_root).filter(|path| path.extension().is_some_and(|it| it == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines that are not in a block of code, each with its number.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let outside = |(_, line): &(usize, &str)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    (1..).zip(text.lines()).filter(outside).collect()
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for (number, line) in prose(&text) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|it| !it.contains("://")) {
                let (file, place) = target.split_once('#').unwrap_or((target, ""));
                let file = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
                let is_there = match fs::read_to_string(&file) {
                    Ok(text) => {
                        let mut headings =
                            prose(&text).into_iter().filter(|it| it.1.starts_with('#'));
                        place.is_empty() || headings.any(|(_, line)| anchor(line) == place)
                    }
                    Err(_) => file.is_dir() && place.is_empty(),
                };
                if !is_there {
                    broken.push(format!("{}:{number}: {target}", path.display()));
                }
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

/// Tables apart, and what can't be broken.
#[test]
fn lines_have_at_most_100_columns() {
    let mut long = Vec::new();
    for (path, text) in pages() {
        for (number, line) in prose(&text) {
            // A table's row, and a link's target, are one line.
            let is_target = line.starts_with('[') && line.contains("]: ");
            let can_be_broken = line.trim().contains(' ') && !line.starts_with('|') && !is_target;
            if can_be_broken && line.chars().count() > 100 {
                long.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert_eq!(long, [""; 0]);
}

#[test]
fn the_page_of_haproxy_shows_the_file_that_the_test_runs() {
    let page = include_str!("../docs/haproxy.md");
    let block = page.split("```text\n").nth(1).and_then(|it| it.split("```").next());
    assert_eq!(block, Some(include_str!("../docs/haproxy.cfg")));
}

/// The end-to-end scenarios that have the number of a case, by module and name.
fn numbered_cases() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e");
    let mut found = BTreeSet::new();
    let mut rooms = vec![root.clone()];
    while let Some(path) = rooms.pop() {
        if path.is_dir() {
            rooms.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let module = path.strip_prefix(&root).unwrap().with_extension("");
            let module = module.to_str().unwrap().replace('/', "::");
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.strip_prefix("fn case_"));
            let names = names.filter_map(|rest| rest.split('(').next());
            found.extend(names.map(|name| format!("{module}::case_{name}")));
        }
    }
    found
}

/// The table of the hardest cases of a reload: each row has a number and its scenarios.
#[test]
fn each_case_of_a_reload_has_the_tests_that_the_page_names() {
    let page = include_str!("../docs/testing.md");
    let table = page.split("<!-- cases -->").nth(1).expect("a table");
    let table = table.split("<!-- end -->").next().expect("its end");
    let mut named = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let Ok(number) = row.split('|').nth(1).unwrap_or_default().trim().parse::<u32>() else {
            continue;
        };
        let cell = row.split('|').nth(3).unwrap_or_default();
        let scenarios: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!scenarios.is_empty(), "{row}");
        for scenario in scenarios {
            assert!(scenario.contains(&format!("::case_{number:02}_")), "{number} {scenario}");
            named.insert(scenario.to_owned());
        }
    }
    assert_eq!(named, numbered_cases());
}
