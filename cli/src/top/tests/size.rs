use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::tcgetattr;

use super::super::terminal::Terminal;

/// The next test runs this in a process of its own, in a terminal.
#[test]
fn as_a_process_that_draws() {
    if std::env::var_os("ROUNDEL_TEST_SIZE").is_none() {
        return;
    }
    let mut terminal = Terminal::open().unwrap();
    terminal.draw(|frame| eprintln!("draws on {}", frame.area())).unwrap();
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    for (ws_col, ws_row, drawn) in
        [(80, 24, "80x24+0+0"), (u16::MAX, u16::MAX, "1000x500+0+0"), (u16::MAX, 1, "1000x1+0+0")]
    {
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pair.slave).unwrap();
        let mut output = File::from(pair.master);
        // It ends when nobody has the other end open any more.
        let reader = thread::spawn(move || {
            let mut chunk = [0; 1 << 16];
            while let Ok(1..) = output.read(&mut chunk) {}
        });
        let name = concat!(module_path!(), "::as_a_process_that_draws");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name.split_once("::").unwrap().1, "--nocapture"])
            .env("ROUNDEL_TEST_SIZE", "1")
            .stdin(pair.slave.try_clone().unwrap())
            .stdout(pair.slave.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success(), "{}: {said}", ended.status);
        assert!(said.contains(&format!("draws on {drawn}\n")), "{said}");
        assert_eq!(tcgetattr(&pair.slave).unwrap(), before);
        drop(pair.slave);
        reader.join().unwrap();
    }
}
