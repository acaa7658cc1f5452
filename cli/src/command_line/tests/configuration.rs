//! The configuration file: what it may say, and what comes before it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::command_line::file::{is_list, is_switch, keys};

/// A configuration file that goes with its test.
pub(super) struct File(pub(super) PathBuf);

impl File {
    pub(super) fn new(text: impl AsRef<[u8]>) -> File {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("roundel-config-{}-{count}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        File(path)
    }

    pub(super) fn load_with(
        &self,
        line: &str,
        environment: Environment,
    ) -> Result<Effective, Early> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = ["roundel", verb, "--config", self.0.to_str().unwrap()].into_iter();
        load(words.chain(rest.split_whitespace()).map(OsString::from), environment)
    }

    pub(super) fn load(&self, line: &str) -> Effective {
        self.load_with(line, Environment::default()).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) fn run_command() -> clap::Command {
    super::super::command("roundel").find_subcommand("run").unwrap().clone()
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
        "metrics" => "127.0.0.1:9100",
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
        "log-format" => "json",
        "reload-batch" => "all",
        "min-ready" | "max-generations" | "max-requests" | "max-requests-jitter" => "7",
        "ready-hold" | "shutdown-delay" | "heartbeat" | "max-age" => "11s",
        "max-memory" => "2MiB",
        "user" | "group" => "root",
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
        let with = if key == "max-requests-jitter" { "--max-requests 7" } else { "" };
        let load_with = |flag: &str| load_line(&format!("roundel run {with} {flag} prog")).unwrap();
        let expected = load_with(&flag);
        assert_ne!(values(&expected), values(&load_with("")), "{key}");
        for form in forms {
            let file = File::new(&form);
            for verb in ["run", "check"] {
                let found = file.load(&format!("{verb} {with} prog"));
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
    // What is replaced must be valid all the same.
    let replaced = File::new("window = 0").load_with("run --window 3 p", Environment::default());
    assert!(replaced.unwrap_err().text.contains(":1: window: \"0\" is not"));
    let options = file.load_with("run -w 4 p", environment("3", "rr")).unwrap().options;
    let config = options.config.build().unwrap();
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
        options.map(|options| options.config.build().unwrap().workers())
    };
    assert_eq!(workers(), Ok(2));
    fs::write(&file.0, "workers = 3\n").unwrap();
    assert_eq!(workers(), Ok(3));
    fs::write(&file.0, "workers = 0\n").unwrap();
    assert!(workers().unwrap_err()[0].contains(":1: workers: \"0\" is neither auto nor"));
    fs::write(&file.0, "workers = 4\n").unwrap();
    assert_eq!(workers(), Ok(4));
}
