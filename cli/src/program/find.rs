//! Finds the file of a program by name, and checks that it can be run, before anything is started.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Refusal;

/// Where a name is looked up without a `PATH`, as in execvp(3).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The kernel reads no more than this of a script's first line (execve(2)).
const MAX_FIRST_LINE: u64 = 255;

/// How a file is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A binary, or a format for which this machine has registered a loader.
    Binary,
    /// A script: the words of its first line.
    Script(Vec<OsString>),
}

/// A program that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its absolute path; symbolic links are kept, because their targets may change.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// Finds a program: a path relative to `cwd`, or a name in `path`.
///
/// # Errors
/// A line that names it, with exit 127 if it or its interpreter is missing, or 126 if it can't be
/// executed.
pub(super) fn program(name: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Result<Found, Refusal> {
    let file = file(name, path, cwd)?;
    let kind = kind(&file, path, cwd)?;
    Ok(Found { path: file, kind })
}

/// Finds the file itself.
fn file(name: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, Refusal> {
    let shown = Path::new(name).display();
    if name.as_bytes().contains(&b'/') {
        // The path is joined but not simplified: a slash at the end means that it must be a
        // directory.
        let file = cwd.join(name);
        return check(&file).map(|()| file.clone()).map_err(|why| why.about(&shown, &file));
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut barred = None;
    for dir in std::env::split_paths(path) {
        let file = cwd.join(dir).join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(Why::Missing | Why::Directory | Why::Error(nix::errno::Errno::ENOTDIR)) => {}
            Err(why) => drop(barred.get_or_insert((why, file))),
        }
    }
    Err(match barred {
        Some((why, file)) => why.about(&file.display(), &file),
        None if name == "." || name == ".." => Why::Directory.about(&shown, cwd),
        None if path.is_empty() => Refusal::missing(format!("{shown}: not found: PATH is empty")),
        None if cwd.join(name).is_file() => Refusal::missing(format!(
            "{shown}: not found in PATH (to run the one in this directory: ./{shown})"
        )),
        None if cwd.join(name).is_dir() => {
            Refusal::missing(format!("{shown}: not found in PATH (./{shown} is a directory)"))
        }
        None if name.as_bytes().contains(&b' ') => Refusal::missing(format!(
            "{shown:?}: not found in PATH (write the program and its arguments as separate words)"
        )),
        None => Refusal::missing(format!("{shown}: not found in PATH")),
    })
}

/// Why a file can't be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Missing,
    Directory,
    Special,
    Forbidden,
    Error(nix::errno::Errno),
}

impl Why {
    fn about(self, shown: &dyn std::fmt::Display, file: &Path) -> Refusal {
        match self {
            Why::Missing => match fs::read_link(file) {
                Ok(target) => Refusal::missing(format!(
                    "{shown}: no such program: it is a link to {}, which does not exist",
                    target.display()
                )),
                Err(_) => Refusal::missing(format!("{shown}: no such program")),
            },
            Why::Directory => Refusal::barred(format!("{shown}: is a directory, not a program")),
            Why::Special => Refusal::barred(format!("{shown}: is not a regular file")),
            Why::Forbidden => Refusal::barred(format!(
                "{shown}: is not executable (chmod +x, or name the program that runs it)"
            )),
            Why::Error(errno) => {
                Refusal::barred(format!("{shown}: cannot be executed: {}", errno.desc()))
            }
        }
    }
}

fn check(file: &Path) -> Result<(), Why> {
    let errno = |error: io::Error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let found = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Why::Missing,
        _ => Why::Error(errno(error)),
    })?;
    if found.is_dir() {
        return Err(Why::Directory);
    }
    if !found.is_file() {
        return Err(Why::Special);
    }
    match access(file, AccessFlags::X_OK) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EACCES) => Err(Why::Forbidden),
        Err(errno) => Err(Why::Error(errno)),
    }
}

fn kind(file: &Path, path: Option<&OsStr>, cwd: &Path) -> Result<Kind, Refusal> {
    let mut start = Vec::new();
    let read = File::open(file).and_then(|it| it.take(MAX_FIRST_LINE).read_to_end(&mut start));
    // A file may be executable but not readable.
    if read.is_err() || start.starts_with(b"\x7fELF") {
        return Ok(Kind::Binary);
    }
    let shown = file.display();
    let Some(line) = start.strip_prefix(b"#!") else {
        if has_other_formats() {
            return Ok(Kind::Binary);
        }
        return Err(Refusal::barred(format!(
            "{shown}: is neither a binary nor a script whose first line names an interpreter (example: #!/bin/sh)"
        )));
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Vec<OsString> = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
        .map(|word| OsStr::from_bytes(word).to_owned())
        .collect();
    let Some(interpreter) = words.first() else {
        return Err(Refusal::barred(format!("{shown}: its first line names no interpreter")));
    };
    check(&cwd.join(interpreter)).map_err(|why| {
        let named = Path::new(interpreter).display();
        if interpreter.as_bytes().ends_with(b"\r") {
            return Refusal::missing(format!(
                "{shown}: its first line ends with a carriage return, so its interpreter is not found"
            ));
        }
        match why {
            Why::Missing => {
                Refusal::missing(format!("{shown}: its interpreter {named} does not exist"))
            }
            _ => Refusal::barred(format!("{shown}: its interpreter {named} cannot be executed")),
        }
    })?;
    if let Some(name) = by_env(&words)
        && let Err(refusal) = self::file(name, path, cwd)
    {
        let named = Path::new(name).display();
        return Err(Refusal {
            words: format!("{shown}: its interpreter {named} is not found in PATH"),
            ..refusal
        });
    }
    Ok(Kind::Script(words))
}

/// The name that `#!/usr/bin/env NAME` looks up.
fn by_env(words: &[OsString]) -> Option<&OsStr> {
    let (first, rest) = words.split_first()?;
    if Path::new(first).file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let rest = if rest.first().is_some_and(|word| word == "-S") { rest.get(1..)? } else { rest };
    let name = rest.first()?;
    let is_name = !name.as_bytes().starts_with(b"-") && !name.as_bytes().contains(&b'=');
    is_name.then_some(name.as_os_str())
}

/// True if the kernel has other program formats registered (binfmt_misc).
fn has_other_formats() -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}
