//! The commands that talk to a running primary.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::command_line::{ClientCommand, Scale};
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::control::{
    Connection, DryRun, Followed, Progress, Reloaded, Request, Scaled, find,
};
use roundel_runtime::observe::output::Missing;
use roundel_runtime::observe::status::Status;

/// How long a primary may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often `stop` reports its progress.
const PROGRESS: Duration = Duration::from_secs(3);
/// How long a primary may take from closing its control socket to its end.
const LAST_MOMENT: Duration = Duration::from_secs(5);
/// How often the process is checked in that time; a pidfd would need a raw system call.
const GLANCE: Duration = Duration::from_millis(5);

/// Runs a command for the binary called `name`. Its result goes to standard output; if it fails
/// ([`Exit::Failure`]), one line for each reason goes to standard error.
///
/// `stop` and `logs` return when the primary has ended.
pub(crate) fn run(name: &str, command: &ClientCommand) -> Exit {
    let outcome = match command {
        ClientCommand::Status { control, json } => status(control.as_deref(), *json),
        ClientCommand::Logs { control, slot } => logs(name, control.as_deref(), *slot),
        ClientCommand::Reload { control, dry_run } => reload(name, control.as_deref(), *dry_run),
        ClientCommand::Scale { control, workers } => scale(name, control.as_deref(), *workers),
        ClientCommand::Pause { control } => ask_once(control.as_deref(), &Request::Pause),
        ClientCommand::Resume { control } => ask_once(control.as_deref(), &Request::Resume),
        ClientCommand::Stop { control } => stop(name, control.as_deref()),
    };
    match outcome {
        Ok(()) => Exit::Stopped,
        Err(lines) => {
            lines.lines().for_each(|line| note(name, line));
            Exit::Failure
        }
    }
}

fn status(control: Option<&Path>, json: bool) -> Result<(), String> {
    let line = Connection::open(&find(control)?)?.ask(&Request::Status, PATIENCE)?;
    // The JSON is passed on as it came: a newer primary may have more in it.
    let text = if json { line + "\n" } else { read_status(&line)?.to_string() };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| format!("standard output: {error}"))
}

/// Prints what workers print, until the primary says that it ends or nobody reads any more.
fn logs(name: &str, control: Option<&Path>, slot: Option<u32>) -> Result<(), String> {
    let mut lines = Connection::open(&find(control)?)?.follow(slot, PATIENCE)?;
    let mut output = std::io::stdout().lock();
    loop {
        let line = match lines.next_line()? {
            Followed::Line(line) => line.prefixed(),
            Followed::Missing(Missing { dropped }) => {
                // Standard output has only what workers print.
                let _ = writeln!(std::io::stderr(), "{name}: {dropped} lines dropped");
                continue;
            }
            Followed::Ended { .. } => return Ok(()),
            // A newer primary may tell more.
            _ => continue,
        };
        match output.write_all(&line).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(format!("standard output: {error}")),
        }
    }
}

fn read_status(line: &str) -> Result<Status, String> {
    serde_json::from_str(line).map_err(|error| format!("the answer is not a status: {error}"))
}

/// A request that is done at once.
fn ask_once(control: Option<&Path>, request: &Request) -> Result<(), String> {
    Connection::open(&find(control)?)?.ask(request, PATIENCE).map(drop)
}

/// Asks for what takes its time, and shows how far it is.
fn ask_and_wait(name: &str, control: Option<&Path>, request: &Request) -> Result<String, String> {
    let mut connection = Connection::open(&find(control)?)?;
    connection.ask_and_wait(request, |Progress { ready, wanted }| {
        note(name, &format!("{ready}/{wanted} ready"));
    })
}

fn reload(name: &str, control: Option<&Path>, dry_run: bool) -> Result<(), String> {
    let request = Request::Reload { dry_run };
    if dry_run {
        let line = Connection::open(&find(control)?)?.ask(&request, PATIENCE)?;
        let DryRun { would, .. } = read(&line)?;
        return would.iter().try_for_each(|line| print(line));
    }
    let Reloaded { generation, .. } = read(&ask_and_wait(name, control, &request)?)?;
    print(&format!("generation {generation} serves"))
}

fn scale(name: &str, control: Option<&Path>, workers: Scale) -> Result<(), String> {
    let (to, by) = match workers {
        Scale::To(to) => (Some(to), None),
        Scale::By(by) => (None, Some(by)),
    };
    let line = ask_and_wait(name, control, &Request::Scale { to, by })?;
    let Scaled { from, to, warnings, .. } = read(&line)?;
    warnings.iter().for_each(|line| note(name, line));
    let noun = if to == 1 { "worker" } else { "workers" };
    print(&format!("{to} {noun}, {from} before"))
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| format!("the answer can't be read: {error}"))
}

/// What goes beside the result, or instead of it.
fn note(name: &str, line: &str) {
    let _ = writeln!(std::io::stderr(), "{name}: {line}");
}

fn print(line: &str) -> Result<(), String> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(|error| format!("standard output: {error}"))
}

fn stop(name: &str, control: Option<&Path>) -> Result<(), String> {
    let path = find(control)?;
    let mut connection = Connection::open(&path)?;
    let pid = connection.pid();
    connection.ask(&Request::Stop, PATIENCE)?;
    while !connection.wait_for_end(PROGRESS) {
        let status = Connection::open(&path).and_then(|mut it| it.ask(&Request::Status, PATIENCE));
        if let Ok(status) = status.and_then(|line| read_status(&line)) {
            let left = status.workers.len();
            let _ = writeln!(std::io::stderr(), "{name}: waiting for {left} workers");
        }
    }
    let Some(pid) = pid else { return Ok(()) };
    let deadline = Instant::now() + LAST_MOMENT;
    while is_running(pid) {
        if Instant::now() >= deadline {
            return Err(format!(
                "the primary closed its control socket, but its process {pid} still runs"
            ));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// True if a process exists and is not a zombie (proc_pid_stat(5)).
pub(crate) fn is_running(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in brackets and may itself contain brackets.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use roundel_core::Time;

    use super::*;
    use roundel_runtime::observe::control::{ControlServer, Stopping};

    /// The longest wait of a test.
    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn processes_that_run_and_that_do_not() {
        assert!(is_running(std::process::id().cast_signed()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let deadline = Instant::now() + LIMIT;
        // Unreaped, it is a zombie once it has ended.
        while is_running(pid) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_running(pid));
    }

    /// The next test runs this in a process of its own: a primary that has closed its control
    /// socket, but lives until its standard input ends.
    #[test]
    fn as_a_primary() {
        let Some(path) = std::env::var_os("ROUNDEL_TEST_PRIMARY") else { return };
        let mut server = ControlServer::bind(Some(Path::new(&path))).unwrap();
        println!("\nlistening");
        wait_readable(server.fd());
        let client = server.accept(Time::ZERO).unwrap().unwrap();
        wait_readable(server.client_fd(client).unwrap());
        assert_eq!(server.on_ready(client, Time::ZERO), Some(Request::Stop));
        server.reply(client, &Stopping::YES, Time::ZERO);
        drop(server);
        println!("closed");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }

    fn wait_readable(fd: &std::os::fd::OwnedFd) {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(fd), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()), Ok(1));
    }

    #[test]
    fn stop_returns_when_the_process_has_ended() {
        let name = format!("roundel-stop-test-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                concat!(module_path!(), "::as_a_primary").split_once("::").unwrap().1,
                "--nocapture",
            ])
            .env("ROUNDEL_TEST_PRIMARY", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut lines = BufReader::new(output).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "listening"));
        let (done, is_done) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let outcome = stop("roundel", Some(&path));
            done.send((outcome, is_running(pid))).unwrap();
        });
        assert!(lines.any(|line| line == "closed"));
        let early = is_done.recv_timeout(Duration::from_millis(100));
        drop(input);
        let outcome = is_done.recv_timeout(LIMIT);
        let status = child.wait().unwrap();
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        assert_eq!(outcome, Ok((Ok(()), false)));
        assert!(status.success());
        thread.join().unwrap();
    }

    #[test]
    fn no_primary_to_ask() {
        let control = Some(std::path::PathBuf::from("/nonexistent/roundel.sock"));
        let stop = ClientCommand::Stop { control: control.clone() };
        assert_eq!(run("roundel", &stop), Exit::Failure);
        let logs = ClientCommand::Logs { control: control.clone(), slot: None };
        assert_eq!(run("roundel", &logs), Exit::Failure);
        let status = ClientCommand::Status { control, json: true };
        assert_eq!(run("roundel", &status), Exit::Failure);
    }
}
