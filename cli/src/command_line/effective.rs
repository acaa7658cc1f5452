//! The effective configuration: what was asked for, and where each part of it comes from.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::rc::Rc;

use super::Options;
use super::file::{ENV, PROGRAM};

/// What a primary is to be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) options: Options,
    /// The program and its arguments. Empty for `demo`, and if `check` was given none.
    pub(crate) program: Vec<OsString>,
    /// The same as text.
    pub(crate) settings: Settings,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An option on the command line.
    Flag,
    /// The program on the command line, or its arguments.
    Argument,
    /// This environment variable.
    Environment(&'static str),
    /// The configuration file, by name, and the number of the line.
    File(Rc<str>, usize),
    Default,
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("flag"),
            Source::Argument => f.write_str("argument"),
            Source::Environment(variable) => write!(f, "environment {variable}"),
            Source::File(name, line) => write!(f, "file {name}:{line}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    One(OsString),
    List(Vec<OsString>),
    /// None; the text says what that means.
    Unset(String),
}

/// A key of the configuration file, with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// All settings, displayed as a configuration file with the sources in comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) keys: Vec<Setting>,
    /// The variables for workers.
    pub(super) env: Vec<Setting>,
}

impl Settings {
    /// Where the configuration file gives a key: `FILE:LINE`. `None` if the value comes from
    /// elsewhere.
    pub(crate) fn place(&self, key: &str) -> Option<String> {
        let setting = self.keys.iter().find(|setting| setting.key == key)?;
        match &setting.source {
            Source::File(name, line) => Some(format!("{name}:{line}")),
            _ => None,
        }
    }
}

impl Display for Settings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.keys.iter().any(|setting| setting.key == PROGRAM) {
            writeln!(f, "# {PROGRAM}: none, which only the demo can do without")?;
        }
        for setting in &self.keys {
            setting.fmt(f)?;
        }
        if !self.env.is_empty() {
            writeln!(f, "\n[{ENV}]")?;
        }
        self.env.iter().try_for_each(|setting| setting.fmt(f))
    }
}

impl Display for Setting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = match is_bare(&self.key) {
            true => self.key.clone(),
            false => quoted(&self.key),
        };
        let value = match &self.value {
            Value::Switch(on) => Ok(on.to_string()),
            Value::One(value) => literal(value),
            Value::List(all) => {
                let all: Result<Vec<String>, _> =
                    all.iter().map(|one| one.to_str().map(quoted).ok_or(one.as_os_str())).collect();
                all.map(|all| format!("[{}]", all.join(", ")))
            }
            Value::Unset(meaning) => return writeln!(f, "# {key}: {meaning}"),
        };
        match value {
            Ok(value) => writeln!(f, "{key} = {value}  # {}", self.source),
            Err(bytes) => {
                writeln!(
                    f,
                    "# {key}: {bytes:?} is not valid UTF-8: not for a file; {}",
                    self.source
                )
            }
        }
    }
}

/// A value in TOML. A file can hold only text: other bytes are given back.
fn literal(value: &OsStr) -> Result<String, &OsStr> {
    let text = value.to_str().ok_or(value)?;
    // Only if it reads the same as a number: `08` does not.
    let is_number = text.parse::<u32>().is_ok_and(|number| number.to_string() == text);
    Ok(if is_number { text.to_owned() } else { quoted(text) })
}

/// A string on one line, in which nothing steers a terminal.
fn quoted(text: &str) -> String {
    let mut shown = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            '\'' => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            _ if c.escape_debug().len() > 1 => shown.push_str(&format!("\\U{:08X}", c as u32)),
            _ => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

/// True if a key needs no quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
