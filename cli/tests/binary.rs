//! The binary's command line. This test also makes `cargo test` build the binary, which the
//! end-to-end tests run.

use std::process::Command;

fn roundel(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_roundel")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_names_every_option() {
    let (code, out, _) = roundel(&["demo", "--help"]);
    assert_eq!(code, Some(0));
    for option in [
        "--workers",
        "--bind",
        "--policy",
        "--window",
        "--max-pending",
        "--overflow",
        "--ack-timeout",
        "--ready-timeout",
        "--drain-timeout",
        "--restart-intensity",
        "--respawn",
        "--control",
        "--events",
        "--metrics",
        "--codec",
    ] {
        assert!(out.contains(option), "{option} is missing in\n{out}");
    }
}

#[test]
fn a_mistake_is_one_line_and_exit_2() {
    let (code, out, err) = roundel(&["demo", "--window", "many"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("--window") && err.contains("many"), "{err}");
}
