//! `--node-assist`: a module that Node loads before the program, in each worker.

use std::ffi::OsString;
use std::fmt::Write;

use roundel_runtime::unix::process::Program;

use super::inspect::{NODE_OPTIONS, node_options};

/// The module.
const MODULE: &str = include_str!("assist.mjs");

/// How its URL begins. The module finds it by that in `NODE_OPTIONS`.
const SCHEME: &str = "data:text/javascript;by=roundel,";

/// Makes Node load the module, after whatever `NODE_OPTIONS` names already.
pub(crate) fn assist(program: &mut Program) {
    let before = node_options(program);
    program.env.push((NODE_OPTIONS.into(), with_module(before)));
}

fn with_module(mut options: OsString) -> OsString {
    if !options.is_empty() {
        options.push(" ");
    }
    options.push("--import ");
    options.push(url());
    options
}

/// The module as a URL without any character that `NODE_OPTIONS` or a URL gives a meaning to.
fn url() -> String {
    let lines = MODULE.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let code = lines.collect::<Vec<_>>().join(" ");
    let mut url = String::from(SCHEME);
    for byte in code.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                url.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_comes_last_and_is_one_word() {
        let text = |options: &str| with_module(options.into()).into_string().unwrap();
        let words = text("--max-old-space-size=100 --import tsx");
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(words[..4], ["--max-old-space-size=100", "--import", "tsx", "--import"]);
        assert_eq!(words.len(), 5);
        assert!(words[4].starts_with(SCHEME));
        assert_eq!(text("").split_whitespace().count(), 2);
        // A program with a large environment must still start (execve(2): 128 KiB a variable).
        assert!(url().len() < 12_000, "{}", url().len());
    }

    #[test]
    fn what_the_program_adds_goes_before_the_environment() {
        let mut program = Program::default();
        program.env.push((NODE_OPTIONS.into(), "--no-warnings".into()));
        assist(&mut program);
        let (_, value) = program.env.last().unwrap();
        assert!(value.to_str().unwrap().starts_with("--no-warnings --import data:"));
    }
}
