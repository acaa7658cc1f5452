//! `top`: a running primary and its workers, on the whole terminal.
//!
//! The main thread draws and is told everything through one channel. Others read keys, take
//! signals, ask the primary and have it do what the operator wants; each of them may wait. What is
//! shown is decided without any input or output, in `state`, `view` and `draw`.

mod draw;
mod orders;
mod state;
mod style;
mod table;
mod terminal;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEvent};
use roundel_runtime::exit::Exit;
use roundel_runtime::observe::control::{Connection, Request, find};

use crate::client::PATIENCE;
use orders::Order;
use state::State;
use terminal::{Caught, Terminal, catch_signals};
use view::{Said, Step, View};
use watch::{Seen, watch};

/// How often the screen is drawn if nothing happens: it says how long the primary is silent.
const REDRAW: Duration = Duration::from_secs(1);

/// What the main thread is told.
enum Happening {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// Keys can't be read any more.
    KeysFailed(io::Error),
    Caught(Caught),
    Seen(Seen),
    Said(Order, Said),
}

/// Shows a primary until the operator leaves or the primary is gone, for the binary called `name`.
/// If it fails ([`Exit::Failure`]), one line goes to standard error.
pub(crate) fn run(name: &str, control: Option<&Path>) -> Exit {
    match show(name, control) {
        Ok(()) => Exit::Stopped,
        Err(line) => {
            let _ = writeln!(io::stderr(), "{name}: {line}");
            Exit::Failure
        }
    }
}

fn show(name: &str, control: Option<&Path>) -> Result<(), String> {
    if !Terminal::is_there() {
        return Err(format!(
            "top needs a terminal for its input and output: {name} status prints the same once"
        ));
    }
    if let Some(why) = Terminal::inability() {
        return Err(format!("top: {why}: {name} status prints the same once"));
    }
    let path = find(control)?;
    let mut connection = Connection::open(&path)?;
    let sample = state::read(&connection.ask(&Request::Status, PATIENCE)?)?;
    // See https://no-color.org.
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View::new(State::new(Instant::now(), sample), colours);
    let (sender, happenings) = mpsc::channel();
    let in_terminal = |error: io::Error| format!("the terminal: {error}");
    let tell = sender.clone();
    // Before any other thread, so that all of them have the signals blocked.
    catch_signals(move |caught| drop(tell.send(Happening::Caught(caught)))).map_err(in_terminal)?;
    let mut terminal = Terminal::open().map_err(in_terminal)?;
    let tell = sender.clone();
    start("keys", move || read_keys(&tell))?;
    let (tell, place) = (sender.clone(), path.clone());
    start("watch", move || {
        // If nobody listens any more, the process is about to end.
        let _ = watch(connection, &place, |seen| tell.send(Happening::Seen(seen)));
    })?;
    let main = Main { view: &mut view, path, sender };
    main.serve(&mut terminal, &happenings)
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

/// Returns when nobody listens any more, or with the error.
fn read_keys(tell: &Sender<Happening>) {
    loop {
        let happening = match event::read() {
            Ok(Event::Key(key)) => Happening::Key(key),
            Ok(Event::Resize(..)) => Happening::Resized,
            Ok(_) => continue,
            Err(error) => {
                let _ = tell.send(Happening::KeysFailed(error));
                return;
            }
        };
        if tell.send(happening).is_err() {
            return;
        }
    }
}

struct Main<'a> {
    view: &'a mut View,
    path: PathBuf,
    sender: Sender<Happening>,
}

impl Main<'_> {
    /// Draws and acts on what happens, until the operator leaves.
    fn serve(
        mut self,
        terminal: &mut Terminal,
        happenings: &Receiver<Happening>,
    ) -> Result<(), String> {
        let in_terminal = |error: io::Error| format!("the terminal: {error}");
        loop {
            let now = Instant::now();
            let mut page = 0;
            let drawn = terminal.draw(|frame| page = draw::draw(frame, self.view, now));
            drawn.map_err(in_terminal)?;
            self.view.page = page;
            // All that is there before it is drawn again.
            let mut next = happenings.recv_timeout(REDRAW);
            loop {
                match next {
                    Ok(happening) => {
                        if self.on(happening, terminal)? {
                            return Ok(());
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                next = happenings.recv_timeout(Duration::ZERO);
            }
        }
    }

    /// Acts on what happened; true if that is the end.
    fn on(&mut self, happening: Happening, terminal: &mut Terminal) -> Result<bool, String> {
        let in_terminal = |error: io::Error| format!("the terminal: {error}");
        let now = Instant::now();
        match happening {
            Happening::Resized => {}
            Happening::KeysFailed(error) => return Err(format!("standard input: {error}")),
            Happening::Caught(Caught::End) => return Ok(true),
            Happening::Caught(Caught::Stop) => terminal.suspend().map_err(in_terminal)?,
            Happening::Caught(Caught::Continue) => terminal.enter_again().map_err(in_terminal)?,
            Happening::Seen(Seen::Sample(at, sample)) => self.view.on_answer(at, *sample),
            Happening::Seen(Seen::Trouble(why)) => self.view.on_trouble(why),
            Happening::Seen(Seen::Gone(why)) => return Err(why),
            Happening::Said(order, said) => self.view.on_said(order, said, now),
            Happening::Key(key) => match self.view.on_key(key, now) {
                Step::Stay => {}
                Step::Quit => return Ok(true),
                Step::Suspend => terminal.suspend().map_err(in_terminal)?,
                Step::CarryOut(order) => self.carry_out(order, now),
            },
        }
        Ok(false)
    }

    fn carry_out(&mut self, order: Order, now: Instant) {
        let (tell, path) = (self.sender.clone(), self.path.clone());
        let started = start(order.name(), move || {
            let say = |said| drop(tell.send(Happening::Said(order, said)));
            let outcome = order.carry_out(&path, |progress| say(Said::Progress(progress)));
            say(Said::End(outcome));
        });
        if let Err(why) = started {
            self.view.on_said(order, Said::End(Err(why)), now);
        }
    }
}
