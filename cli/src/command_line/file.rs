//! The configuration file: TOML whose keys are the long options of `run`, with a few of its own.
//!
//! The file knows no option by itself: names and kinds come from clap, and so do the parsers that
//! judge the values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction};
use nix::fcntl::OFlag;
use roundel_core::environment::VARIABLES;
use roundel_runtime::text::{cut, printable};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::CONFIG;
use super::complaint::complaint;

/// The keys that are not options.
pub(super) const PROGRAM: &str = "program";
pub(super) const ARGS: &str = "args";
pub(super) const CWD: &str = "cwd";
pub(super) const ENV: &str = "env";

/// The size limit in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// The most values of an option that may be repeated.
const MAX_VALUES: usize = 1024;
/// The most complaints that are printed about one file.
const MAX_COMPLAINTS: usize = 100;
/// The longest key or value that a complaint repeats, in bytes.
const MAX_SHOWN: usize = 60;

/// A value, and the number of the line where its key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// A configuration file whose keys and values are valid.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigFile {
    /// By their long names. A switch has the value `true` or `false`.
    pub(super) options: BTreeMap<String, At<Vec<OsString>>>,
    pub(super) program: Option<At<String>>,
    pub(super) args: Option<At<Vec<OsString>>>,
    pub(super) cwd: Option<At<PathBuf>>,
    /// In the order of the file.
    pub(super) env: Vec<At<(OsString, OsString)>>,
}

/// The arguments of a command that a file can give, each with its key.
pub(super) fn keys(command: &clap::Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    // Clap's own options are not there before a command is built.
    named.filter(|(key, _)| ![CONFIG, "help", "version"].contains(key))
}

/// True if an option takes no value.
pub(super) fn is_switch(arg: &Arg) -> bool {
    !arg.get_action().takes_values()
}

/// True if an option may be repeated.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A file's name as it is printed.
pub(super) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Reads the file for a command: `run`, or one with the same options.
///
/// # Errors
/// Everything that is wrong, in the order of the file: one line each, with the file, the line, the
/// key, the value and the cause.
pub(super) fn read(path: &Path, command: &clap::Command) -> Result<ConfigFile, Vec<String>> {
    let text = text(path).map_err(|complaint| vec![complaint])?;
    parse(&shown(path), &text, command)
}

/// The text of the file.
fn text(path: &Path) -> Result<String, String> {
    let wrong = |cause: &str| format!("--{CONFIG}: {path:?} {cause}");
    let unread = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => wrong("does not exist"),
        _ => wrong(&format!("cannot be read: {error}")),
    };
    // A FIFO must not block, and could not be read a second time.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let place = crate::program::at_own_place(path);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(place).map_err(unread)?;
    let kind = file.metadata().map_err(unread)?.file_type();
    if kind.is_dir() {
        return Err(wrong("is a directory"));
    }
    if !kind.is_file() {
        return Err(wrong("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(wrong("is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        format!("{}:{line}: is not valid UTF-8", shown(path))
    })
}

/// [`read`] for a text that is there.
pub(super) fn parse(
    name: &str,
    text: &str,
    command: &clap::Command,
) -> Result<ConfigFile, Vec<String>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| format!(":{}", 1 + newlines(text, span.start)));
        let message = printable(error.message());
        vec![format!("{name}{}: is not TOML: {message}", line.unwrap_or_default())]
    })?;
    let mut reader = Reader { name, text, lines: Lines::of(text), complaints: Vec::new() };
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let file = reader.file(&entries, command);
    reader.complaints.sort_by_key(|(line, _)| *line);
    match reader.complaints.is_empty() {
        true => Ok(file),
        false => Err(reader.complaints.into_iter().map(|(_, complaint)| complaint).collect()),
    }
}

fn newlines(text: &str, before: usize) -> usize {
    text.bytes().take(before).filter(|byte| *byte == b'\n').count()
}

/// Where lines end: counting anew for each key would take long in a large file.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn line(&self, at: usize) -> usize {
        1 + self.0.partition_point(|end| *end < at)
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    lines: Lines,
    /// With the numbers of their lines.
    complaints: Vec<(usize, String)>,
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn file(&mut self, entries: &[(&Key, &Value)], command: &clap::Command) -> ConfigFile {
        let options: BTreeMap<&str, &Arg> = keys(command).collect();
        let known: Vec<&str> = options.keys().copied().chain([PROGRAM, ARGS, CWD, ENV]).collect();
        let mut file = ConfigFile::default();
        let mut unread = 0;
        for (key, value) in entries {
            if self.complaints.len() >= MAX_COMPLAINTS {
                unread += 1;
                continue;
            }
            let (name, line) = (key.get_ref().as_ref(), self.lines.line(key.span().start));
            match name {
                PROGRAM => {
                    let name = self.string(PROGRAM, value, "is not a string (see args)");
                    if name.as_ref().is_some_and(String::is_empty) {
                        self.complain(line, PROGRAM, "\"\" is not a program");
                    }
                    file.program = name.map(|value| At { line, value });
                }
                ARGS => {
                    file.args = self.list(ARGS, value).map(|value| At { line, value });
                }
                CWD => {
                    let path = self.string(CWD, value, "is not a string");
                    if let Some(path) = path.as_ref().filter(|path| !Path::new(path).is_dir()) {
                        let path = cut(path.clone(), MAX_SHOWN);
                        self.complain(line, CWD, &format!("{path:?} is not a directory"));
                    }
                    file.cwd = path.map(|path| At { line, value: path.into() });
                }
                ENV => file.env = self.variables(value, &known),
                _ => match options.get(name) {
                    Some(arg) => {
                        if let Some(value) = self.option(name, arg, value) {
                            file.options.insert(name.to_owned(), At { line, value });
                        }
                    }
                    None => self.unknown(line, name, &known),
                },
            }
        }
        if let (Some(args), None) = (&file.args, &file.program) {
            self.complain(args.line, ARGS, "belongs to a program, and none is given here");
        }
        if unread > 0 {
            let complaint = format!("{}: {unread} more keys were not read", self.name);
            self.complaints.push((usize::MAX, complaint));
        }
        file
    }

    /// The values of an option, if they are valid.
    fn option(&mut self, key: &str, arg: &Arg, value: &Value) -> Option<Vec<OsString>> {
        if is_switch(arg) {
            return match value.get_ref() {
                DeValue::Boolean(on) => Some(vec![on.to_string().into()]),
                _ => self.wrong_type(key, value, "is neither true nor false"),
            };
        }
        let cause = match is_list(arg) {
            true => "is neither a string nor a list of strings",
            false => "is neither a string nor a whole number",
        };
        let DeValue::Array(all) = value.get_ref() else {
            return Some(vec![self.valid(key, arg, value, cause)?]);
        };
        if !is_list(arg) {
            return self.wrong_type(key, value, cause);
        }
        if all.len() > MAX_VALUES {
            let line = self.lines.line(value.span().start);
            self.complain(line, key, &format!("has more than {MAX_VALUES} values"));
            return None;
        }
        let cause = "is not a string";
        let valid: Vec<_> = all.iter().map(|one| self.valid(key, arg, one, cause)).collect();
        valid.into_iter().collect()
    }

    /// A value as the command line would have it, if the option's own parser takes it.
    fn valid(&mut self, key: &str, arg: &Arg, value: &Value, cause: &str) -> Option<OsString> {
        let text = self.text_of(key, value, cause)?;
        let alone = clap::Command::new("").no_binary_name(true).arg(arg.clone());
        let Err(mut error) = alone.try_get_matches_from([format!("--{key}={text}")]) else {
            return Some(text.into());
        };
        let shown = format!("{:?}", cut(text, MAX_SHOWN));
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
        let complaint = complaint(&error);
        let cause = complaint.strip_prefix(&format!("--{key}: ")).unwrap_or(&complaint);
        let line = self.lines.line(value.span().start);
        self.complain(line, key, cause);
        None
    }

    fn list(&mut self, key: &str, value: &Value) -> Option<Vec<OsString>> {
        let cause = "is not a list of strings";
        let DeValue::Array(all) = value.get_ref() else {
            return self.wrong_type(key, value, cause);
        };
        all.iter().map(|one| Some(self.text_of(key, one, cause)?.into())).collect()
    }

    /// The table `env`. Its keys can be any names but those that mean something here.
    fn variables(&mut self, value: &Value, known: &[&str]) -> Vec<At<(OsString, OsString)>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type::<()>(ENV, value, "is not a table of variables");
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut variables = Vec::new();
        for (key, value) in entries {
            let (name, line) = (key.get_ref().as_ref(), self.lines.line(key.span().start));
            let cause = match name {
                _ if name.is_empty() || name.contains(['=', '\0']) => "is not a name of a variable",
                _ if VARIABLES.contains(&name) => "has a meaning of its own",
                // A key below the line [env] belongs to that table.
                _ if known.contains(&name) => "is a key of the file itself: write it above [env]",
                _ => {
                    let cause = "is neither a string nor a whole number";
                    let key = format!("{ENV}.{}", cut(printable(name), MAX_SHOWN));
                    if let Some(value) = self.text_of(&key, value, cause) {
                        variables.push(At { line, value: (name.into(), value.into()) });
                    }
                    continue;
                }
            };
            self.complain(line, ENV, &format!("{:?} {cause}", cut(name.into(), MAX_SHOWN)));
        }
        variables
    }

    fn string(&mut self, key: &str, value: &Value, cause: &str) -> Option<String> {
        match value.get_ref() {
            DeValue::String(_) => self.text_of(key, value, cause),
            _ => self.wrong_type(key, value, cause),
        }
    }

    /// A string, or a whole number as a string.
    fn text_of(&mut self, key: &str, value: &Value, cause: &str) -> Option<String> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.to_string(),
                    Err(_) => return self.wrong_type(key, value, "is too large"),
                }
            }
            _ => return self.wrong_type(key, value, cause),
        };
        if text.contains('\0') {
            // No argument of a program and no path has one.
            return self.wrong_type(key, value, "contains a NUL character");
        }
        Some(text)
    }

    fn wrong_type<T>(&mut self, key: &str, value: &Value, cause: &str) -> Option<T> {
        let line = self.lines.line(value.span().start);
        let shown = match value.get_ref() {
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            _ => {
                let source = self.text.get(value.span()).unwrap_or_default();
                cut(printable(&cut(source.into(), MAX_SHOWN)), MAX_SHOWN)
            }
        };
        self.complain(line, key, &format!("{shown} {cause}"));
        None
    }

    fn unknown(&mut self, line: usize, key: &str, known: &[&str]) {
        let hint = match nearest(key, known) {
            Some(known) => format!("did you mean {known:?}?"),
            None => "see run --help".into(),
        };
        let key = cut(key.into(), MAX_SHOWN);
        self.complaints.push((line, format!("{}:{line}: unknown key {key:?}; {hint}", self.name)));
    }

    fn complain(&mut self, line: usize, key: &str, cause: &str) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push((line, format!("{}:{line}: {key}: {cause}", self.name)));
        }
    }
}

/// The known key that is most similar, by the same measure as clap's for options.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    if key.len() > MAX_SHOWN {
        return None;
    }
    let similar = known.iter().map(|known| (strsim::jaro(key, known), *known));
    let similar = similar.filter(|(similarity, _)| *similarity > 0.7);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}
