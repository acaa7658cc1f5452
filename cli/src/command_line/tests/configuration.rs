//! The configuration file: what it may say, what comes before it, and what is wrong with it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::command_line::file::{ConfigFile, is_list, is_switch, keys, parse as parse_file};

/// A configuration file that goes with its test.
struct File(PathBuf);

impl File {
    fn new(text: impl AsRef<[u8]>) -> File {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("roundel-config-{}-{count}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        File(path)
    }

    fn load_with(&self, line: &str, environment: Environment) -> Result<Effective, Early> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = ["roundel", verb, "--config", self.0.to_str().unwrap()].into_iter();
        load(words.chain(rest.split_whitespace()).map(OsString::from), environment)
    }

    fn load(&self, line: &str) -> Effective {
        self.load_with(line, Environment::default()).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run_command() -> clap::Command {
    super::super::command("roundel").find_subcommand("run").unwrap().clone()
}

fn read(text: &str) -> Result<ConfigFile, Vec<String>> {
    parse_file("c.toml", text, &run_command())
}

/// The one complaint about a text.
fn complaint(text: &str) -> String {
    let complaints = read(text).unwrap_err();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints.into_iter().next().unwrap()
}

/// The values without their sources.
fn values(effective: &Effective) -> String {
    let text = effective.settings.to_string();
    let lines = text.lines().map(|line| line.split("  # ").next().unwrap());
    lines.map(|line| format!("{line}\n")).collect()
}

/// The line of a key in what `check` prints.
fn line(effective: &Effective, key: &str) -> String {
    let text = effective.settings.to_string();
    let is_it = |line: &&str| line.trim_start_matches("# ").starts_with(key);
    text.lines().find(is_it).unwrap_or_else(|| panic!("{key}: {text}")).to_owned()
}

/// A valid value that is no default, as a flag has it. An option without an entry here is new: add
/// one if the test that looks for it fails.
fn example(key: &str) -> &'static str {
    match key {
        "bind" => "127.0.0.1:4711",
        "pass-server" => "unix:/tmp/x.sock",
        "policy" => "shared",
        "overflow" => "refuse",
        "stop-signal" => "USR2",
        "restart-intensity" => "3/4",
        "respawn" => "on-failure",
        "journal-limit" => "2MiB",
        "codec" => "node",
        "instance-var" => "MY_NUMBER",
        "workers" | "window" | "max-pending" => "7",
        _ if key.contains("timeout") => "11s",
        "drain-settle" | "linger" => "11ms",
        _ => "some/text",
    }
}

#[test]
fn every_option_can_be_in_the_file() {
    let command = run_command();
    let mut count = 0;
    for (key, arg) in keys(&command) {
        count += 1;
        let value = example(key);
        let (flag, forms) = match (is_switch(arg), is_list(arg)) {
            (true, _) => (format!("--{key}"), vec![format!("{key} = true")]),
            (_, true) => (
                format!("--{key} {value} --{key} fd:9"),
                vec![format!("{key} = [{value:?}, \"fd:9\"]")],
            ),
            _ => {
                let mut forms = vec![format!("{key} = {value:?}"), format!("{key} = '{value}'")];
                forms.extend(value.parse::<u32>().map(|number| format!("{key} = {number}")));
                (format!("--{key}={value}"), forms)
            }
        };
        let expected = load_line(&format!("roundel run {flag} prog")).unwrap();
        assert_ne!(values(&expected), values(&load_line("roundel run prog").unwrap()), "{key}");
        for form in forms {
            let file = File::new(&form);
            for verb in ["run", "check"] {
                let found = file.load(&format!("{verb} prog"));
                assert_eq!(found.options, expected.options, "{form}");
                assert_eq!(values(&found), values(&expected), "{form}");
                let source = format!("  # file {}:1", file.0.display());
                assert!(line(&found, key).ends_with(&source), "{form}");
            }
        }
    }
    assert_eq!(count, run_command().get_arguments().count() - 1, "all but --config");
}

#[test]
fn what_check_prints_is_a_file_for_the_same() {
    let command = run_command();
    let mut text = String::from("program = \"a b\"\nargs = [\"-x\", \"\\u001b\\\"\\\\\\n\", 3]\n");
    text += "cwd = \"/\"\n";
    for (key, arg) in keys(&command).filter(|(key, _)| *key != "pass-server") {
        match (is_switch(arg), is_list(arg)) {
            (true, _) => text += &format!("{key} = true\n"),
            (_, true) => text += &format!("{key} = [\"fd:8\", {:?}]\n", example(key)),
            _ => text += &format!("{key} = {:?}\n", example(key)),
        }
    }
    text += "[env]\nB = 1\nA = \"x # y  # z\"\n\"a.b\" = \"\\u202e\"\n";
    let file = File::new(&text);
    let first = file.load("check");
    assert_eq!(first.options.env.len(), 3);
    let copy = File::new(first.settings.to_string());
    let second = copy.load("check");
    assert_eq!((second.options, second.program), (first.options, first.program));
    let renamed = second.settings.to_string();
    let lines = |text: &str| {
        text.lines()
            .map(|it| it.rsplit_once("  # ").map_or(it, |it| it.0).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&renamed), lines(&first.settings.to_string()));
    // Also with nothing but defaults, which need not be given.
    let first = load_line("roundel check").unwrap();
    let second = File::new(first.settings.to_string()).load("check");
    assert_eq!((&second.options, values(&second)), (&first.options, values(&first)));
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let file =
        File::new("workers = 2\npolicy = \"shared\"\nwindow = 5\nbind = [\"fd:3\", \"fd:4\"]\n");
    let environment = |workers: &str, policy: &str| Environment {
        workers: Some(workers.into()),
        policy: Some(policy.into()),
    };
    let name = file.0.display();
    for (flags, variables, key, expected) in [
        ("", ("", ""), "workers", format!("workers = 2  # file {name}:1")),
        ("", ("3", ""), "workers", "workers = 3  # environment WEB_CONCURRENCY".into()),
        ("-w 4", ("3", ""), "workers", "workers = 4  # flag".into()),
        ("-w 4", ("many", ""), "workers", "workers = 4  # flag".into()),
        ("", ("", ""), "policy", format!("policy = \"shared\"  # file {name}:2")),
        (
            "",
            ("", "rr"),
            "policy",
            "policy = \"round-robin\"  # environment NODE_CLUSTER_SCHED_POLICY".into(),
        ),
        ("--policy shared", ("", "rr"), "policy", "policy = \"shared\"  # flag".into()),
        ("", ("", ""), "window", format!("window = 5  # file {name}:3")),
        ("--window 6", ("", ""), "window", "window = 6  # flag".into()),
        ("", ("", ""), "bind", format!("bind = [\"fd:3\", \"fd:4\"]  # file {name}:4")),
        // Listeners are not added to those of the file: they replace them.
        ("-b fd:5", ("", ""), "bind", "bind = [\"fd:5\"]  # flag".into()),
        ("", ("", ""), "overflow", "overflow = \"wait\"  # default".into()),
        ("", ("", ""), "journal:", "# journal: off".into()),
    ] {
        let environment = environment(variables.0, variables.1);
        let found = file.load_with(&format!("check {flags}"), environment).unwrap();
        assert_eq!(line(&found, key), expected, "{flags} {variables:?}");
    }
    let wrong = file.load_with("check", environment("many", "")).unwrap_err();
    assert!(wrong.text.starts_with("roundel: WEB_CONCURRENCY: \"many\" is neither"), "{wrong:?}");
    let options = file.load_with("run -w 4 p", environment("3", "rr")).unwrap().options;
    let config = options.config().build().unwrap();
    assert_eq!((config.workers(), config.policy()), (4, Policy::RoundRobin));
}

#[test]
fn the_program_may_be_in_the_file() {
    let file =
        File::new("args = [\"-w\", 3]\nprogram = \"./x.js\"\ncwd = \"/\"\n[env]\nPORT = 80\n");
    let found = file.load("run");
    assert_eq!(found.program, ["./x.js", "-w", "3"]);
    assert_eq!(found.options.cwd, Some("/".into()));
    assert_eq!(found.options.env, [("PORT".into(), "80".into())]);
    assert!(line(&found, "program").ends_with(":2") && line(&found, "args").ends_with(":1"));
    // One on the command line has its own arguments.
    let found = file.load("run y -z");
    assert_eq!(found.program, ["y", "-z"]);
    assert_eq!(line(&found, "args"), "args = [\"-z\"]  # argument");
    assert_eq!(file.load("run y").program, ["y"]);
    let error = file.load_with("demo", Environment::default()).unwrap_err();
    let words = ":2: program: the demo has a worker of its own\n";
    assert!(error.text.ends_with(words), "{error:?}");
    let file = File::new("[env]\nA = \"1\"\n");
    assert_eq!(file.load("demo").options.env.len(), 1);
    let error = file.load_with("run", Environment::default()).unwrap_err();
    assert_eq!(error.text, "roundel: run: PROGRAM is missing (see run --help)\n");
}

#[test]
fn the_file_is_read_anew() {
    let file = File::new("workers = 2\n");
    let words = ["roundel", "run", "--config", file.0.to_str().unwrap(), "p"].map(OsString::from);
    let Ok(Command::Run(request)) = parse_with("roundel", words, Environment::default()) else {
        panic!()
    };
    let workers = || {
        let options = request.load().map(|effective| effective.options);
        options.map(|options| options.config().build().unwrap().workers())
    };
    assert_eq!(workers(), Ok(2));
    fs::write(&file.0, "workers = 3\n").unwrap();
    assert_eq!(workers(), Ok(3));
    fs::write(&file.0, "workers = 0\n").unwrap();
    assert!(workers().unwrap_err()[0].contains(":1: workers: \"0\" is neither auto nor"));
    fs::write(&file.0, "workers = 4\n").unwrap();
    assert_eq!(workers(), Ok(4));
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
        ("linger = 5", "1: linger: \"5\" has no unit: write ms, s, m or h behind the number"),
        ("wait-ready = \"yes\"", "1: wait-ready: \"yes\" is neither true nor false"),
        ("wait-ready = 1", "1: wait-ready: 1 is neither true nor false"),
        ("journal = \"\"", "1: journal: a value is missing"),
        ("journal = \"a\\u0000b\"", "1: journal: \"a\\u0000b\" contains a NUL character"),
        ("bind = true", "1: bind: true is neither a string nor a list of strings"),
        (
            "bind = [\n\"fd:3\",\n\"80\"]",
            "3: bind: \"80\" is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N",
        ),
        ("bind = [\"fd:3\", [\"fd:4\"]]", "1: bind: a list is no string"),
        ("overflow = \"a\\u001b[1m\"", "1: overflow: \"a\\u{1b}[1m\" is neither wait nor refuse"),
        ("program = []", "1: program: a list is no string"),
        ("program = \"\"", "1: program: \"\" is no program"),
        ("program = \"p\"\nargs = \"x\"", "2: args: \"x\" is no list of strings"),
        ("program = \"p\"\nargs = [\"x\", true]", "2: args: true is no list of strings"),
        ("workers = 2\nargs = [\"x\"]", "2: args: belongs to a program, and none is given here"),
        ("cwd = \"/no/such\"", "1: cwd: \"/no/such\" is no directory"),
        ("cwd = \"/dev/null\"", "1: cwd: \"/dev/null\" is no directory"),
        ("env = 1", "1: env: 1 is no table of variables"),
        ("env.\"A=B\" = 1", "1: env: \"A=B\" is no name of a variable"),
        ("env.\"\" = 1", "1: env: \"\" is no name of a variable"),
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
    let path = fifo.0.to_str().unwrap();
    assert_eq!(error(path), line(path, "is not a regular file"));
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
