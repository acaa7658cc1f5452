//! The survivors that `docs/mutation.md` explains.

use std::collections::BTreeMap;

/// Where survivors and the rows of the page differ. The rows are `| mutant | reason |`, the mutant
/// without its line and column, which other changes move.
pub fn difference<'a>(
    survivors: impl Iterator<Item = &'a str>,
    page: &str,
    is_whole: bool,
) -> Vec<String> {
    let mut counts = BTreeMap::<String, i32>::new();
    for name in survivors {
        *counts.entry(without_place(name)).or_default() += 1;
    }
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        if let Some((mutant, rest)) = row.split_once("` |") {
            let times = rest.trim().strip_prefix('×').and_then(|rest| rest.split(' ').next());
            let times = times.and_then(|n| n.parse().ok()).unwrap_or(1);
            *counts.entry(mutant.replace("\\|", "|")).or_default() -= times;
        }
    }
    counts
        .into_iter()
        .filter_map(|(mutant, count)| match count {
            1.. => Some(format!("survives without a reason, {count} times: {mutant}")),
            ..=-1 if is_whole => Some(format!("does not survive any more: {mutant}")),
            _ => None,
        })
        .collect()
}

/// `core/src/ready_queue.rs:44:21: replace < with <=` without the numbers.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    let file = parts.next().unwrap_or_default();
    let what = parts.nth(2).unwrap_or_default().trim_start();
    format!("{file}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_explains_a_survivor_wherever_it_stands() {
        let page = "| mutant | why |\n|---|---|\n| `a.rs: replace \\|\\| with &&` | |\n| `b.rs: x` | ×2 |\n";
        let found = |names: &[&str]| difference(names.iter().copied(), page, true);
        assert_eq!(found(&["a.rs:1:2: replace || with &&", "b.rs:3:4: x", "b.rs:5:6: x"]), [""; 0]);
        assert_eq!(
            found(&["b.rs:3:4: x", "b.rs:5:6: x", "c.rs:1:1: y"]),
            [
                "does not survive any more: a.rs: replace || with &&",
                "survives without a reason, 1 times: c.rs: y"
            ]
        );
    }
}
