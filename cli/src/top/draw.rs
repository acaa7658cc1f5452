//! What is shown, as lines on a screen of any size.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use roundel_runtime::observe::status::{ListenerRow, ReloadRow, Status, duration, printable};

use super::style::{alarm, notice};
use super::table::{Drawn, Table, number, table};
use super::view::View;

/// Below this height, the head has one line and listeners are left out.
const LOW: u16 = 10;

const HELP: [&str; 11] = [
    "q, Esc, Ctrl-C   leave; what was asked of the primary goes on",
    "r                reload: replace all workers",
    "+ -              one worker more, one fewer",
    "p                pause, resume",
    "s                sort by the next column",
    "arrows, pages    scroll",
    "?                this page; any key ends it",
    "",
    "CONN/S           connections accepted a second: - if workers accept by themselves",
    "LAST 60 S        the same over the last minute, the present on the right",
    "LAST EXIT        how the slot's worker before this one ended",
];

/// Draws everything; returns how many rows of the table fit.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) -> usize {
    let area = frame.area();
    let (width, height) = (area.width.into(), usize::from(area.height));
    let is_low = area.height < LOW;
    let (mut above, below) = match is_low {
        true => (low_head(view, width, now), low_foot(view, width, now)),
        false => (head(view, width, now), foot(view, width, now)),
    };
    if !is_low {
        above.push(Line::default());
        above.extend(listeners(&view.state.status().listeners, width, height));
        above.push(Line::default());
    }
    let middle = height.saturating_sub(above.len() + below.len());
    let page = middle.saturating_sub(1);
    if view.help {
        above.extend(HELP.iter().take(middle).map(|line| Line::raw(*line)));
    } else {
        let rows = view.state.rows(view.sort);
        let Table { heading, rows } = table(&Drawn {
            rows: &rows,
            above: view.above.min(rows.len().saturating_sub(page)),
            page,
            peak: view.state.peak(),
            sort: view.sort,
            width,
            colours: view.colours,
        });
        above.push(heading);
        above.extend(rows);
    }
    above.truncate(height.saturating_sub(below.len()));
    above.resize(height.saturating_sub(below.len()), Line::default());
    let rows = (area.top()..area.bottom()).zip(above.iter().chain(&below));
    for (y, line) in rows {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
    page
}

fn low_head(view: &View, width: usize, now: Instant) -> Vec<Line<'static>> {
    let line = standing(view, now).unwrap_or_else(|| {
        let pieces = [&counts(view)[..], &names(view)].concat();
        fitting(&pieces, width)
    });
    vec![line]
}

fn head(view: &View, width: usize, now: Instant) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![fitting(&names(view), width).style(bold), fitting(&counts(view), width)];
    lines.push(standing(view, now).unwrap_or_default());
    lines
}

fn names(view: &View) -> [String; 4] {
    let Status { primary, listeners, .. } = view.state.status();
    let mut policies: Vec<String> = listeners.iter().map(|it| printable(&it.policy)).collect();
    policies.sort();
    policies.dedup();
    [
        format!("primary {}", primary.pid),
        format!("generation {}", primary.generation),
        format!("up {}", duration(primary.uptime_s)),
        policies.join(", "),
    ]
}

fn counts(view: &View) -> [String; 5] {
    let primary = &view.state.status().primary;
    [
        format!("{}/{} ready", view.state.ready(), primary.wanted),
        format!("{} conn/s", view.state.conns().map_or_else(|| "-".into(), number)),
        format!("{} pending", primary.pending),
        format!("{} in flight", primary.in_flight),
        format!("{} refused", primary.refused_total),
    ]
}

/// Pieces of text, as many as fit.
fn fitting(pieces: &[String], width: usize) -> Line<'static> {
    let mut line = String::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let gap = if line.is_empty() { "" } else { "  " };
        if Span::raw(&line).width() + gap.len() + Span::raw(piece).width() > width {
            break;
        }
        line = line + gap + piece;
    }
    Line::raw(line)
}

/// What is out of the ordinary, the most important first.
fn standing(view: &View, now: Instant) -> Option<Line<'static>> {
    let (state, colours) = (&view.state, view.colours);
    let Status { primary, reloads, .. } = state.status();
    let mut spans = Vec::new();
    if let Some(silence) = view.silence(now) {
        spans.push(Span::styled(silence, alarm(colours)));
    }
    if primary.stopping {
        spans.push(Span::styled("stopping", notice(colours)));
    }
    if primary.paused {
        spans.push(Span::styled("paused", notice(colours)));
    }
    if let Some(reload) = state.reload() {
        let text = format!(
            "reload to generation {}: {}/{} ready after {}",
            reload.generation,
            reload.ready,
            primary.wanted,
            duration(reload.seconds)
        );
        spans.push(Span::styled(text, notice(colours)));
    } else if let Some(ReloadRow { result, cause: Some(cause), ago_s, .. }) = reloads.last()
        && result == "failed"
    {
        let text = format!("reload {} ago failed: {}", duration(*ago_s), printable(cause));
        spans.push(Span::styled(text, alarm(colours)));
    }
    let last = spans.pop()?;
    let gaps = spans.into_iter().flat_map(|span| [span, Span::raw("  ")]);
    Some(Line::from_iter(gaps.chain([last])))
}

/// A table of listeners: at most a fifth of the screen, beside its heading.
fn listeners(listeners: &[ListenerRow], width: usize, height: usize) -> Vec<Line<'static>> {
    let most = (height / 5).max(1);
    let shown = match listeners.len() > most {
        true => most.saturating_sub(1).max(1),
        false => listeners.len(),
    };
    let addresses = listeners.iter().take(shown).map(|it| printable(&it.address));
    let addresses: Vec<String> = addresses.collect();
    let longest = addresses.iter().map(|it| it.chars().count()).max().unwrap_or(0).max(8);
    let longest = longest.min(width.saturating_sub(16)).max(8);
    let bar = Style::new().add_modifier(Modifier::REVERSED);
    let heading = format!("{:<longest$}  PENDING  QUEUE", "LISTENER");
    let mut lines = vec![Line::styled(format!("{heading:<width$}"), bar)];
    for (row, address) in listeners.iter().zip(&addresses) {
        let queue = row.accept_queue.map_or_else(|| "-".into(), |count| count.to_string());
        let text = format!("{address:<longest$.longest$}  {:>7}  {queue:>5}", row.pending);
        lines.push(Line::raw(text));
    }
    if shown < listeners.len() {
        lines.push(Line::raw(format!("and {} more", listeners.len() - shown)));
    }
    lines
}

fn low_foot(view: &View, width: usize, now: Instant) -> Vec<Line<'static>> {
    vec![said(view, now).unwrap_or_else(|| keys(view, width))]
}

fn foot(view: &View, width: usize, now: Instant) -> Vec<Line<'static>> {
    vec![said(view, now).unwrap_or_default(), keys(view, width)]
}

/// A question, or what came of an order.
fn said(view: &View, now: Instant) -> Option<Line<'static>> {
    if let Some(order) = view.asked {
        let question = order.question().unwrap_or_default();
        let text = format!("{}: {question} y: yes, any other key: no", order.name());
        return Some(Line::styled(text, notice(view.colours)));
    }
    let (text, is_failure) = view.message(now)?;
    let style = if is_failure { alarm(view.colours) } else { Style::new() };
    Some(Line::styled(printable(text), style))
}

fn keys(view: &View, width: usize) -> Line<'static> {
    let rows = view.state.rows(view.sort).len();
    let hidden = match rows > view.page && view.page > 0 {
        true => {
            let above = view.above.min(rows - view.page);
            format!("rows {}-{} of {rows}", above + 1, above + view.page)
        }
        false => String::new(),
    };
    let sort = format!("s sort: {}", view.sort.heading().to_lowercase());
    let paused = if view.state.status().primary.paused { "p resume" } else { "p pause" };
    let pieces = ["q quit", "? help", "r reload", "+ - scale", paused];
    let mut pieces: Vec<String> = pieces.into_iter().map(str::to_owned).collect();
    pieces.extend([sort, hidden]);
    fitting(&pieces, width).style(Style::new().add_modifier(Modifier::DIM))
}
