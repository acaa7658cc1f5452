//! The terminal: taken over, and given back whatever happens.

use std::io::{self, IsTerminal, Stdout};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::Command;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::style::ResetColor;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Rect, Size};
use ratatui::{Frame, TerminalOptions, Viewport};
use roundel_runtime::exit::Exit;

/// How long the main thread may take to end after a signal; it may be writing to a terminal that
/// nobody reads.
const STUCK: Duration = Duration::from_secs(2);

/// The most that is drawn, in cells. A terminal can claim to be 65535 cells wide and as high, which
/// no memory holds.
const MOST: Size = Size::new(1000, 500);

/// The terminal in raw mode, on its second screen, until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
    /// The part of it that is drawn on.
    area: Rect,
}

impl Terminal {
    /// Takes the terminal over. A panic in any thread gives it back and ends the process.
    ///
    /// # Errors
    /// If standard input or standard output is no terminal, or can't be set.
    pub(super) fn open() -> io::Result<Terminal> {
        restore_on_panic();
        let backend = CrosstermBackend::new(io::stdout());
        // Its size is followed in `draw`.
        let viewport = Viewport::Fixed(Rect::default());
        let screen = ratatui::Terminal::with_options(backend, TerminalOptions { viewport })?;
        let mut terminal = Terminal { screen, area: Rect::default() };
        terminal.enter()?;
        Ok(terminal)
    }

    /// True if both can be used.
    pub(super) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Draws on as much of the terminal as there is, up to [`MOST`].
    ///
    /// # Errors
    /// If the terminal can't be asked for its size, or written to.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if self.area_now()? != self.area {
            self.resize()?;
        }
        self.screen.draw(draw).map(drop)
    }

    fn area_now(&self) -> io::Result<Rect> {
        let size = self.screen.size()?;
        Ok(Rect::new(0, 0, size.width.min(MOST.width), size.height.min(MOST.height)))
    }

    /// Clears the screen and has everything drawn anew.
    fn resize(&mut self) -> io::Result<()> {
        self.area = self.area_now()?;
        self.screen.resize(self.area)
    }

    fn enter(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.screen.hide_cursor()?;
        // Not with `clear`: that would first ask the terminal where its cursor is, while another
        // thread reads what it answers.
        self.resize()
    }

    /// Why it can't be drawn on, if it says so: the variable TERM is missing, or names no terminal
    /// that can move its cursor.
    pub(super) fn inability() -> Option<String> {
        let term = std::env::var_os("TERM").unwrap_or_default();
        let why = match term.to_str() {
            Some("") => "TERM is not set",
            Some("dumb") => "TERM=dumb",
            _ => return None,
        };
        Some(format!("the terminal can't move its cursor ({why})"))
    }

    /// Takes the terminal over again: a shell may have set it while this process was stopped.
    ///
    /// # Errors
    /// As [`open`](Terminal::open).
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        // What is restored in the end is what the shell has set.
        disable_raw_mode()?;
        self.enter()
    }

    /// Gives the terminal back and stops this process, until somebody continues it.
    ///
    /// # Errors
    /// As [`open`](Terminal::open).
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        let stop = SigSet::from(Signal::SIGTSTP);
        // Without effect where no shell could continue this process.
        stop.thread_unblock()?;
        raise(Signal::SIGTSTP)?;
        stop.thread_block()?;
        self.enter()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was.
fn restore() {
    let mut text = String::new();
    // Writing to a string does not fail; and if the terminal is gone, there is nothing to restore.
    let _ = ResetColor.write_ansi(&mut text);
    let _ = LeaveAlternateScreen.write_ansi(&mut text);
    let _ = Show.write_ansi(&mut text);
    // Not through the buffer of standard output: the thread that panics may hold it.
    let _ = nix::unistd::write(io::stdout(), text.as_bytes());
    let _ = disable_raw_mode();
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
            // Without its helpers, the main thread would draw on.
            std::process::exit(Exit::Failure.code().into());
        }));
    });
}

/// A signal that `top` takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    End,
    Stop,
    Continue,
}

/// Blocks the signals that would leave the terminal as it is, for this thread and those that it
/// starts, and tells them from then on.
///
/// # Errors
/// As pthread_sigmask(3) and pthread_create(3).
pub(super) fn catch_signals(tell: impl Fn(Caught) + Send + 'static) -> io::Result<()> {
    let set = SigSet::from_iter([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGCONT,
    ]);
    set.thread_block()?;
    let wait = move || {
        while let Ok(signal) = set.wait() {
            match signal {
                Signal::SIGTSTP => tell(Caught::Stop),
                Signal::SIGCONT => tell(Caught::Continue),
                _ => {
                    tell(Caught::End);
                    thread::sleep(STUCK);
                    let _ = disable_raw_mode();
                    std::process::exit(Exit::Failure.code().into());
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}
