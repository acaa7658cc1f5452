//! One command line for both binaries.

use std::process::Command;

use crate::pair::Adapter;

fn say(adapter: Adapter, args: &[&str]) -> (String, String) {
    // The width is what the words are wrapped at, and the names differ in length.
    let mut command = Command::new(adapter.binary());
    let output = command.args(args).env("COLUMNS", "1000").output().unwrap();
    let words = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap().replace("roundel-smol", "roundel");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    (words(output.stdout), words(output.stderr))
}

#[test]
fn both_binaries_say_the_same() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["demo", "--help"],
        &["status", "--help"],
        &["stop", "--help"],
        &["demo", "--window", "many"],
        &["run"],
        &["status", "--control", "/nonexistent/socket"],
    ] {
        let said = say(Adapter::Mio, args);
        assert_ne!(said, Default::default());
        assert_eq!(said, say(Adapter::Smol, args), "{args:?}");
    }
}
