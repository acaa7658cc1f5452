//! The soak of reloads, a little of it, so that it does not rot: see docs/testing.md.

use std::process::Command;

use roundel_tests::programs::observe::binary;

#[test]
fn a_quick_soak_finds_nothing_wrong() {
    // That it is there, and not stale: the soak takes it from its own directory.
    binary("roundel");
    let mut command = Command::new(env!("CARGO_BIN_EXE_reload_soak"));
    let output = command.args(["--quick", "--seed", "1"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}{said}");
    for what in ["reloads", "slow boot", "kills"] {
        assert!(printed.contains(&format!("| mio | {what} | ")), "{printed}");
    }
    assert_eq!(printed.matches("| ok |").count(), 3, "{printed}");
}

#[test]
fn an_option_that_it_does_not_know_is_a_usage_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reload_soak"));
    assert_eq!(command.arg("--fast").output().unwrap().status.code(), Some(2));
}
