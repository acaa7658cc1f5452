//! What happened in a run, for reading: a row an event, a column for the primary and one a slot.

use std::fmt;

use roundel_core::{Slot, Time, WorkerId};

/// How wide a column is.
const WIDTH: usize = 44;

/// Rows, in order.
#[derive(Debug, Default)]
pub struct Trace {
    rows: Vec<Row>,
    slots: u32,
}

#[derive(Debug)]
struct Row {
    at: Time,
    whose: Option<(WorkerId, Slot)>,
    what: String,
}

impl Trace {
    /// An empty trace with a column for each of so many slots.
    pub fn new(slots: u32) -> Trace {
        Trace { rows: Vec::new(), slots }
    }

    /// Adds a row: of a worker, or of the primary.
    pub fn add(&mut self, at: Time, whose: Option<(WorkerId, Slot)>, what: String) {
        self.rows.push(Row { at, whose, what });
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} | {:WIDTH$}", "ms", "primary")?;
        for slot in 0..self.slots {
            write!(f, " | {:WIDTH$}", format!("worker of slot {slot}"))?;
        }
        for row in &self.rows {
            let ms = row.at.as_nanos() as f64 / 1e6;
            write!(f, "\n{ms:>12.3} | ")?;
            match row.whose {
                None => write!(f, "{}", row.what)?,
                Some((worker, slot)) => {
                    write!(f, "{:WIDTH$}", "")?;
                    for _ in 0..slot.0 {
                        write!(f, " | {:WIDTH$}", "")?;
                    }
                    write!(f, " | {worker} {}", row.what)?;
                }
            }
        }
        Ok(())
    }
}
