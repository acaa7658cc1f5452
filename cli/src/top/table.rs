//! The table of workers: which columns fit, and what is in them.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use roundel_runtime::observe::status::{WorkerRow, printable};

use super::state::{Recent, Row, SECONDS, Sort};
use super::style::paint;

/// A column: its heading, the least width that it has, and how many columns are more important. The
/// less important ones are left out first.
struct Column {
    heading: &'static str,
    least: usize,
    rank: usize,
}

const fn column(heading: &'static str, least: usize, rank: usize) -> Column {
    Column { heading, least, rank }
}

const COLUMNS: [Column; 12] = [
    column("SLOT", 4, 0),
    column("PID", 5, 3),
    column("STATE", 8, 1),
    column("GEN", 3, 10),
    column("CONN/S", 6, 2),
    column("IN FLIGHT", 9, 4),
    column("OPEN", 4, 8),
    column("CPU%", 5, 5),
    column("MEMORY", 7, 6),
    column("RESTARTS", 8, 9),
    column("LAST 60 S", LEAST_PAST, 7),
    column("LAST EXIT", 9, 11),
];
/// The places of the columns that are not of numbers.
const STATE: usize = 2;
const PAST: usize = 10;
const LAST_EXIT: usize = 11;

/// The least width of the past, of which each character is then six seconds.
const LEAST_PAST: usize = 10;

/// The greatest width of the last exit.
const MOST_EXIT: usize = 40;

/// The spaces between two columns.
const GAP: usize = 2;

/// The lines of a table.
pub(super) struct Table {
    pub(super) heading: Line<'static>,
    pub(super) rows: Vec<Line<'static>>,
}

/// What is drawn, and where.
pub(super) struct Drawn<'a> {
    pub(super) rows: &'a [Row<'a>],
    /// How many rows are above the first one shown.
    pub(super) above: usize,
    /// How many rows are shown.
    pub(super) page: usize,
    /// The rate that fills a character of the past.
    pub(super) peak: f64,
    pub(super) sort: Sort,
    pub(super) width: usize,
    pub(super) colours: bool,
}

pub(super) fn table(drawn: &Drawn<'_>) -> Table {
    let Drawn { rows, sort, colours, .. } = *drawn;
    // All rows, so that the columns stay where they are when the table is scrolled.
    let cells: Vec<Option<[String; 12]>> = rows.iter().map(cells).collect();
    let widths = widths(&cells, drawn.width);
    let bar = Style::new().add_modifier(Modifier::REVERSED);
    let mut heading = Vec::new();
    for (place, (column, width)) in COLUMNS.iter().zip(widths).enumerate() {
        let Some(width) = width else { continue };
        let style = match column.heading == sort.heading() {
            true => bar.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            false => bar,
        };
        if !heading.is_empty() {
            heading.push(Span::styled(" ".repeat(GAP), bar));
        }
        let text = aligned(column.heading, place, width);
        let (before, after) = text.split_at(text.find(column.heading).unwrap_or(0));
        let (name, after) = after.split_at(column.heading.len().min(after.len()));
        heading.push(Span::styled(before.to_owned(), bar));
        heading.push(Span::styled(name.to_owned(), style));
        heading.push(Span::styled(after.to_owned(), bar));
    }
    let used: usize = heading.iter().map(Span::width).sum();
    heading.push(Span::styled(" ".repeat(drawn.width.saturating_sub(used)), bar));
    let shown = rows.iter().zip(&cells).skip(drawn.above).take(drawn.page);
    let rows = shown.map(|(row, cells)| match (row, cells) {
        (Row::Worker { worker, recent, .. }, Some(cells)) => {
            let past = widths[PAST].map(|width| past(recent, width, drawn.peak));
            worker_line(worker, cells, &widths, past, colours)
        }
        (Row::Slot(slot), _) => {
            let text = format!("{:>4}  {}", slot.slot, slot.reason());
            Line::styled(text, paint(colours, reason_colour(&slot.state)))
        }
        (Row::Worker { .. }, None) => Line::default(),
    });
    Table { rows: rows.collect(), heading: Line::from(heading) }
}

fn worker_line(
    worker: &WorkerRow,
    cells: &[String; 12],
    widths: &[Option<usize>; 12],
    past: Option<String>,
    colours: bool,
) -> Line<'static> {
    let mut spans = Vec::new();
    for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let Some(width) = *width else { continue };
        if !spans.is_empty() {
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        let style = match place {
            STATE => paint(colours, state_colour(&worker.state)),
            PAST => paint(colours, Color::Cyan),
            _ => Style::new(),
        };
        let text = match (&past, place) {
            (Some(past), PAST) => past.clone(),
            _ => aligned(cell, place, width),
        };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

fn state_colour(state: &str) -> Color {
    match state {
        "ready" => Color::Green,
        "starting" | "online" => Color::Yellow,
        _ => Color::Magenta,
    }
}

fn reason_colour(state: &str) -> Color {
    match state {
        "given_up" => Color::Red,
        _ => Color::Yellow,
    }
}

/// The texts of a worker; `None` for a slot without one. That of the past depends on its width.
fn cells(row: &Row<'_>) -> Option<[String; 12]> {
    let Row::Worker { worker, recent } = row else { return None };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let cut = |text: &String| {
        let text = printable(text);
        text.char_indices().nth(MOST_EXIT).map_or(text.clone(), |(at, _)| text[..at].to_owned())
    };
    Some([
        worker.slot.to_string(),
        or_dash(worker.pid.map(|pid| pid.to_string())),
        printable(&worker.state),
        worker.generation.to_string(),
        or_dash(recent.conns.map(number)),
        worker.in_flight.to_string(),
        or_dash(worker.open.map(|count| count.to_string())),
        or_dash(recent.cpu.map(|cpu| format!("{cpu:.1}"))),
        or_dash(worker.rss_kb.map(|kb| format!("{} MiB", kb.div_ceil(1024)))),
        worker.restarts.to_string(),
        String::new(),
        or_dash(worker.last_exit.as_ref().map(cut)),
    ])
}

/// The width of each column that fits.
fn widths(rows: &[Option<[String; 12]>], width: usize) -> [Option<usize>; 12] {
    let mut natural = COLUMNS.each_ref().map(|column| column.least);
    for cells in rows.iter().flatten() {
        for (width, cell) in natural.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut widths = [None; 12];
    let mut left = width + GAP;
    let mut order: Vec<usize> = (0..COLUMNS.len()).collect();
    order.sort_by_key(|place| COLUMNS[*place].rank);
    for place in order {
        // The last text of a line may be cut.
        let needed = if place == LAST_EXIT { COLUMNS[place].least } else { natural[place] } + GAP;
        if needed > left {
            break;
        }
        widths[place] = Some(natural[place].min(left - GAP));
        left = left.saturating_sub(natural[place] + GAP);
    }
    // What is left is the past's, as long as a character stands for a whole number of seconds.
    if let Some(past) = &mut widths[PAST] {
        let fits = |wider: &usize| *wider <= *past + left;
        *past = [60, 30, 20, 15, 12].into_iter().find(fits).unwrap_or(*past);
    }
    widths
}

fn aligned(text: &str, place: usize, width: usize) -> String {
    match place {
        STATE | PAST | LAST_EXIT => format!("{text:<width$.width$}"),
        _ => format!("{text:>width$.width$}"),
    }
}

/// Levels of a rate, that of nothing first.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The past as a row of bars, the present on the right; the time before the first sample is empty.
fn past(recent: &Recent, width: usize, peak: f64) -> String {
    let each = SECONDS / width.max(1);
    let rates: Vec<f64> = recent.history.iter().rev().copied().collect();
    let bars = rates.chunks(each.max(1)).take(width).map(|seconds| {
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        level(mean, peak)
    });
    let mut bars: Vec<char> = bars.collect();
    bars.resize(width, ' ');
    bars.iter().rev().collect()
}

fn level(rate: f64, peak: f64) -> char {
    let highest = LEVELS.len() - 1;
    let level = match rate > 0.0 && peak > 0.0 {
        true => ((rate / peak * highest as f64).ceil() as usize).clamp(1, highest),
        false => 0,
    };
    LEVELS[level]
}

/// A rate, short: `0`, `0.5`, `12`, `3480`.
pub(super) fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}
