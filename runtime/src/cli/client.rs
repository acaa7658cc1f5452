//! The commands that ask something of a running primary.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::ClientCommand;
use crate::control::{Connection, Request, find};
use crate::exit::Exit;
use crate::status::Status;

/// How long a primary may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often `stop` says how far it is.
const PROGRESS: Duration = Duration::from_secs(3);
/// How long a primary may take from closing its control socket to its end.
const LAST_MOMENT: Duration = Duration::from_secs(5);
/// How often the process is looked at in that time; a pidfd would need a raw system call.
const GLANCE: Duration = Duration::from_millis(5);

/// Runs a command for the binary called `name`. What it has to say goes to standard output, one
/// line to standard error if it fails ([`Exit::Failure`]).
///
/// `stop` returns when the primary has ended.
pub fn run_client(name: &str, command: &ClientCommand) -> Exit {
    let outcome = match command {
        ClientCommand::Status { control, json } => status(control.as_deref(), *json),
        ClientCommand::Stop { control } => stop(name, control.as_deref()),
    };
    match outcome {
        Ok(()) => Exit::Stopped,
        Err(line) => {
            let _ = writeln!(std::io::stderr(), "{name}: {line}");
            Exit::Failure
        }
    }
}

fn status(control: Option<&Path>, json: bool) -> Result<(), String> {
    let line = Connection::open(&find(control)?)?.ask(&Request::Status, PATIENCE)?;
    // The JSON is passed on as it came: it may be of a newer primary, with more in it.
    let text = if json { line + "\n" } else { read_status(&line)?.to_string() };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| format!("standard output: {error}"))
}

fn read_status(line: &str) -> Result<Status, String> {
    serde_json::from_str(line).map_err(|error| format!("the answer is not a status: {error}"))
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
            return Err(format!("the primary closed its control socket, but {pid} still runs"));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// Whether a process is there and no zombie (proc_pid_stat(5)).
fn is_running(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in brackets and may contain some.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_run_and_that_do_not() {
        assert!(is_running(std::process::id().cast_signed()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Unreaped, it is a zombie from its end on.
        while is_running(pid) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_running(pid));
    }
}
