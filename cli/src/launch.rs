//! The binaries, apart from their event loop: each `main` calls this.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use crate::client;
use crate::command_line::{self, Command, Options};
use crate::program::{self, Inspect, Refusal, Resolved, Surroundings};
use crate::replay;
use crate::stderr::say;
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::console::Console;
use roundel_runtime::primary::driver::PrimaryDriver;
use roundel_runtime::primary::setup::{ReadyReport, Setup, StartError};
use roundel_runtime::unix::process::Program;
use roundel_runtime::unix::signals;

/// The first argument of a demo worker: the same executable, run by its own primary.
const DEMO_WORKER: &str = "demo-worker";

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
    if !matches!(command, Ok(Command::Run { .. } | Command::Demo { .. }))
        && let Ok(mask) = mask
    {
        mask.restore();
    }
    let exit = match command {
        Ok(Command::Run { options, program }) => match prepare(adapter, program) {
            Ok(resolved) => {
                let mut setup = setup(adapter, &options, resolved.program, resolved.inspect);
                setup.notes = resolved.notes;
                run(adapter, setup)
            }
            Err(refusal) => {
                fail(adapter, &refusal.words);
                refusal.exit
            }
        },
        Ok(Command::Demo { options }) => demo(adapter, &options),
        Ok(Command::Replay { journal, diagram }) => {
            return replay::run(adapter.name, &journal, diagram).into();
        }
        Ok(Command::Client(command)) => return client::run(adapter.name, &command).into(),
        Err(exit) => exit,
    };
    exit.into()
}

fn demo(adapter: Adapter, options: &Options) -> Exit {
    let path = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => return fail(adapter, &format!("cannot find this executable: {error}")),
    };
    let args = vec![OsString::from(DEMO_WORKER), options.bind.len().to_string().into()];
    let program = Program { path: path.into(), args, ..Program::default() };
    let mut setup = setup(adapter, options, program, None);
    setup.welcome = Some(welcome);
    run(adapter, setup)
}

/// Finds out what to start, and runs the scripts that come before it.
fn prepare(adapter: Adapter, words: Vec<OsString>) -> Result<Resolved, Refusal> {
    let resolved = program::resolve(words, Surroundings::own()?)?;
    for hook in &resolved.hooks {
        // No thread may exist yet when the signals are taken over, so this is written directly.
        say(&format!("{}: {}: runs {}", adapter.name, hook.name, hook.script));
        hook.run()?;
    }
    Ok(resolved)
}

fn setup(adapter: Adapter, options: &Options, program: Program, inspect: Option<Inspect>) -> Setup {
    let mut setup = Setup::new(adapter.name, program, options.config());
    setup.control = options.control.clone();
    setup.events = options.events.clone();
    setup.journal = options.journal.clone();
    setup.log_format = options.log_format;
    setup.log_file = options.log_file.clone();
    setup.codec = options.codec;
    setup.prepare = adapter.prepare;
    setup.per_slot = program::per_slot(options.instance_var.clone(), inspect);
    setup
}

fn run(adapter: Adapter, setup: Setup) -> Exit {
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
            let usage = matches!(
                error,
                StartError::Config(_)
                    | StartError::TooFewFiles { .. }
                    | StartError::SameFile { .. }
            );
            let exit = fail(adapter, &error.to_string());
            if usage { Exit::Usage } else { exit }
        }
    }
}

/// Reports why nothing was started. It waits for a blocked standard error no longer than a running
/// primary does.
fn fail(adapter: Adapter, words: &str) -> Exit {
    match Console::open(adapter.name) {
        Ok(console) => {
            console.say(words);
            console.flush();
        }
        Err(_) => {
            say(&format!("{}: {words}", adapter.name));
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
