//! The unit files that come with the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use roundel_tests::programs::optional::skip;

use crate::harness::temp_dir;

#[test]
fn the_unit_files_are_valid() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let Ok(about) = Command::new("systemd-analyze").arg("--version").output() else {
        return skip("no systemd-analyze");
    };
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    let version = about.split_whitespace().nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    // The program is not where packages have it, which would be the only complaint.
    let dir = temp_dir();
    let mut files = Vec::new();
    for name in ["roundel.service", "roundel.socket"] {
        let text = fs::read_to_string(units.join(name)).unwrap();
        let path = dir.join(name);
        let mut text = text.replace("/usr/bin/roundel", "/bin/sh");
        if version < 253 {
            text = text.replace("notify-reload", "notify");
        }
        fs::write(&path, text).unwrap();
        files.push(path);
    }
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["verify", "--man=no", "--recursive-errors=no"]).args(files);
    let output = output.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ours = said.lines().filter(|line| line.contains("roundel."));
    assert!(output.status.success() && ours.count() == 0, "{said}");
    fs::remove_dir_all(dir).unwrap();
}
