//! Programs that a machine may be without: tests that want one are skipped there, and say so.

use std::fs;
use std::path::PathBuf;

/// Why a cell of the end-to-end scenarios is passed over where the full matrix is not asked for.
pub const NOT_ON_DIAGONAL: &str = "runs with ROUNDEL_MATRIX=full";

/// Whether every cell of the end-to-end scenarios is to run.
pub fn full_matrix() -> bool {
    std::env::var_os("ROUNDEL_MATRIX").is_some_and(|value| value == "full")
}

/// Says that a test is skipped.
///
/// # Panics
/// With `ROUNDEL_NO_SKIP` in the environment, which makes that a failure.
pub fn skip(why: &str) {
    assert!(std::env::var_os("ROUNDEL_NO_SKIP").is_none(), "would be skipped: {why}");
    println!("skipped: {why}");
}

/// The Node binary that tests use: what the variable `NODE` says, else the one in `PATH`.
///
/// # Panics
/// If `NODE` is set and names no file.
pub fn node() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NODE") {
        return Some(fs::canonicalize(path).expect("NODE is the path of a Node binary"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("node")).find(|it| it.exists())
}

/// Remembers for the table of results why a test of this name was skipped, or that it was not.
///
/// # Panics
/// If that can't be written down.
pub fn remember_skip(test: &str, why: Option<&str>) {
    let path = skips().join(test);
    match why {
        Some(why) => {
            fs::create_dir_all(skips()).expect("a directory in the target directory");
            fs::write(path, why).expect("a file in the target directory");
        }
        None => drop(fs::remove_file(path)),
    }
}

/// Why the latest run of a test was skipped, if it was.
pub fn reason_of_skip(test: &str) -> Option<String> {
    fs::read_to_string(skips().join(test)).ok()
}

/// A file for each test that was skipped, beside the binaries of the profile.
fn skips() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let dir = program.ancestors().skip(1).find(|it| !it.ends_with("deps"));
    dir.expect("its directory").join("e2e-skipped")
}

/// A program of the Python packages that `tests/python/fetch` fetches, if it was run.
///
/// # Panics
/// If the test that asks is not where cargo puts it.
pub fn python_program(name: &str) -> Option<String> {
    let target = super::observe::target_dir();
    let path = target.ancestors().map(|dir| dir.join("python-cache/bin").join(name));
    path.into_iter().find(|path| path.exists())?.to_str().map(str::to_owned)
}
