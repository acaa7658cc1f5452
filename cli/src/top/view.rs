//! What is shown, apart from how: the state, the place in it, and what was asked and said.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use roundel_runtime::observe::control::Progress;
use roundel_runtime::observe::status::Status;

use super::orders::Order;
use super::state::{Sort, State};

/// How long the end of an order is shown.
const MESSAGE: Duration = Duration::from_secs(10);

/// How long the primary may leave a question unanswered before that is said.
const SILENCE: Duration = Duration::from_millis(2500);

#[derive(Debug)]
pub(super) struct View {
    pub(super) state: State,
    pub(super) sort: Sort,
    /// Whether there is colour.
    pub(super) colours: bool,
    /// How many rows are above the first one shown.
    pub(super) above: usize,
    /// How many rows were shown last.
    pub(super) page: usize,
    pub(super) help: bool,
    /// The order that waits for a yes.
    pub(super) asked: Option<Order>,
    /// The order that is being carried out.
    running: Option<Order>,
    message: Option<Message>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Message {
    text: String,
    is_failure: bool,
    until: Option<Instant>,
}

/// What came of an order.
#[derive(Debug)]
pub(super) enum Said {
    Progress(Progress),
    End(Result<String, String>),
}

/// What a key asks for, beyond another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    Suspend,
    CarryOut(Order),
}

impl View {
    pub(super) fn new(state: State, colours: bool) -> View {
        View {
            state,
            sort: Sort::default(),
            colours,
            above: 0,
            page: 0,
            help: false,
            asked: None,
            running: None,
            message: None,
            trouble: None,
        }
    }

    pub(super) fn on_key(&mut self, key: KeyEvent, now: Instant) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Step::Quit,
                KeyCode::Char('z') => Step::Suspend,
                _ => Step::Stay,
            };
        }
        if let Some(order) = self.asked.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => self.begin(order, now),
                _ => Step::Stay,
            };
        }
        if std::mem::take(&mut self.help) && key.code != KeyCode::Char('q') {
            return Step::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Step::Quit,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => return self.want(Order::Reload, now),
            KeyCode::Char('+') => return self.want(Order::More, now),
            KeyCode::Char('-') => return self.want(Order::Fewer, now),
            KeyCode::Char('p') => {
                let is_paused = self.state.status().primary.paused;
                return self.want(if is_paused { Order::Resume } else { Order::Pause }, now);
            }
            KeyCode::Up => self.scroll_to(self.above.saturating_sub(1)),
            KeyCode::Down => self.scroll_to(self.above + 1),
            KeyCode::PageUp => self.scroll_to(self.above.saturating_sub(self.page)),
            KeyCode::PageDown => self.scroll_to(self.above + self.page),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => {}
        }
        Step::Stay
    }

    fn scroll_to(&mut self, above: usize) {
        self.above = above.min(self.below(self.page));
    }

    /// How far a page of this many rows can be scrolled.
    pub(super) fn below(&self, page: usize) -> usize {
        self.state.rows(self.sort).len().saturating_sub(page)
    }

    fn want(&mut self, order: Order, now: Instant) -> Step {
        match (self.running, order.question()) {
            (Some(running), _) if order.takes_time() => {
                let text = format!("{}: waits for the end of {}", order.name(), running.name());
                self.say(text, true, Some(now + MESSAGE));
                Step::Stay
            }
            (_, Some(_)) => {
                self.asked = Some(order);
                Step::Stay
            }
            (_, None) => self.begin(order, now),
        }
    }

    fn begin(&mut self, order: Order, now: Instant) -> Step {
        if order.takes_time() {
            // Another one may have begun since the question.
            if self.running.is_some() {
                return self.want(order, now);
            }
            self.running = Some(order);
        }
        self.say(format!("{}: asked", order.name()), false, None);
        Step::CarryOut(order)
    }

    /// Shows what came of an order.
    pub(super) fn on_said(&mut self, order: Order, said: Said, now: Instant) {
        let name = order.name();
        match said {
            Said::Progress(Progress { ready, wanted }) => {
                self.say(format!("{name}: {ready}/{wanted} ready"), false, None);
            }
            Said::End(outcome) => {
                if order.takes_time() {
                    self.running = None;
                }
                let (text, is_failure) = match outcome {
                    Ok(text) => (text, false),
                    Err(text) => (text, true),
                };
                self.say(format!("{name}: {text}"), is_failure, Some(now + MESSAGE));
            }
        }
    }

    fn say(&mut self, text: String, is_failure: bool, until: Option<Instant>) {
        self.message = Some(Message { text, is_failure, until });
    }

    /// What is to be said now, and whether it is a failure.
    pub(super) fn message(&self, now: Instant) -> Option<(&str, bool)> {
        let message = self.message.as_ref()?;
        let is_over = message.until.is_some_and(|until| until <= now);
        (!is_over).then_some((message.text.as_str(), message.is_failure))
    }

    /// Remembers why the primary has not answered.
    pub(super) fn on_trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    pub(super) fn on_answer(&mut self, at: Instant, sample: Status) {
        self.trouble = None;
        self.state.take(at, sample);
    }

    /// What to say of a primary that has not answered for some time.
    pub(super) fn silence(&self, now: Instant) -> Option<String> {
        let age = self.state.age(now);
        if age < SILENCE {
            return None;
        }
        let since = format!("no answer since {} s", age.as_secs());
        Some(match &self.trouble {
            Some(why) => format!("{since}: {why}"),
            None => since,
        })
    }
}
