//! A status as tables for people.

use std::fmt;

use roundel_core::Policy;

use super::{GenerationRow, ListenerRow, PrimaryRow, ReloadRow, SlotRow, Status, WorkerRow};
use crate::text;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.primary.fmt(f)?;
        f.write_str("\n")?;
        if self.listeners.is_empty() {
            writeln!(f, "no listeners")?;
        } else {
            write_table(f, &LISTENER_COLUMNS, self.listeners.iter().map(listener_cells))?;
        }
        f.write_str("\n")?;
        if self.workers.is_empty() {
            writeln!(f, "no workers")?;
        } else {
            write_table(f, &WORKER_COLUMNS, self.workers.iter().map(worker_cells))?;
        }
        let newest = self.generations.iter().map(|row| row.generation).max();
        let old = self.generations.iter().filter(|row| Some(row.generation) < newest);
        let mut holding = old.filter(|row| row.in_flight > 0 || row.open != Some(0)).peekable();
        if holding.peek().is_some() {
            f.write_str("\n")?;
        }
        holding.try_for_each(|row| write_old(f, row))?;
        let without = |slot: &&SlotRow| slot.state != "filled";
        if self.slots.iter().any(|slot| without(&slot)) {
            f.write_str("\n")?;
        }
        for slot in self.slots.iter().filter(without) {
            writeln!(f, "slot {} {}", slot.slot, slot.reason())?;
        }
        if !self.reloads.is_empty() {
            f.write_str("\n")?;
        }
        self.reloads.iter().try_for_each(|reload| write_reload(f, reload))
    }
}

impl fmt::Display for PrimaryRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "primary {}, up {}, {} open descriptors, {} KiB resident",
            self.pid,
            duration(self.uptime_s),
            self.open_fds,
            self.rss_kb
        )?;
        writeln!(
            f,
            "connections: {} pending, {} in flight, {} accepted, {} redispatched, {} declined, \
             {} refused, {} unknown",
            self.pending,
            self.in_flight,
            self.accepted_total,
            self.redispatched_total,
            self.declined_total,
            self.refused_total,
            self.unknown_total
        )?;
        if self.paused {
            writeln!(f, "paused: nothing is accepted or handed out (resume ends that)")?;
        }
        if self.stopping {
            writeln!(f, "stopping")?;
        }
        // A stall is a fault that should never happen, so a count of zero is left out.
        match self.stalled_total {
            0 => Ok(()),
            stalled => {
                writeln!(f, "stalled: {stalled} times a connection waited while a worker was idle")
            }
        }
    }
}

/// What a generation still holds that has a successor.
fn write_old(f: &mut fmt::Formatter<'_>, row: &GenerationRow) -> fmt::Result {
    let count: u64 = row.workers.values().sum();
    let states = row.workers.iter().map(|(state, count)| format!("{count} {}", printable(state)));
    let states = states.collect::<Vec<_>>().join(", ");
    let s = if count == 1 { "" } else { "s" };
    write!(f, "generation {} (old): {count} worker{s} ({states}), ", row.generation)?;
    match row.open {
        Some(1) => write!(f, "1 connection open")?,
        Some(open) => write!(f, "{open} connections open")?,
        None => write!(f, "unknown how many connections open")?,
    }
    match row.in_flight {
        0 => f.write_str("\n"),
        in_flight => writeln!(f, ", {in_flight} in flight"),
    }
}

impl SlotRow {
    /// What a slot without a worker waits for, to follow its name.
    pub fn reason(&self) -> String {
        let mut text = match self.state.as_str() {
            "empty" => "is about to get a worker".to_owned(),
            "waiting" => "waits after a failure".to_owned(),
            "awaits_process_end" => "waits until a process has ended".to_owned(),
            "given_up" => "is given up: its workers failed too often".to_owned(),
            "ended" => "has no worker any more: it ended".to_owned(),
            other => printable(other),
        };
        if let Some(ms) = self.next_in_ms {
            text += &format!("; the next worker starts in {}", duration(ms.div_ceil(1000)));
        }
        if let Some(last) = &self.last_exit {
            text += &format!("; its last worker: {}", printable(last));
        }
        text
    }
}

fn write_reload(f: &mut fmt::Formatter<'_>, reload: &ReloadRow) -> fmt::Result {
    write!(f, "reload {} ago", duration(reload.ago_s))?;
    if let Some(generation) = reload.generation {
        write!(f, ", generation {generation}")?;
    }
    write!(f, ": {}", printable(&reload.result))?;
    if let Some(ms) = reload.took_ms.filter(|ms| *ms > 0) {
        write!(f, " after {:.1}s", ms as f64 / 1000.0)?;
    }
    if let Some(cause) = &reload.cause {
        write!(f, ": {}", printable(cause))?;
    }
    f.write_str("\n")
}

/// A heading, and whether the column holds numbers, which are aligned to the right.
type Column = (&'static str, bool);

const LISTENER_COLUMNS: [Column; 4] =
    [("LISTENER", false), ("POLICY", false), ("PENDING", true), ("ACCEPTING", false)];

fn listener_cells(row: &ListenerRow) -> [String; 4] {
    let policy = Policy::ALL.into_iter().find(|policy| policy.name() == row.policy);
    let accepting = match (row.accepting, policy.is_some_and(Policy::workers_accept)) {
        (true, _) => "yes",
        (false, true) => "workers",
        (false, false) => "no",
    };
    [printable(&row.address), printable(&row.policy), row.pending.to_string(), accepting.into()]
}

const WORKER_COLUMNS: [Column; 15] = [
    ("WORKER", true),
    ("SLOT", true),
    ("PID", true),
    ("GENERATION", true),
    ("STATE", false),
    ("CODEC", false),
    ("IN FLIGHT", true),
    ("OPEN", true),
    ("ACCEPTED", true),
    ("DECLINED", true),
    ("RESTARTS", true),
    ("UPTIME", true),
    ("CPU", true),
    ("MEMORY", true),
    ("LAST EXIT", false),
];

fn worker_cells(row: &WorkerRow) -> [String; 15] {
    let or_dash = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
    [
        row.id.to_string(),
        row.slot.to_string(),
        row.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
        row.generation.to_string(),
        printable(&row.state),
        or_dash(&row.codec),
        row.in_flight.to_string(),
        row.open.map_or_else(|| "-".into(), |open| open.to_string()),
        row.accepted.to_string(),
        row.declined.to_string(),
        row.restarts.to_string(),
        duration(row.uptime_s),
        row.cpu_ms.map_or_else(|| "-".into(), |ms| format!("{:.1}s", ms as f64 / 1000.0)),
        row.rss_kb.map_or_else(|| "-".into(), |kb| format!("{} MiB", kb.div_ceil(1024))),
        or_dash(&row.last_exit),
    ]
}

/// The greatest width of a cell with text.
const MAX_CELL: usize = 160;

/// What may be shown of a text in a cell: a path may hold anything, even a line break or an escape
/// sequence of the terminal.
pub fn printable(text: &str) -> String {
    text::cut(text::printable(text), MAX_CELL)
}

/// Whole seconds in their two largest units: `42s`, `3m 07s`, `2h 05m`, `12d 03h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => format!("{minutes}m {:02}s", seconds % 60),
        () if days == 0 => format!("{hours}h {:02}m", minutes % 60),
        () => format!("{days}d {:02}h", hours % 24),
    }
}

fn write_table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    columns: &[Column; N],
    rows: impl Iterator<Item = [String; N]>,
) -> fmt::Result {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let lines: Vec<[String; N]> = std::iter::once(headings).chain(rows).collect();
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        let mut text = String::new();
        for ((cell, width), (_, right)) in line.iter().zip(widths).zip(columns) {
            let padded = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            text.push_str(&padded);
            text.push_str("  ");
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: u64) -> WorkerRow {
        WorkerRow {
            id,
            slot: id as u32 - 1,
            pid: Some(4_000 + id as i32),
            generation: 1,
            state: "ready".into(),
            codec: Some("native".into()),
            accepted: id * 1_000,
            uptime_s: id * 61,
            ..WorkerRow::default()
        }
    }

    fn status(workers: u64) -> Status {
        Status {
            primary: PrimaryRow { pid: 4_000, uptime_s: 3_725, ..PrimaryRow::default() },
            listeners: vec![ListenerRow {
                address: "127.0.0.1:8080".into(),
                policy: "round-robin".into(),
                pending: 12,
                accepting: true,
                accept_queue: Some(3),
            }],
            workers: (1..=workers).map(worker).collect(),
            ..Status::default()
        }
    }

    #[test]
    fn a_small_cluster() {
        let mut status = status(2);
        status.workers[1].last_exit = Some("killed (signal 9)".into());
        status.workers[0].pid = None;
        status.workers[0].codec = None;
        status.workers[0].state = "starting".into();
        (status.workers[1].cpu_ms, status.workers[1].rss_kb) = (Some(1_250), Some(2_049));
        status.workers[1].open = Some(12);
        (status.primary.paused, status.primary.stopping) = (true, true);
        status.slots.push(SlotRow { state: "filled".into(), ..SlotRow::default() });
        let (state, next_in_ms) = ("given_up".into(), Some(47_001));
        let last_exit = Some("crashed (code 1)".into());
        status.slots.push(SlotRow { slot: 2, state, next_in_ms, last_exit, ..SlotRow::default() });
        let (result, took_ms) = ("done".to_owned(), Some(2_140));
        let generation = Some(2);
        let done = ReloadRow { generation, result, ago_s: 70, took_ms, ..ReloadRow::default() };
        status.reloads.push(done);
        let (result, cause) = ("failed".to_owned(), Some("c.toml:1: no\nsuch key".to_owned()));
        status.reloads.push(ReloadRow { result, cause, ..ReloadRow::default() });
        let expected = "\
primary 4000, up 1h 02m, 0 open descriptors, 0 KiB resident
connections: 0 pending, 0 in flight, 0 accepted, 0 redispatched, 0 declined, 0 refused, 0 unknown
paused: nothing is accepted or handed out (resume ends that)
stopping

LISTENER        POLICY       PENDING  ACCEPTING
127.0.0.1:8080  round-robin       12  yes

WORKER  SLOT   PID  GENERATION  STATE     CODEC   IN FLIGHT  OPEN  ACCEPTED  DECLINED  RESTARTS  UPTIME   CPU  MEMORY  LAST EXIT
     1     0     -           1  starting  -               0     -      1000         0         0  1m 01s     -       -  -
     2     1  4002           1  ready     native          0    12      2000         0         0  2m 02s  1.2s   3 MiB  killed (signal 9)

slot 2 is given up: its workers failed too often; the next worker starts in 48s; its last worker: crashed (code 1)

reload 1m 10s ago, generation 2: done after 2.1s
reload 0s ago: failed: c.toml:1: no\\nsuch key
";
        assert_eq!(status.to_string(), expected);
    }

    #[test]
    fn old_generations_show_what_they_hold() {
        let mut status = status(0);
        let row = |generation, states: &[(&str, u64)], in_flight, open| GenerationRow {
            generation,
            workers: states.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            in_flight,
            open,
        };
        status.generations = vec![
            row(2, &[("draining", 1)], 0, None),
            row(3, &[("draining", 2), ("leaving", 1)], 1, Some(17)),
            row(4, &[("leaving", 1)], 0, Some(0)),
            row(5, &[("draining", 1)], 0, Some(1)),
            row(6, &[("ready", 4)], 2, Some(40)),
        ];
        let expected = "
no workers

generation 2 (old): 1 worker (1 draining), unknown how many connections open
generation 3 (old): 3 workers (2 draining, 1 leaving), 17 connections open, 1 in flight
generation 5 (old): 1 worker (1 draining), 1 connection open
";
        assert!(status.to_string().ends_with(expected), "{status}");
    }

    #[test]
    fn the_accepting_side_is_shown() {
        let mut status = status(0);
        status.listeners[0].accepting = false;
        let mut shared = status.listeners[0].clone();
        (shared.address, shared.policy, shared.pending) = ("[::1]:80".into(), "shared".into(), 0);
        status.listeners.push(shared);
        let expected = "
LISTENER        POLICY       PENDING  ACCEPTING
127.0.0.1:8080  round-robin       12  no
[::1]:80        shared             0  workers
";
        assert!(status.to_string().contains(expected), "{status}");
    }

    #[test]
    fn empty_tables() {
        let status = Status::default().to_string();
        assert!(status.ends_with("\nno listeners\n\nno workers\n"), "{status}");
    }

    #[test]
    fn many_workers_stay_aligned() {
        let text = status(64).to_string();
        let table: Vec<&str> =
            text.lines().skip_while(|line| !line.starts_with("WORKER")).collect();
        assert_eq!(table.len(), 65);
        let state = table[0].find("STATE").unwrap();
        assert!(table[1..].iter().all(|line| line[state..].starts_with("ready ")), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let mut status = status(0);
        status.listeners[0].address = "unix:/tmp/a\n\x1b[31mb é".into();
        let text = status.to_string();
        assert!(text.contains(r"unix:/tmp/a\n\u{1b}[31mb é"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn durations() {
        let shown = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 1_047_600].map(duration);
        assert_eq!(
            shown,
            ["0s", "59s", "1m 00s", "59m 59s", "1h 00m", "23h 59m", "1d 00h", "12d 03h"]
        );
    }
}
