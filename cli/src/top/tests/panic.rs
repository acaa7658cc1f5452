use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use nix::pty::openpty;
use nix::sys::termios::tcgetattr;

use super::super::terminal::Terminal;

/// The next test runs this in a process of its own, in a terminal.
#[test]
fn as_a_process_that_panics() {
    let Some(thread) = std::env::var_os("ROUNDEL_TEST_PANIC") else { return };
    let _terminal = Terminal::open().unwrap();
    if thread == "main" {
        panic!("on purpose");
    }
    let _ = thread::spawn(|| panic!("on purpose")).join();
    unreachable!("the process has ended");
}

#[test]
fn a_panic_gives_the_terminal_back() {
    for place in ["main", "helper"] {
        let pair = openpty(None, None).unwrap();
        let before = tcgetattr(&pair.slave).unwrap();
        let name = concat!(module_path!(), "::as_a_process_that_panics");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name.split_once("::").unwrap().1, "--nocapture"])
            .env("ROUNDEL_TEST_PANIC", place)
            .stdin(pair.slave.try_clone().unwrap())
            .stdout(pair.slave.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("on purpose"), "{said}");
        assert_eq!(tcgetattr(&pair.slave).unwrap(), before);
        // Only what is there: the other end stays open.
        let mut shown = vec![0; 4096];
        let count = File::from(pair.master).read(&mut shown).unwrap();
        let shown = String::from_utf8_lossy(&shown[..count]).into_owned();
        let places = ["\u{1b}[?1049h", "\u{1b}[?1049l", "\u{1b}[?25h"].map(|it| shown.rfind(it));
        assert!(places.is_sorted() && places[0].is_some(), "{shown:?}");
    }
}
