//! The binaries, apart from their event loop: each `main` calls this.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::client;
use crate::command_line::{self, Command, Effective, Options, Request};
use crate::program::{self, Refusal, Resolved, Surroundings};
use crate::replay;
use crate::stderr::say;
use crate::top;
use roundel_core::ConfigError;
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::console::Console;
use roundel_runtime::primary::driver::PrimaryDriver;
use roundel_runtime::primary::setup::{Fresh, ReadyReport, Reread, Setup, StartError};
use roundel_runtime::unix::process::Program;
use roundel_runtime::unix::signals;

/// The first argument of a demo worker: the same executable, run by its own primary.
const DEMO_WORKER: &str = "demo-worker";

/// The option, and the key of the configuration file, that names listeners.
const BIND: &str = "bind";

/// The parts of a binary: its name, its event loop and its demo worker.
#[derive(Clone, Copy, Debug)]
pub struct Adapter {
    /// The name of the binary.
    pub name: &'static str,
    /// Starts the event loop's own threads: see [`Setup::prepare`].
    pub prepare: fn() -> io::Result<()>,
    /// Runs a primary to its end.
    pub run: fn(PrimaryDriver) -> io::Result<Exit>,
    /// Runs a demo worker that listens on a given number of the operator's listeners.
    pub demo_worker: fn(u32) -> io::Result<ExitCode>,
}

/// A whole binary: reads the command line and does what it asks for.
pub fn main(adapter: Adapter) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == DEMO_WORKER) {
        let count = args.next().and_then(|count| count.to_str()?.parse().ok());
        return (adapter.demo_worker)(count.unwrap_or(1)).unwrap_or_else(|error| {
            say(&format!("roundel demo worker: {error}"));
            ExitCode::FAILURE
        });
    }
    // This comes first: until then, a signal ends the future primary by its default action.
    let mask = signals::block();
    let command = command_line::parse(adapter.name, std::env::args_os());
    if !matches!(command, Ok(Command::Run(_) | Command::Demo(_)))
        && let Ok(mask) = mask
    {
        mask.restore();
    }
    let exit = match command {
        Ok(Command::Run(request) | Command::Demo(request)) => start(adapter, &request),
        Ok(Command::Check(request)) => check(adapter, &request),
        Ok(Command::Replay { journal, diagram }) => {
            return replay::run(adapter.name, &journal, diagram).into();
        }
        Ok(Command::Top { control }) => return top::run(adapter.name, control.as_deref()).into(),
        Ok(Command::Client(command)) => return client::run(adapter.name, &command).into(),
        Err(exit) => exit,
    };
    exit.into()
}

/// The content of a request: what to start, and how.
#[derive(Debug)]
struct Loaded {
    effective: Effective,
    /// `None` if no program was given.
    resolved: Option<Resolved>,
}

/// Reads the configuration and looks the program up. A later call finds what has changed since, in
/// the configuration file as in the program's place.
fn load(request: &Request) -> Result<Loaded, Refusal> {
    let usage = |lines: Vec<String>| Refusal { exit: Exit::Usage, words: lines.join("\n") };
    let effective = request.load().map_err(usage)?;
    let words = effective.program.clone();
    let resolved = match words.is_empty() {
        true => None,
        false => Some(program::resolve(words, surroundings(&effective.options)?)?),
    };
    Ok(Loaded { effective, resolved })
}

/// The directory and the variables of the workers.
fn surroundings(options: &Options) -> Result<Surroundings, Refusal> {
    Ok(Surroundings::own()?.with(options.env.clone(), options.cwd.as_deref()))
}

fn start(adapter: Adapter, request: &Request) -> Exit {
    // A reload starts the file at this path, whatever it is by then; and its place is known before
    // anything can move.
    let _ = program::at_own_place(".".as_ref());
    let own = std::env::current_exe();
    let setup = load(request).and_then(|Loaded { effective, resolved }| {
        let place = effective.settings.place(BIND);
        let options = &effective.options;
        let mut setup = match resolved {
            Some(resolved) => {
                run_hooks(adapter, &resolved)?;
                setup(adapter, options, resolved)
            }
            None => demo(adapter, options, &own)?,
        };
        let (request, first) = (request.clone(), options.clone());
        setup.reread = Some(Reread::new(move |dry_run| {
            let fresh = reread(adapter, &request, &first, &own, dry_run);
            fresh.map_err(|refusal| refusal.words)
        }));
        Ok((setup, place))
    });
    match setup {
        Ok((setup, place)) => run(adapter, setup, place),
        Err(refusal) => refuse(adapter, &refusal),
    }
}

fn run_hooks(adapter: Adapter, resolved: &Resolved) -> Result<(), Refusal> {
    for hook in &resolved.hooks {
        // No thread may exist yet when the signals are taken over, so this is written directly.
        say(&format!("{}: {}: runs {}", adapter.name, hook.name, hook.script));
        hook.run()?;
    }
    Ok(())
}

/// What a reload starts: everything is looked up again.
fn reread(
    adapter: Adapter,
    request: &Request,
    first: &Options,
    own: &io::Result<PathBuf>,
    dry_run: bool,
) -> Result<Fresh, Refusal> {
    let Loaded { effective, resolved } = load(request)?;
    let options = &effective.options;
    if let Some(name) = first.fixed(options) {
        let words = format!("{name} can't change while the primary runs: restart it");
        return Err(Refusal { exit: Exit::Usage, words });
    }
    let setup = match resolved {
        Some(resolved) => {
            if !dry_run {
                run_hooks(adapter, &resolved)?;
            }
            setup(adapter, options, resolved)
        }
        None => demo(adapter, options, own)?,
    };
    let place = effective.settings.place(BIND);
    let refusal = |error: StartError| Refusal {
        exit: exit_of(&error),
        words: words(&error, place.as_deref()),
    };
    setup.check().map_err(refusal)?;
    setup.into_fresh().map_err(refusal)
}

/// Prints the configuration, if a primary could be started with it.
fn check(adapter: Adapter, request: &Request) -> Exit {
    let checked = load(request).and_then(|Loaded { effective, resolved }| {
        // The other options can be wrong without a program, too.
        let resolved = resolved.unwrap_or_else(|| Program::default().into());
        let setup = setup(adapter, &effective.options, resolved);
        let place = effective.settings.place(BIND);
        let words = |error: &StartError| words(error, place.as_deref());
        let wrong = |error: StartError| Refusal { exit: Exit::Usage, words: words(&error) };
        setup.check().map_err(wrong).map(|()| effective.settings.to_string())
    });
    match checked {
        Ok(settings) => match io::stdout().write_all(settings.as_bytes()) {
            Ok(()) => Exit::Stopped,
            Err(error) => fail(adapter, &format!("cannot write the configuration: {error}")),
        },
        Err(refusal) => refuse(adapter, &refusal),
    }
}

fn refuse(adapter: Adapter, refusal: &Refusal) -> Exit {
    fail(adapter, &refusal.words);
    refusal.exit
}

/// The built-in worker: this executable.
fn demo(adapter: Adapter, options: &Options, own: &io::Result<PathBuf>) -> Result<Setup, Refusal> {
    let path = own.as_ref().map_err(|error| Refusal {
        exit: Exit::Failure,
        words: format!("cannot find this executable: {error}"),
    })?;
    let Surroundings { cwd, added: env, moved, .. } = surroundings(options)?;
    let cwd = moved.then_some(cwd);
    let program = Program { path: path.clone().into(), env, cwd, ..Program::default() };
    let mut setup = setup(adapter, options, program.into());
    // One address may stand for several sockets.
    let listeners = setup
        .listeners()
        .map_err(|error| Refusal { exit: exit_of(&error), words: error.to_string() })?;
    setup.program.args = vec![DEMO_WORKER.into(), listeners.len().to_string().into()];
    setup.welcome = Some(welcome);
    Ok(setup)
}

fn setup(adapter: Adapter, options: &Options, mut resolved: Resolved) -> Setup {
    if options.node_assist {
        program::assist(&mut resolved.program);
    }
    let mut setup = Setup::new(adapter.name, resolved.program, options.config.clone());
    setup.binds = options.binds();
    setup.identity = options.identity.clone();
    setup.control = options.control.clone();
    setup.events = options.events.clone();
    setup.journal = options.journal.clone();
    setup.metrics = options.metrics.clone();
    setup.log_format = options.log_format;
    setup.log_file = options.log_file.clone();
    setup.codec = options.codec;
    setup.listen_fds = !resolved.has_channel;
    setup.prepare = adapter.prepare;
    setup.per_slot = program::per_slot(options.instance_var.clone(), resolved.inspect);
    setup.notes = resolved.notes;
    setup.notes.extend(never_ready(options));
    setup
}

/// Says so if `/readyz` can never be content.
fn never_ready(options: &Options) -> Option<String> {
    let config = options.config.clone().build().ok().filter(|_| options.metrics.is_some())?;
    let (least, workers) = (config.min_ready()?, config.workers());
    let words = format!("/readyz answers 503: --min-ready {least} is more than {workers} workers");
    (least > workers).then_some(words)
}

fn run(adapter: Adapter, setup: Setup, place: Option<String>) -> Exit {
    match PrimaryDriver::start(setup) {
        Ok(driver) => {
            let console = driver.console();
            (adapter.run)(driver).unwrap_or_else(|error| {
                console.say(&format!("the event loop failed: {error}"));
                console.flush();
                Exit::Failure
            })
        }
        Err(error) => {
            fail(adapter, &words(&error, place.as_deref()));
            exit_of(&error)
        }
    }
}

/// What is wrong. Listeners that can't be together have a place if the configuration file has them.
fn words(error: &StartError, place: Option<&str>) -> String {
    let words = error.to_string();
    match (error, place) {
        (StartError::Config(ConfigError::Overlap(_)), Some(place)) => {
            format!("{place}: {}", words.trim_start_matches('-'))
        }
        _ => words,
    }
}

fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Config(_)
        | StartError::TooFewFiles { .. }
        | StartError::User(_)
        | StartError::SameFile { .. } => Exit::Usage,
        StartError::Bind(_) | StartError::Metrics { .. } => Exit::CannotBind,
        _ => Exit::Failure,
    }
}

/// Reports why nothing was started. It waits for a blocked standard error no longer than a running
/// primary does.
fn fail(adapter: Adapter, words: &str) -> Exit {
    match Console::open(adapter.name) {
        Ok(console) => {
            words.lines().for_each(|line| console.say(line));
            console.flush();
        }
        Err(_) => {
            words.lines().for_each(|line| say(&format!("{}: {line}", adapter.name)));
        }
    }
    Exit::Failure
}

/// The message about what to try next.
fn welcome(welcome: &ReadyReport) -> String {
    let url = match welcome.addresses.first() {
        Some(address) if !address.starts_with("unix:") => format!("http://{address}"),
        _ => "http://localhost".into(),
    };
    let pid = welcome.pids.first().copied().unwrap_or_default();
    format!(
        "\nServing on {url} with {} workers. Try, in another terminal:\n\
         \x20 curl {url}/                  which worker answers? Ask again: they take turns\n\
         \x20 curl {url}/crash             a worker panics; its replacement starts before it exits\n\
         \x20 kill -9 {pid}                   a worker dies; no waiting connection is lost\n\
         \x20 ab -c 10 -n 5000 {url}/      load\n\
         \x20 {} status               the state of the primary\n\
         Ctrl-C stops it gracefully, a second Ctrl-C at once.\n\n",
        welcome.pids.len(),
        welcome.name,
    )
}
