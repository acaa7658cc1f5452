//! A terminal for a program under test: a pseudoterminal, and an emulator that knows what its
//! screen shows.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use super::observe::eventually;

/// A terminal whose screen can be looked at.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// A terminal of this size.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(rows: u16, columns: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a pseudoterminal");
        let master = File::from(pair.master);
        let screen = Arc::new(Mutex::new(emulator(rows, columns)));
        let (mut output, shown) = (master.try_clone().expect("a descriptor"), screen.clone());
        // It ends when nobody has the other end open any more.
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut chunk) {
                lock(&shown).process(&chunk[..count]);
            }
        });
        Terminal { master, slave: pair.slave, screen }
    }

    /// Starts a program in it, in a process group of its own, so that it can be stopped. Its
    /// standard error is not the terminal.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.slave.try_clone().expect("a descriptor"));
        command.stdin(end()).stdout(end()).stderr(Stdio::piped()).process_group(0);
        command.env("TERM", "xterm-256color").spawn().expect("the program")
    }

    /// Types something.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).expect("the terminal");
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// If stty(1) fails.
    pub fn resize(&self, rows: u16, columns: u16) {
        let mut command = Command::new("stty");
        command.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        command.stdin(self.slave.try_clone().expect("a descriptor"));
        assert!(command.status().expect("stty").success());
        let [rows, columns] = [rows, columns].map(size);
        self.screen().screen_mut().set_size(rows, columns);
    }

    /// What the terminal shows, and how.
    pub fn screen(&self) -> MutexGuard<'_, vt100::Parser> {
        lock(&self.screen)
    }

    /// The lines that are shown.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.screen();
        let (_, columns) = screen.screen().size();
        screen.screen().rows(0, columns.into()).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits for a line that this is true of.
    ///
    /// # Panics
    /// If none comes in time; with the screen.
    pub fn line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        struct Shown<'a>(&'a Terminal);
        impl Drop for Shown<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    eprintln!("--- the screen\n{}", self.0.lines().join("\n"));
                }
            }
        }
        let _shown = Shown(self);
        eventually(what, || self.lines().into_iter().find(|line| is_it(line)))
    }

    /// The settings of the terminal (termios(3)).
    ///
    /// # Panics
    /// If they can't be read.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.slave).expect("settings")
    }
}

fn emulator(rows: u16, columns: u16) -> vt100::Parser {
    let [rows, columns] = [rows, columns].map(size);
    vt100::Parser::new(rows, columns, 0)
}

fn size(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has rows and columns")
}

fn lock(screen: &Mutex<vt100::Parser>) -> MutexGuard<'_, vt100::Parser> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
