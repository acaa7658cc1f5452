mod configuration;
mod environment;
mod mistakes;

use std::num::NonZeroU64;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use roundel_core::{Codec, Config, Overflow, Policy, Respawn, StopSignal};

use super::*;
use roundel_runtime::observe::control::Where;
use roundel_runtime::observe::eventlog::Target;
use roundel_runtime::observe::output::Format;

/// The whole command line in one text, because no argument here has a space in it.
fn parse(line: &str) -> Result<Command, Early> {
    parse_with("roundel", line.split_whitespace().map(OsString::from), Environment::default())
}

/// A command line that starts a primary, evaluated.
fn load(
    args: impl IntoIterator<Item = OsString>,
    environment: Environment,
) -> Result<Effective, Early> {
    match parse_with("roundel", args, environment)? {
        Command::Run(request) | Command::Demo(request) | Command::Check(request) => {
            request.load().map_err(|lines| Early::usage("roundel", &lines.join("\nroundel: ")))
        }
        other => panic!("{other:?}"),
    }
}

fn load_line(line: &str) -> Result<Effective, Early> {
    load(line.split_whitespace().map(OsString::from), Environment::default())
}

fn demo(line: &str) -> Options {
    load_line(&format!("roundel demo {line}")).unwrap().options
}

fn program(line: &str) -> Vec<OsString> {
    load_line(line).unwrap().program
}

/// The printed text, which must be one line, with exit 2.
fn refused(args: &[&str]) -> String {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let early = match parse_with("roundel", args.clone(), Environment::default()) {
        Ok(_) => load(args, Environment::default()).unwrap_err(),
        Err(early) => early,
    };
    assert_eq!(early.exit, Exit::Usage);
    let line = early.text.strip_prefix("roundel: ").unwrap().strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{line:?}");
    line.to_owned()
}

#[test]
fn defaults_are_those_of_the_core() {
    let options = demo("-w 1");
    assert_eq!(options.config, Config::builder());
    assert_eq!((options.control, options.events, options.codec), (Where::Default, None, None));
    assert_eq!(options.journal, None);
    assert_eq!((options.log_format, options.log_file), (Format::Raw, None));
}

#[test]
fn only_the_demo_has_an_address_by_itself() {
    let expected = Address::Ip("127.0.0.1:8080".parse().unwrap());
    assert_eq!(demo("").bind, [expected.into()]);
    assert_eq!(demo("-b fd:3").bind, [Address::Fd(3).into()]);
    assert_eq!(load_line("roundel run prog").unwrap().options.bind, []);
}

#[test]
fn the_demo_worker_speaks_native() {
    let early = load_line("roundel demo --codec node").unwrap_err();
    let text =
        "roundel: --codec: \"node\" is not supported by the demo worker, which speaks native\n";
    assert_eq!(early, Early { exit: Exit::Usage, text: text.into() });
    assert_eq!(demo("--codec native").codec, Some(Codec::Native));
    assert!(load_line("roundel run --codec node prog").is_ok());
}

#[test]
fn every_option_is_read() {
    let options = demo(
        "-w 3 -b unix:/a --bind *:81 --policy shared --window 7 --max-pending 9 --overflow refuse \
         --ack-timeout 0 --ready-timeout 500ms --drain-timeout 2m --drain-settle 0 --linger 300ms --stop-signal USR2 --restart-intensity 3/4 \
         --respawn on-failure --wait-ready --reload-batch all --min-ready 2 --ready-hold 5s \
         --max-generations 3 --shutdown-delay 9s --heartbeat 8s --max-requests 8 --max-requests-jitter 99 \
         --max-memory 3MiB --max-age 1h --user root --group 7 --control /c --events - --journal /j \
         --journal-limit 2MiB --metrics unix:/m --log-format json --log-file /l --codec native --instance-var NODE_APP_INSTANCE",
    );
    let expected = Options {
        config: Config::builder()
            .workers(3)
            .policy(Policy::Shared)
            .window(7)
            .node_window(7)
            .max_pending(9)
            .overflow(Overflow::Refuse)
            .ack_timeout(None)
            .ready_timeout(Some(Duration::from_millis(500)))
            .wait_ready(true)
            .drain_timeout(Duration::from_secs(120))
            .drain_settle(Duration::ZERO)
            .linger(Some(Duration::from_millis(300)))
            .stop_signal(Some(StopSignal::Signal(roundel_core::Signal::User2)))
            .restart_intensity(3)
            .restart_period(Duration::from_secs(4))
            .respawn(Respawn::OnFailure)
            .reload_batch(10_000)
            .min_ready(Some(2))
            .ready_hold(Duration::from_secs(5))
            .max_generations(3)
            .shutdown_delay(Duration::from_secs(9))
            .heartbeat(Some(Duration::from_secs(8)))
            .max_requests(std::num::NonZeroU64::new(8))
            .max_requests_jitter(99)
            .max_memory(NonZeroU64::new(3 << 20))
            .max_age(Some(Duration::from_secs(3_600))),
        bind: vec![Address::Unix("/a".into()).into(), Address::Any { port: 81 }.into()],
        pass_server: None,
        identity: Identity::find(Some("root"), Some("7")).unwrap(),
        control: Where::Path("/c".into()),
        events: Some(Target::Stdout),
        journal: Some(journal::Target { path: "/j".into(), limit: 2 << 20 }),
        metrics: Some(Address::Unix("/m".into())),
        log_format: Format::Json,
        log_file: Some("/l".into()),
        codec: Some(Codec::Native),
        instance_var: Some("NODE_APP_INSTANCE".into()),
        node_assist: false,
        env: Vec::new(),
        cwd: None,
    };
    assert_eq!(options, expected);
    assert_eq!(options.binds(), options.bind);
    assert_eq!(
        demo("-w 1 --max-requests 7").config,
        Config::builder().workers(1).max_requests(NonZeroU64::new(7))
    );
    assert_eq!(demo("--control off").control, Where::Off);
    assert_eq!(demo("--control ./off").control, Where::Path("./off".into()));
    assert_eq!(demo("--workers=5 --events=e.log").config, Config::builder().workers(5));
    let journal = journal::Target { path: "j".into(), limit: journal::DEFAULT_LIMIT };
    assert_eq!(demo("--journal=j").journal, Some(journal));
    assert_eq!(demo("--events=e.log").events, Some(Target::Path("e.log".into())));
}

#[test]
fn a_passed_server_is_the_only_listener() {
    let options = load_line("roundel run --pass-server *:1 x.js").unwrap().options;
    assert_eq!(options.binds(), [Address::Any { port: 1 }.into()]);
    let listeners = vec![roundel_core::ListenKey::stream(Address::Any { port: 1 })];
    assert!(options.config.listeners(listeners).build().unwrap().pass_listeners());
    for (args, cause) in [
        (&["roundel", "run", "--pass-server", "*:1", "-b", "*:2", "x"][..], "--bind"),
        (&["roundel", "run", "--pass-server", "*:1", "--codec", "native", "x"], "--codec"),
        (&["roundel", "demo", "--pass-server", "*:1"], "demo"),
    ] {
        let line = refused(args);
        assert!(line.starts_with("--pass-server: ") && line.contains(cause), "{line}");
    }
}

#[test]
fn arguments_after_the_program_are_not_options() {
    assert_eq!(
        program("roundel run prog -w 9 --bind x -- --help"),
        ["prog", "-w", "9", "--bind", "x", "--", "--help"]
    );
    assert_eq!(program("roundel run -w 2 prog run"), ["prog", "run"]);
    assert_eq!(program("roundel run -- prog -x"), ["prog", "-x"]);
    assert_eq!(program("roundel run help"), ["help"]);
    let bytes = OsString::from_vec(vec![b'a', 0xff]);
    let args = [OsString::from("roundel"), "run".into(), "prog".into(), bytes.clone()];
    let program = load(args, Environment::default()).unwrap().program;
    assert_eq!(program, [OsString::from("prog"), bytes]);
}

#[test]
fn commands_to_a_primary() {
    let client = |line| match parse(line) {
        Ok(Command::Client(command)) => command,
        other => panic!("{line}: {other:?}"),
    };
    let control = Some(PathBuf::from("/c"));
    assert_eq!(client("roundel status"), ClientCommand::Status { control: None, json: false });
    assert_eq!(
        client("roundel status --json --control /c"),
        ClientCommand::Status { control: control.clone(), json: true }
    );
    assert_eq!(client("roundel stop --control=/c"), ClientCommand::Stop { control });
    assert_eq!(parse("roundel top"), Ok(Command::Top { control: None }));
    assert_eq!(parse("roundel top --control /c"), Ok(Command::Top { control: Some("/c".into()) }));
    for verb in ["status", "stop", "top"] {
        let line = format!("roundel {verb} --control off");
        let line = line.as_str();
        let early = parse(line).unwrap_err();
        assert!(early.text.starts_with("roundel: --control: "), "{early:?}");
        assert_eq!((early.exit, early.text.lines().count()), (Exit::Usage, 1));
    }
}

#[test]
fn a_replay_names_its_journal() {
    let replay = |diagram| Ok(Command::Replay { journal: "/j".into(), diagram });
    assert_eq!(parse("roundel replay /j"), replay(false));
    assert_eq!(parse("roundel replay --diagram /j"), replay(true));
    assert_eq!(parse("roundel replay /j --diagram"), replay(true));
}

#[test]
fn help_says_the_bounds_and_defaults_of_the_core() {
    let help = parse("roundel run --help").unwrap_err().text;
    let help: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "Number of workers, 1 to 10000; auto uses the available parallelism [env: WEB_CONCURRENCY] \
         [default: auto]",
        "Connections in flight per worker, 1 to 1024 [default: 1 native, 4 Node]",
        "Pending connections per listener, 1 to 16777216, before --overflow applies [default: 1024]",
        "wait (stop accepting) or refuse (accept and close) [default: wait]",
        "0 means forever [default: 60s]",
        "only reported [default: 30s]",
        "500ms, 10s, 2m, 1h [default: 30s]",
        "0 means at once [default: 1s]",
        "0 means until its deadline is near [default: 2s]",
        "before it is given up [default: 5/10]",
        "always, on-failure or never [default: always]",
    ] {
        assert!(help.contains(expected), "{expected:?}: {help}");
    }
}

/// Every option with every way to get it wrong: one line with the option, the value and the cause.
#[test]
fn a_bad_value_is_one_line() {
    let bad = [
        ("--workers", "0", "is neither auto nor a whole number from 1 to 10000"),
        ("--bind", "8080", "is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N"),
        ("--policy", "kernel", "is not available yet"),
        ("--policy", "fair", "is neither round-robin nor shared"),
        ("--window", "-1", "is not a whole number from 1 to 1024"),
        ("--max-pending", "1k", "is not a whole number from 1 to 16777216"),
        ("--overflow", "drop", "is neither wait nor refuse"),
        ("--ack-timeout", "10", "has no unit: add ms, s, m or h"),
        ("--ready-timeout", "soon", "is not a duration (examples: 500ms, 10s, 2m, 1h)"),
        ("--drain-timeout", "0", "must be greater than zero"),
        ("--drain-settle", "-1s", "is not a duration (examples: 500ms, 10s, 2m, 1h)"),
        ("--linger", "2", "has no unit: add ms, s, m or h"),
        ("--stop-signal", "KILL", "is not one of TERM, INT, HUP, USR2, message"),
        ("--restart-intensity", "5", "is not N/SECONDS, two whole numbers (example: 5/10)"),
        ("--respawn", "no", "is not one of always, on-failure, never"),
        ("--journal-limit", "1000", "is not a size (examples: 512KiB, 64MiB, 1GiB)"),
        ("--codec", "json", "is not one of auto, native, node"),
        (
            "--instance-var",
            "A B",
            "is not a variable name (letters, digits and _, not starting with a digit)",
        ),
        ("--instance-var", "PATH", "is a variable that is already used for something else"),
        ("--instance-var", "ROUNDEL_SLOT", "is a variable that is already used for something else"),
    ];
    for (option, value, cause) in bad {
        for args in [["roundel", "demo", option, value], ["roundel", "run", option, value]] {
            assert_eq!(refused(&args), format!("{option}: {value:?} {cause}"));
        }
    }
    assert!(refused(&["roundel", "demo", "-w", "x"]).starts_with("--workers: \"x\" is neither"));
    let line = refused(&["roundel", "demo", "--overflow", "a\nb\x1b[1m"]);
    assert_eq!(line, "--overflow: \"a\\nb\\u{1b}[1m\" is neither wait nor refuse");
}

#[test]
fn every_option_needs_its_value_once() {
    let command = super::command("roundel");
    let mut options = 0;
    for (name, of) in command.get_subcommands().map(|it| (it.get_name(), it)) {
        for arg in of.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
            let long = format!("--{long}");
            if arg.get_action().takes_values() {
                options += 1;
                let line = refused(&["roundel", name, &long]);
                assert_eq!(line, format!("{long}: a value is missing"));
                // An empty value is refused too.
                let line = refused(&["roundel", name, &format!("{long}=")]);
                assert!(line.starts_with(&format!("{long}: ")), "{line}");
            } else {
                let line = refused(&["roundel", name, &format!("{long}=1")]);
                assert_eq!(line, format!("{long}: takes no value"));
            }
        }
    }
    assert_eq!(options, 3 * 37 + 2 + 1 + 5);
    let twice = refused(&["roundel", "demo", "--window", "1", "--window", "2"]);
    assert_eq!(twice, "--window: given more than once");
    let twice = refused(&["roundel", "status", "--json", "--json"]);
    assert_eq!(twice, "--json: given more than once");
}

#[test]
fn other_mistakes_are_one_line_too() {
    let cases: [(&[&str], &str); 16] = [
        (&["roundel"], "a command is missing (see --help)"),
        (&["roundel", "run"], "run: PROGRAM is missing (see run --help)"),
        (&["roundel", "run", "-w", "2"], "run: PROGRAM is missing (see run --help)"),
        (&["roundel", "run", ""], "PROGRAM: \"\" is not a program"),
        (&["roundel", "walk"], "\"walk\" is not a command (see --help)"),
        (&["roundel", "rum"], "\"rum\" is not a command (see --help)"),
        (&["roundel", "demo\n"], "\"demo\\n\" is not a command (see --help)"),
        (
            &["roundel", "demo", "--windows", "1"],
            "\"--windows\" is not an option (did you mean --window?)",
        ),
        (&["roundel", "run", "--bogus", "prog"], "\"--bogus\" is not an option (see --help)"),
        (&["roundel", "demo", "-x"], "\"-x\" is not an option (see --help)"),
        (&["roundel", "demo", "prog"], "\"prog\" is not expected here (see --help)"),
        (&["roundel", "status", "now"], "\"now\" is not expected here (see --help)"),
        (&["roundel", "demo", "--telemetry", "x"], "\"--telemetry\" is not an option (see --help)"),
        (&["roundel", "replay"], "JOURNAL is missing (see --help)"),
        (&["roundel", "replay", "--diagram"], "JOURNAL is missing (see --help)"),
        (&["roundel", "replay", "a", "b"], "\"b\" is not expected here (see --help)"),
    ];
    for (args, expected) in cases {
        assert_eq!(refused(args), expected, "{args:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_shown_escaped() {
    let bytes = || OsString::from_vec(vec![0xff]);
    let args = || ["roundel", "demo", "--window"].map(OsString::from).into_iter();
    let early = load(args().chain([bytes()]), Environment::default()).unwrap_err();
    assert_eq!(early.text, "roundel: --window: \"\\xFF\" is not valid UTF-8\n");
    // For an argument or a command there is no name to give.
    for before in [1, 2] {
        let early =
            parse_with("roundel", args().take(before).chain([bytes()]), Environment::default())
                .unwrap_err();
        assert_eq!((early.exit, early.text.lines().count()), (Exit::Usage, 1), "{early:?}");
    }
}

#[test]
fn help_and_version_end_well() {
    let version = parse("roundel --version").unwrap_err();
    let expected = format!("roundel {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, Early { exit: Exit::Stopped, text: expected });
    for line in ["roundel --help", "roundel -h", "roundel run --help", "roundel demo -h"] {
        let help = parse(line).unwrap_err();
        assert_eq!(help.exit, Exit::Stopped);
        assert!(help.text.contains("Usage: roundel"), "{}", help.text);
    }
    let run = parse("roundel run --help").unwrap_err().text;
    assert!(run.contains("Usage: roundel run [OPTIONS] PROGRAM [ARGS...]\n"), "{run}");
}

#[test]
fn every_option_says_its_default() {
    let command = super::command("roundel");
    for name in ["run", "demo"] {
        for arg in command.find_subcommand(name).unwrap().get_arguments() {
            let help = arg.get_help().unwrap().to_string();
            let is_told = help.contains("[default: ") || !arg.get_default_values().is_empty();
            assert!(is_told || arg.get_id() == "help", "{arg}: {help}");
        }
    }
}

#[test]
fn only_the_name_differs_between_the_binaries() {
    for page in [vec!["--help"], vec!["run", "--help"], vec!["stop", "-h"], vec!["--version"]] {
        let text = |name: &'static str| {
            let args = [name].into_iter().chain(page.iter().copied()).map(OsString::from);
            parse_with(name, args, Environment::default()).unwrap_err().text
        };
        assert_eq!(text("roundel-x").replace("roundel-x", "roundel"), text("roundel"));
    }
    let args = ["roundel-x", "walk"].map(OsString::from);
    let early = parse_with("roundel-x", args, Environment::default()).unwrap_err();
    assert!(early.text.starts_with("roundel-x: "));
}
