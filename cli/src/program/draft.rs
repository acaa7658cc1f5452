//! A program that is not resolved yet: words that are replaced step by step.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::words::typed;
use super::{Hook, Surroundings};

/// The state of the resolution so far.
#[derive(Debug)]
pub(super) struct Draft {
    /// The words that would be executed so far.
    pub(super) words: Vec<OsString>,
    /// The directory in which they would run.
    pub(super) cwd: PathBuf,
    /// Whether that differs from the primary's directory.
    pub(super) moved: bool,
    /// Variables added to the environment.
    pub(super) added: Vec<(OsString, OsString)>,
    pub(super) notes: Vec<String>,
    pub(super) hooks: Vec<Hook>,
    /// A hint for the error if the program does not exist.
    pub(super) missing_hint: Option<String>,
    asked: Vec<OsString>,
    variables: BTreeMap<OsString, OsString>,
}

impl Draft {
    pub(super) fn new(words: Vec<OsString>, around: Surroundings) -> Draft {
        Draft {
            asked: words.clone(),
            words,
            cwd: around.cwd,
            moved: around.moved,
            added: around.added,
            notes: Vec::new(),
            hooks: Vec::new(),
            missing_hint: None,
            variables: around.variables,
        }
    }

    /// The words of the command line, as they were typed.
    pub(super) fn asked(&self) -> String {
        let words: Vec<String> = self.asked.iter().map(|it| it.to_string_lossy().into()).collect();
        typed(words.iter().map(String::as_str))
    }

    /// A variable as the program will see it.
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        let added = self.added.iter().rev().find(|(other, _)| other == name);
        added.map(|(_, value)| value).or_else(|| self.variables.get(OsStr::new(name))).cloned()
    }

    pub(super) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.added.push((name.into(), value.into()));
    }

    pub(super) fn move_to(&mut self, dir: PathBuf) {
        self.moved |= dir != self.cwd;
        self.cwd = dir;
    }

    /// Puts the directories of packages installed for a directory and its parents in front of
    /// `PATH`.
    pub(super) fn use_bins_of(&mut self, dir: &Path) {
        let path = self.variable("PATH").unwrap_or_default();
        let bins: Vec<PathBuf> = dir.ancestors().map(|it| it.join("node_modules/.bin")).collect();
        let already = std::env::split_paths(&path).next() == bins.first().cloned();
        if already {
            return;
        }
        let all = bins.into_iter().chain(std::env::split_paths(&path));
        // `PATH` can't contain a directory with a colon in its name, which would be split there.
        let all = all.filter(|dir| !dir.as_os_str().as_encoded_bytes().contains(&b':'));
        if let Ok(joined) = std::env::join_paths(all) {
            self.set("PATH", joined);
        }
    }

    /// The file name of the program, without its directory.
    pub(super) fn name(&self) -> Option<String> {
        let first = Path::new(self.words.first()?);
        Some(first.file_name()?.to_str()?.to_owned())
    }

    /// The words after the first, if all are text.
    pub(super) fn args(&self) -> Option<Vec<String>> {
        let args = self.words.iter().skip(1);
        args.map(|word| Some(word.to_str()?.to_owned())).collect()
    }
}
