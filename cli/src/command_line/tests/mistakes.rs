//! What is wrong with a configuration file.

use std::fs;

use super::configuration::{File, run_command};
use super::*;
use crate::command_line::file::{ConfigFile, parse as parse_file};

fn read(text: &str) -> Result<ConfigFile, Vec<String>> {
    parse_file("c.toml", text, &run_command())
}

/// The one complaint about a text.
fn complaint(text: &str) -> String {
    let complaints = read(text).unwrap_err();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints.into_iter().next().unwrap()
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "workres = 3\n\"max pending\" = 4\nwindow = 0\n[env]\nA = []\n[zzz]\nworkers = 2\n";
    let expected = [
        "c.toml:1: unknown key \"workres\"; did you mean \"workers\"?",
        "c.toml:2: unknown key \"max pending\"; did you mean \"max-pending\"?",
        "c.toml:3: window: \"0\" is not a whole number from 1 to 1024",
        "c.toml:5: env.A: a list is neither a string nor a whole number",
        "c.toml:6: unknown key \"zzz\"; see run --help",
    ];
    assert_eq!(read(text).unwrap_err(), expected);
    let error = File::new(text).load_with("run p", Environment::default()).unwrap_err();
    assert_eq!((error.exit, error.text.lines().count()), (Exit::Usage, 5), "{error:?}");
    assert!(error.text.lines().all(|line| line.starts_with("roundel: ")), "{error:?}");
}

#[test]
fn a_mistake_is_named_with_its_place() {
    for (text, expected) in [
        (
            "\nworkers = \"many\"",
            "2: workers: \"many\" is neither auto nor a whole number from 1 to 10000",
        ),
        ("workers = -1", "1: workers: \"-1\" is neither auto nor a whole number from 1 to 10000"),
        ("workers = 1.5", "1: workers: 1.5 is neither a string nor a whole number"),
        ("workers = true", "1: workers: true is neither a string nor a whole number"),
        ("workers = [1]", "1: workers: a list is neither a string nor a whole number"),
        ("workers = 99999999999999999999", "1: workers: 99999999999999999999 is too large"),
        ("workers.x = 1", "1: workers: a table is neither a string nor a whole number"),
        ("linger = 1979-05-27", "1: linger: 1979-05-27 is neither a string nor a whole number"),
        ("linger = 5", "1: linger: \"5\" has no unit: add ms, s, m or h"),
        ("wait-ready = \"yes\"", "1: wait-ready: \"yes\" is neither true nor false"),
        ("wait-ready = 1", "1: wait-ready: 1 is neither true nor false"),
        ("journal = \"\"", "1: journal: a value is missing"),
        ("journal = \"a\\u0000b\"", "1: journal: \"a\\u0000b\" contains a NUL character"),
        ("bind = true", "1: bind: true is neither a string nor a list of strings"),
        (
            "bind = [\n\"fd:3\",\n\"80\"]",
            "3: bind: \"80\" is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N",
        ),
        ("bind = [\"fd:3\", [\"fd:4\"]]", "1: bind: a list is not a string"),
        ("overflow = \"a\\u001b[1m\"", "1: overflow: \"a\\u{1b}[1m\" is neither wait nor refuse"),
        ("program = []", "1: program: a list is not a string (see args)"),
        ("\nprogram = 5", "2: program: 5 is not a string (see args)"),
        ("cwd = 5", "1: cwd: 5 is not a string"),
        ("program = \"\"", "1: program: \"\" is not a program"),
        ("program = \"p\"\nargs = \"x\"", "2: args: \"x\" is not a list of strings"),
        ("program = \"p\"\nargs = [\"x\", true]", "2: args: true is not a list of strings"),
        ("workers = 2\nargs = [\"x\"]", "2: args: belongs to a program, and none is given here"),
        ("cwd = \"/no/such\"", "1: cwd: \"/no/such\" is not a directory"),
        ("cwd = \"/dev/null\"", "1: cwd: \"/dev/null\" is not a directory"),
        ("env = 1", "1: env: 1 is not a table of variables"),
        ("env.\"A=B\" = 1", "1: env: \"A=B\" is not a name of a variable"),
        ("env.\"\" = 1", "1: env: \"\" is not a name of a variable"),
        ("env.ROUNDEL_SLOT = 1", "1: env: \"ROUNDEL_SLOT\" has a meaning of its own"),
        ("[env]\nA = true", "2: env.A: true is neither a string nor a whole number"),
        ("[env]\nA = \"\\u0000\"", "2: env.A: \"\\u0000\" contains a NUL character"),
        (
            "[env]\nA = \"\"\nworkers = 3",
            "3: env: \"workers\" is a key of the file itself: write it above [env]",
        ),
        ("config = \"x\"", "1: unknown key \"config\"; see run --help"),
        ("help = true", "1: unknown key \"help\"; see run --help"),
        ("workers", "1: is not TOML: key with no value, expected `=`"),
        (
            "a = 1\nworkers = x",
            "2: is not TOML: string values must be quoted, expected literal string",
        ),
        ("window = 1\nwindow = 2", "2: is not TOML: duplicate key"),
        ("[env", "1: is not TOML: unclosed table, expected `]`"),
    ] {
        assert_eq!(complaint(text), format!("c.toml:{expected}"), "{text}");
    }
}

#[test]
fn what_is_no_file_is_named() {
    let error = |path: &str| {
        let words = ["roundel", "check", "--config", path].map(OsString::from);
        let early = load(words, Environment::default()).unwrap_err();
        assert_eq!(early.exit, Exit::Usage);
        early.text
    };
    let line = |path: &str, cause: &str| format!("roundel: --config: {path:?} {cause}\n");
    assert_eq!(error("/no/such.toml"), line("/no/such.toml", "does not exist"));
    assert_eq!(error("/"), line("/", "is a directory"));
    assert_eq!(error("/dev/null"), line("/dev/null", "is not a regular file"));
    assert_eq!(error(""), "roundel: --config: a value is missing\n");
    let fifo = File::new("");
    fs::remove_file(&fifo.0).unwrap();
    nix::unistd::mkfifo(&fifo.0, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = fifo.0.to_str().unwrap().to_owned();
    let (sender, said) = std::sync::mpsc::channel();
    // Opened to read alone, it would wait for a writer.
    let words = ["roundel", "check", "--config", &path].map(OsString::from);
    std::thread::spawn(move || sender.send(load(words, Environment::default()).unwrap_err().text));
    let said = said.recv_timeout(Duration::from_secs(10)).expect("an answer");
    assert_eq!(said, line(&path, "is not a regular file"));
    let large = File::new(vec![b'\n'; (1 << 20) + 1]);
    let path = large.0.to_str().unwrap();
    assert_eq!(error(path), line(path, "is larger than 1 MiB"));
    let binary = File::new(b"a = 1\n\xff\xfe\x00");
    let words = format!("roundel: {}:2: is not valid UTF-8\n", binary.0.display());
    assert_eq!(error(binary.0.to_str().unwrap()), words);
    assert!(File::new("").load("check").program.is_empty());
    assert!(File::new(vec![b'\n'; 1 << 20]).load("check").program.is_empty());
}

/// A file can be as large as it may be, and as odd, and a few lines are said about it.
#[test]
fn odd_files_harm_nothing() {
    const SIZE: usize = 1 << 20;
    let fill = |part: &str| part.repeat(SIZE / part.len());
    let numbered = |form: &dyn Fn(usize) -> String| (0..SIZE / 16).map(form).collect::<String>();
    for (name, text) in [
        ("brackets", fill("[")),
        ("a list in a list", format!("bind = {}", fill("["))),
        ("tables in tables", format!("env = {}", fill("{a="))),
        ("dots", format!("{}a = 1", fill("a."))),
        ("dots in a header", format!("[{}a]", fill("a."))),
        ("zeros", fill("\0")),
        ("quotes", fill("\"")),
        ("one long key", format!("{} = 1", fill("k"))),
        ("one long value", format!("workers = \"{}\"", fill("v"))),
        ("a long directory", format!("cwd = \"{}\"", fill("v"))),
        ("a long number", format!("workers = {}", fill("9"))),
        ("many keys", numbered(&|n| format!("key{n:08} = 1\n"))),
        ("many variables", format!("[env]\n{}", numbered(&|n| format!("v{n:08} = []\n")))),
        ("many listeners", format!("bind = [{}]", fill("\"x\", "))),
        ("a few listeners", format!("bind = [{}]", "\"x\", ".repeat(1024))),
    ] {
        let complaints = read(&text).expect_err(name);
        assert!((1..=101).contains(&complaints.len()), "{name}: {}", complaints.len());
        for complaint in complaints {
            assert!(complaint.len() < 300 && !complaint.contains('\n'), "{name}: {complaint}");
            assert!(complaint.starts_with("c.toml"), "{name}: {complaint}");
        }
    }
    let listeners = |count| format!("bind = [{}]", "\"fd:3\", ".repeat(count));
    assert!(read(&listeners(1024)).is_ok());
    assert_eq!(complaint(&listeners(1025)), "c.toml:1: bind: has more than 1024 values");
    // Bytes as they come.
    let mut state = 1_u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let parts = [
        "[", "]", "=", "\n", "\"", "'", "bind", "env", ".", ",", "{", "}", "1", "#", "\u{7f}", "é",
    ];
    for _ in 0..2_000 {
        let length = next() % 20;
        let text: String = (0..length).map(|_| parts[next() % parts.len()]).collect();
        if let Err(complaints) = read(&text) {
            assert!(complaints.iter().all(|it| it.starts_with("c.toml")), "{text:?}");
        }
    }
}
