//! The table of the end-to-end scenarios, made from what the test harness prints.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// The columns: a primary and its workers, as the ends of the tests' names have them.
const COLUMNS: [(&str, &str); 6] = [
    ("roundel::mio", "roundel mio"),
    ("roundel::smol", "roundel smol"),
    ("roundel::node", "roundel node"),
    ("roundel_smol::mio", "roundel-smol mio"),
    ("roundel_smol::smol", "roundel-smol smol"),
    ("roundel_smol::node", "roundel-smol node"),
];

/// Ends the name of a scenario that has two listeners. It runs so on some columns only.
const TWICE: &str = "::two";

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Ok,
    Failed,
    /// It does not run, for this reason.
    Not(String),
    /// It would have run, but something is missing on this machine.
    Skipped(String),
}

/// What one run of the end-to-end tests came to.
#[derive(Debug, Default)]
pub struct Table {
    /// By scenario and column.
    rows: BTreeMap<String, BTreeMap<usize, Cell>>,
    /// Tests that are no cells, each with its result.
    others: BTreeMap<String, String>,
    is_filtered: bool,
    has_ended: bool,
}

impl Table {
    /// Reads what `cargo test` printed, both of its streams. `skipped` says why a test that passed
    /// was skipped, if it was.
    pub fn read(printed: &str, skipped: impl Fn(&str) -> Option<String>) -> Table {
        let mut table = Table::default();
        let mut is_ours = false;
        for line in printed.lines() {
            if let Some((_, rest)) = line.split_once("Running ") {
                is_ours =
                    rest.split([' ', '(']).next().is_some_and(|it| it.ends_with("e2e/main.rs"));
            } else if line.contains("Doc-tests ") {
                is_ours = false;
            } else if !is_ours {
                continue;
            } else if let Some(summary) = line.strip_prefix("test result: ") {
                table.has_ended = true;
                table.is_filtered = !summary.contains(" 0 filtered out");
            } else if let Some((name, result)) =
                line.strip_prefix("test ").and_then(|it| it.split_once(" ... "))
            {
                table.add(name, result, skipped(name));
            }
        }
        table
    }

    fn add(&mut self, name: &str, result: &str, skipped: Option<String>) {
        // With a reason, the harness repeats it behind the name.
        let name = name.split(' ').next().unwrap_or(name);
        let column = COLUMNS.iter().position(|(end, _)| name.ends_with(&format!("::{end}")));
        let Some((column, (end, _))) = column.and_then(|it| Some((it, COLUMNS.get(it)?))) else {
            self.others.insert(name.to_owned(), result.to_owned());
            return;
        };
        let cell = match (result.split_once(", "), skipped) {
            (Some(("ignored", why)), _) => Cell::Not(why.to_owned()),
            (None, Some(why)) if result == "ok" => Cell::Skipped(why),
            (None, None) if result == "ok" => Cell::Ok,
            _ => Cell::Failed,
        };
        let scenario = name[..name.len() - end.len() - 2].to_owned();
        self.rows.entry(scenario).or_default().insert(column, cell);
    }

    /// A cell that was skipped for this reason, if there is one.
    pub fn skipped_for(&self, reason: &str) -> Option<&str> {
        let is_it = |cell: &Cell| matches!(cell, Cell::Skipped(why) if why == reason);
        let found = self.rows.iter().find(|(_, cells)| cells.values().any(is_it));
        found.map(|(scenario, _)| scenario.as_str())
    }

    /// Why this is no table of a good and whole run, if it is none.
    pub fn fault(&self) -> Option<String> {
        if self.rows.is_empty() {
            return Some("no scenario has run".into());
        }
        if !self.has_ended {
            return Some("the run was cut short".into());
        }
        let failed = |cells: &BTreeMap<usize, Cell>| cells.values().any(|it| *it == Cell::Failed);
        if let Some((scenario, _)) = self.rows.iter().find(|(_, cells)| failed(cells)) {
            return Some(format!("{scenario} has failed"));
        }
        if self.is_filtered {
            return None;
        }
        let whole = |cells: &BTreeMap<usize, Cell>| cells.len() == COLUMNS.len();
        let gap = self.rows.iter().find(|(name, cells)| !name.ends_with(TWICE) && !whole(cells));
        if let Some((scenario, _)) = gap {
            return Some(format!("{scenario} has not run everywhere, and gives no reason"));
        }
        self.missing_with_two()
    }

    /// Each scenario has run with two listeners on a column, or gives a reason why not; and each
    /// column has run a third of those that have no reason.
    fn missing_with_two(&self) -> Option<String> {
        let runs = |cell: Option<&Cell>| cell.is_some_and(|it| !matches!(it, Cell::Not(_)));
        let mut counts = [(0, 0); COLUMNS.len()];
        for (scenario, cells) in self.rows.iter().filter(|(name, _)| !name.ends_with(TWICE)) {
            let Some(twice) = self.rows.get(&format!("{scenario}{TWICE}")) else {
                return Some(format!("{scenario} has not run with two listeners: no reason"));
            };
            if !twice.values().any(|it| runs(Some(it))) {
                continue;
            }
            for (column, (all, with_two)) in counts.iter_mut().enumerate() {
                *all += usize::from(runs(cells.get(&column)));
                *with_two += usize::from(runs(twice.get(&column)));
            }
        }
        let too_few = counts.iter().position(|(all, with_two)| with_two * 3 < *all)?;
        let ((_, heading), (all, with_two)) = (COLUMNS.get(too_few)?, counts.get(too_few)?);
        Some(format!("{heading}: {with_two} of {all} scenarios have run with two listeners"))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0);
        let mut reasons: Vec<&str> = Vec::new();
        write!(f, "{:width$}", "scenario")?;
        for (_, heading) in COLUMNS {
            write!(f, " | {heading}")?;
        }
        writeln!(f)?;
        for (scenario, cells) in &self.rows {
            write!(f, "{scenario:width$}")?;
            for (column, (_, heading)) in COLUMNS.iter().enumerate() {
                let mut note = |why| {
                    let known = reasons.iter().position(|it| *it == why);
                    1 + known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    })
                };
                let word = match cells.get(&column) {
                    Some(Cell::Ok) => "ok".into(),
                    Some(Cell::Failed) => "FAILED".into(),
                    Some(Cell::Not(why)) => format!("- ({})", note(why)),
                    Some(Cell::Skipped(why)) => format!("skipped ({})", note(why)),
                    None if self.is_filtered || scenario.ends_with(TWICE) => String::new(),
                    None => "MISSING".into(),
                };
                let width = heading.len();
                write!(f, " | {word:width$}")?;
            }
            writeln!(f)?;
        }
        for (index, why) in reasons.iter().enumerate() {
            writeln!(f, "({}) {why}", index + 1)?;
        }
        for (name, result) in &self.others {
            writeln!(f, "beside the table: {name}: {result}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    fn run(lines: &[&str], summary: &str) -> String {
        let head = "     Running e2e/main.rs (target/debug/deps/e2e-0123)\n\nrunning 7 tests\n";
        format!("{head}{}\n\n{summary}\n", lines.join("\n"))
    }

    const WHOLE: [&str; 10] = [
        "test life::dies::two::roundel::mio ... ok",
        "test life::dies::two::roundel::smol ... ok",
        "test life::dies::two::roundel_smol::mio ... ok",
        "test life::dies::two::roundel_smol::smol ... ok",
        "test life::dies::roundel::mio ... ok",
        "test life::dies::roundel::smol ... ok",
        "test life::dies::roundel::node ... ignored, it never dies",
        "test life::dies::roundel_smol::mio ... ok",
        "test life::dies::roundel_smol::smol ... ok",
        "test life::dies::roundel_smol::node ... ignored, it never dies",
    ];
    const ENDED: &str =
        "test result: ok. 4 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out";

    fn read(printed: &str) -> Table {
        Table::read(printed, |_| None)
    }

    #[test]
    fn a_whole_run_is_shown_with_its_reasons() {
        let table = read(&run(&WHOLE, ENDED));
        assert_eq!(table.fault(), None);
        let text = table.to_string();
        assert!(text.contains("life::dies      | ok "), "{text}");
        assert!(text.contains("life::dies::two | ok "), "{text}");
        assert_eq!(text.matches("- (1)").count(), 2, "{text}");
        assert!(text.contains("\n(1) it never dies\n"), "{text}");
    }

    #[test]
    fn a_cell_that_is_missing_is_a_fault() {
        for gone in 4..WHOLE.len() {
            let mut lines = WHOLE.to_vec();
            lines.remove(gone);
            let table = read(&run(&lines, ENDED));
            assert!(table.fault().unwrap().contains("life::dies has not run everywhere"));
            assert!(table.to_string().contains("MISSING"));
            let filtered = ENDED.replace(" 0 filtered", " 1 filtered");
            assert_eq!(read(&run(&lines, &filtered)).fault(), None);
        }
    }

    #[test]
    fn so_is_a_scenario_that_never_had_two_listeners_or_a_column_that_hardly_had() {
        let table = read(&run(&WHOLE[4..], ENDED));
        assert!(table.fault().unwrap().contains("life::dies has not run with two"));
        let ignored = "test life::dies::two::roundel::mio ... ignored, it has two by itself";
        let table = read(&run(&[&[ignored], &WHOLE[4..]].concat(), ENDED));
        assert_eq!(table.fault(), None);
        let table = read(&run(&WHOLE[1..], ENDED));
        assert_eq!(
            table.fault().unwrap(),
            "roundel mio: 0 of 1 scenarios have run with two listeners"
        );
    }

    #[test]
    fn so_is_one_that_failed_or_gives_no_reason() {
        for word in ["FAILED", "ignored"] {
            let mut lines = WHOLE.to_vec();
            let line = format!("test life::dies::roundel::smol ... {word}");
            lines[5] = &line;
            let table = read(&run(&lines, ENDED));
            assert!(table.fault().unwrap().contains("life::dies has failed"));
            assert!(table.to_string().contains("| FAILED"));
        }
    }

    #[test]
    fn so_is_a_run_that_was_cut_short_or_did_not_happen() {
        assert!(read(&run(&WHOLE, "")).fault().unwrap().contains("cut short"));
        assert!(read(&run(&[], ENDED)).fault().unwrap().contains("no scenario"));
        let other = run(&WHOLE, ENDED).replace("e2e/main.rs", "prop/main.rs");
        assert!(read(&other).fault().unwrap().contains("no scenario"));
    }

    #[test]
    fn skipped_tests_are_not_reported_as_ok() {
        let why = |name: &str| name.ends_with("roundel::mio").then(|| "no teeth".to_owned());
        let table = Table::read(&run(&WHOLE, ENDED), why);
        assert_eq!(table.fault(), None);
        assert!(table.to_string().contains("life::dies      | skipped (1)"), "{table}");
        assert_eq!(table.skipped_for("no teeth"), Some("life::dies"));
        assert_eq!(table.skipped_for("no nose"), None);
    }

    #[test]
    fn tests_that_are_no_cells_are_named() {
        let lines = [&WHOLE[..], &["test cli::says_the_same ... ok"]].concat();
        let table = read(&run(&lines, ENDED));
        assert!(table.to_string().ends_with("beside the table: cli::says_the_same: ok\n"));
    }
}
