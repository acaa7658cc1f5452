//! This test also makes `cargo test` build the binary, which the end-to-end tests run and compare
//! with `roundel`.

use std::process::Command;

#[test]
fn the_binary_goes_by_its_name() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_roundel-smol")).arg("--version").output().unwrap();
    assert!(output.stdout.starts_with(b"roundel-smol "), "{output:?}");
}
