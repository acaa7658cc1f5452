//! What the docs say of the code is what the code says.

use roundel_core::Event;
use roundel_tests::sim::variants::names;

#[test]
fn the_life_diagram_is_printed_from_the_table() {
    let page = include_str!("../ARCHITECTURE.md");
    let block = page.split("<!-- life diagram -->\n```mermaid\n").nth(1).expect("a diagram");
    let block = block.split("```").next().expect("its end");
    assert_eq!(block, roundel_core::life_diagram(), "print it anew from `life_diagram()`");
}

/// Events of the core by the names of their variants, and those that the driver adds.
#[test]
fn the_page_of_events_names_every_event() {
    let rows = include_str!("../docs/events.md").lines().filter(|line| line.starts_with("| `"));
    let named: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
    let of_core = names::<Event>().iter().map(|name| match *name {
        // The wire's word stays in the log.
        "Failing" => "suicide".to_owned(),
        name => snake_case(name),
    });
    let of_driver = ["handed_off", "accepted", "refused", "accept_failed", "journal_stopped"];
    let missing: Vec<String> = of_core
        .chain(of_driver.map(str::to_owned))
        .filter(|name| !named.iter().any(|cell| cell.contains(&format!("`{name}`"))))
        .collect();
    assert_eq!(missing, [""; 0]);
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
