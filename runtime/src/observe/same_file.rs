//! Checks whether two options name one file: the logs of a primary would spoil each other, and its
//! control socket could not be made at the path of a log.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::observe::control::Where;
use crate::observe::eventlog;
use crate::observe::journal;

/// How many links are followed to a file that does not exist yet; more than the kernel follows.
const MAX_LINKS: u32 = 64;

/// The file that an option names.
#[derive(Debug)]
struct Named {
    option: &'static str,
    /// As the operator wrote it.
    written: PathBuf,
    /// The file's identity, if it exists.
    id: Option<(u64, u64)>,
    /// The path without links, as far as it exists.
    place: Option<PathBuf>,
}

/// Returns two of these options and the path, if they name the same file. Nothing is made or
/// opened.
pub(crate) fn find(
    control: &Where,
    events: Option<&eventlog::Target>,
    journal: Option<&journal::Target>,
    log_file: Option<&Path>,
) -> Option<(&'static str, &'static str, PathBuf)> {
    let mut named: Vec<Named> = Vec::new();
    if let Where::Path(path) = control {
        named.push(at("--control", path));
    }
    match events {
        Some(eventlog::Target::Path(path)) => named.push(at("--events", path)),
        Some(eventlog::Target::Stdout) => named.push(stdout("--events")),
        None => {}
    }
    if let Some(journal) = journal {
        named.push(at("--journal", &journal.path));
    }
    if let Some(path) = log_file {
        named.push(at("--log-file", path));
    }
    named.iter().enumerate().find_map(|(n, one)| {
        let other = named.iter().skip(n + 1).find(|other| is_same(one, other))?;
        Some((one.option, other.option, other.written.clone()))
    })
}

fn is_same(one: &Named, other: &Named) -> bool {
    (one.id.is_some() && one.id == other.id) || (one.place.is_some() && one.place == other.place)
}

fn at(option: &'static str, path: &Path) -> Named {
    let written = path.to_owned();
    match fs::metadata(path) {
        // Several outputs can go there without spoiling each other.
        Ok(found) if is_null(&found) => Named { option, written, id: None, place: None },
        Ok(found) => Named { option, written, id: Some(id(&found)), place: None },
        Err(_) => Named { option, written, id: None, place: place(path) },
    }
}

fn stdout(option: &'static str) -> Named {
    let copy = io::stdout().as_fd().try_clone_to_owned().map(fs::File::from);
    let found = copy.and_then(|file| file.metadata()).ok().filter(|found| !is_null(found));
    Named { option, written: "-".into(), id: found.as_ref().map(id), place: None }
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// True for /dev/null, in whatever directory (null(4)).
fn is_null(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == nix::sys::stat::makedev(1, 3)
}

/// Where a file would be made: links are followed, and the directory is given its one real name.
fn place(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = fs::canonicalize(directory).ok()?;
        let whole = directory.join(path.file_name()?);
        match fs::read_link(&whole) {
            Ok(target) => path = directory.join(target),
            Err(_) => return Some(whole),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn dir() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("roundel-same-{pid}-{count}"));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn same(events: &Path, journal: &Path) -> bool {
        let events = eventlog::Target::Path(events.into());
        let journal = journal::Target { path: journal.into(), limit: 1 };
        let found = find(&Where::Default, Some(&events), Some(&journal), None);
        assert!(found.is_none() || found == Some(("--events", "--journal", journal.path)));
        find(&Where::Default, Some(&events), None, None).is_none() && found.is_some()
    }

    #[test]
    fn one_file_has_many_names() {
        let dir = dir();
        let at = |name: &str| dir.0.join(name);
        fs::write(at("file"), "").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("file", at("soft")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["file", "hard", "soft", "sub/../file"] {
            assert!(same(&at("file"), &at(name)) && same(&at(name), &at("file")), "{name}");
        }
        assert!(same(&at("fifo"), &at("fifo")));
        assert!(!same(&at("file"), &at("fifo")) && !same(&at("file"), &at("new")));
        assert!(!same(Path::new("/dev/null"), Path::new("/dev/null")));
        assert!(same(Path::new("/dev/full"), Path::new("/dev/full")));
    }

    #[test]
    fn so_has_one_that_is_not_there_yet() {
        let dir = dir();
        let at = |name: &str| dir.0.join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("new", at("soft")).unwrap();
        symlink(at("sub"), at("sub2")).unwrap();
        symlink("../soft", at("sub/soft2")).unwrap();
        for name in ["new", "soft", "sub/../new", "sub2/../new", "sub2/soft2", "./new"] {
            assert!(same(&at("new"), &at(name)) && same(&at(name), &at("new")), "{name}");
        }
        assert!(same(&at("sub/x"), &at("sub2/x")));
        assert!(!same(&at("new"), &at("sub/new")) && !same(&at("a"), &at("b")));
        // A path that can't work is reported elsewhere.
        symlink("loop", at("loop")).unwrap();
        assert!(!same(&at("loop"), &at("loop")));
        assert!(!same(Path::new("/nonexistent/x"), Path::new("/nonexistent/y")));
    }

    #[test]
    fn the_control_socket_is_none_of_them() {
        let dir = dir();
        let path = dir.0.join("x");
        let control = Where::Path(path.clone());
        let events = eventlog::Target::Path(path.clone());
        let journal = journal::Target { path: path.clone(), limit: 1 };
        let found = find(&control, Some(&events), None, None);
        assert_eq!(found, Some(("--control", "--events", path.clone())));
        let found = find(&control, None, Some(&journal), None);
        assert_eq!(found, Some(("--control", "--journal", path.clone())));
        let found = find(&control, None, None, Some(&path));
        assert_eq!(found, Some(("--control", "--log-file", path.clone())));
        let found = find(&Where::Off, Some(&events), None, Some(&path));
        assert_eq!(found, Some(("--events", "--log-file", path.clone())));
        assert_eq!(find(&Where::Off, None, Some(&journal), None), None);
    }
}
