//! Writes workers' lines on threads of their own, behind bounded queues: a slow reader or a full
//! disk costs lines, which are counted, and holds up nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::line::{Format, Stream};
use crate::observe::console::Console;
use crate::observe::eventlog::{is_mid_line, open_file};
use crate::observe::lines::{Lines, Progress, Sink, count_lines, write_all, write_lines};

/// Bytes that may wait for a writer before further lines are dropped.
const CAPACITY: usize = 1 << 20;

/// The mode of a new log file: the operator's group may read it, as other log files.
const MODE: u32 = 0o640;

/// How long the flush at the end waits while an output takes nothing at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long that flush waits in any case.
const LIMIT: Duration = Duration::from_secs(2);

/// Where workers' lines go: to a file, or to the primary's own outputs.
#[derive(Debug)]
pub(crate) struct OutputLog {
    format: Format,
    stdout: Lines,
    /// None: standard error goes where standard output goes, to the file.
    stderr: Option<Lines>,
}

impl OutputLog {
    /// Opens the outputs and starts their writers.
    ///
    /// # Errors
    /// If the file can't be opened (ENXIO for a FIFO without a reader), or a thread can't be
    /// started.
    pub(crate) fn open(
        format: Format,
        file: Option<&Path>,
        name: &'static str,
        console: &Console,
    ) -> io::Result<OutputLog> {
        let start = |thread: &str, output: Output| {
            let mid_line = matches!(&output, Output::File(file, _) if is_mid_line(file));
            let (console, lost, failing) = (console.clone(), 0, false);
            let sink = Writer { format, name, output, mid_line, console, lost, failing };
            Lines::start(thread, CAPACITY, sink)
        };
        if let Some(path) = file {
            let output = Output::File(open_file(path, MODE)?, path.to_owned());
            return Ok(OutputLog { format, stdout: start("log-file", output)?, stderr: None });
        }
        let stdout = start("worker-stdout", Output::Stdout(io::stdout()))?;
        let stderr = start("worker-stderr", Output::Stderr(io::stderr()))?;
        Ok(OutputLog { format, stdout, stderr: Some(stderr) })
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Queues lines in this log's form: all of them, or none. Lines without room are counted, and
    /// the log says later how many they were.
    pub(crate) fn push(&self, stream: Stream, lines: &[u8]) {
        let to = match (stream, &self.stderr) {
            (Stream::Stderr, Some(stderr)) => stderr,
            _ => &self.stdout,
        };
        to.push(&[lines]);
    }

    /// Opens the file anew, after a log rotation; lines queued before go to the old one.
    pub(crate) fn reopen(&self) {
        self.stdout.reopen();
    }

    /// Waits until everything is written: half a second for an output that takes nothing, and 2 s
    /// in any case.
    pub(crate) fn flush(&self) {
        for lines in std::iter::once(&self.stdout).chain(&self.stderr) {
            lines.flush(PATIENCE, LIMIT);
        }
    }
}

enum Output {
    // The locks of these are never taken: others may need them, and would wait.
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    File(File, PathBuf),
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::Stdout(output) => output.as_fd(),
            Output::Stderr(output) => output.as_fd(),
            Output::File(output, _) => output.as_fd(),
        }
    }
}

struct Writer {
    format: Format,
    /// The name of the binary.
    name: &'static str,
    output: Output,
    /// The file ends in half a line, which needs a line end first.
    mid_line: bool,
    console: Console,
    /// Lines that were not written and not yet reported as missing.
    lost: u64,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Writer {
    fn write(&mut self, lines: &[u8], progress: &Progress) -> Result<(), usize> {
        let output = self.output.as_fd();
        let written = match &self.output {
            Output::Stdout(_) | Output::Stderr(_) => write_lines(output, lines, progress),
            Output::File(..) => {
                let begun = match self.mid_line {
                    true => write_all(output, b"\n", progress).map_err(|(_, error)| (0, error)),
                    false => Ok(0),
                };
                begun.and_then(|_| write_all(output, lines, progress))
            }
        };
        match written {
            Ok(_) => {
                (self.mid_line, self.failing) = (false, false);
                Ok(())
            }
            Err((count, error)) => {
                if let Output::File(file, path) = &self.output {
                    self.mid_line = is_mid_line(file);
                    if !std::mem::replace(&mut self.failing, true) {
                        let path = path.display();
                        let words = "lines are dropped until it can be written";
                        self.console.say(&format!("the log file {path}: {error}; {words}"));
                    }
                }
                Err(count)
            }
        }
    }

    /// Reports what is missing; false if that can't be written either.
    fn report_lost(&mut self, progress: &Progress) -> bool {
        if self.lost > 0 {
            let note = self.format.missing(self.name, self.lost);
            if self.write(note.as_bytes(), progress).is_err() {
                return false;
            }
            self.lost = 0;
        }
        true
    }
}

impl Sink for Writer {
    /// No error ends the log: a full disk may have room again.
    fn put(&mut self, lines: &[u8], progress: &Progress) {
        if lines.is_empty() {
            return;
        }
        let written = match self.report_lost(progress) {
            false => 0,
            true => match self.write(lines, progress) {
                Ok(()) => return,
                Err(written) => written,
            },
        };
        self.lost += count_lines(lines.get(written..).unwrap_or_default());
    }

    fn dropped(&mut self, count: u64, progress: &Progress) {
        self.lost += count;
        self.report_lost(progress);
    }

    fn reopen(&mut self, progress: &Progress) {
        let Output::File(output, path) = &mut self.output else { return };
        match open_file(path, MODE) {
            Ok(file) => {
                self.mid_line = is_mid_line(&file);
                *output = file;
                self.failing = false;
                self.report_lost(progress);
            }
            Err(error) => {
                self.console.say(&format!("cannot open the log file anew: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_file_is_appended_to_and_opened_anew() {
        let dir = std::env::temp_dir().join(format!("roundel-output-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (path, old) = (dir.join("log"), dir.join("log.1"));
        let open =
            || OutputLog::open(Format::Raw, Some(&path), "roundel", &Console::silent()).unwrap();
        let log = open();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        log.push(Stream::Stdout, b"one\n");
        log.push(Stream::Stderr, b"two\n");
        fs::rename(&path, &old).unwrap();
        log.reopen();
        log.push(Stream::Stdout, b"three\n");
        log.flush();
        drop(log);
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_ne!(fs::metadata(&old).unwrap().ino(), fs::metadata(&path).unwrap().ino());
        // Half a line gets its end first.
        fs::write(&path, "half").unwrap();
        let log = open();
        log.push(Stream::Stdout, b"whole\n");
        log.flush();
        assert_eq!(fs::read_to_string(&path).unwrap(), "half\nwhole\n");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_it_did_not_take() {
        let output =
            Output::File(File::options().write(true).open("/dev/full").unwrap(), "x".into());
        let (console, name) = (Console::silent(), "roundel");
        let (format, mid_line, lost, failing) = (Format::Prefix, false, 0, false);
        let mut writer = Writer { format, name, output, mid_line, console, lost, failing };
        let progress = Progress::default();
        writer.put(b"a\nb\n", &progress);
        writer.put(b"c\n", &progress);
        writer.dropped(2, &progress);
        assert_eq!((writer.lost, writer.failing), (5, true));
        let (reader, pipe) = nix::unistd::pipe().unwrap();
        writer.output = Output::File(pipe.into(), "x".into());
        writer.put(b"d\n", &progress);
        drop(writer);
        let text = io::read_to_string(File::from(reader)).unwrap();
        assert_eq!(text, "roundel: 5 lines dropped\nd\n");
    }
}
