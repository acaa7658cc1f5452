use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::super::draw::draw;
use super::super::orders::Order;
use super::super::view::View;
use super::{status, usual, view, worker};

/// Draws twice, as the loop does: the foot says how many rows the first one had.
fn screen(view: &mut View, now: Instant, (width, height): (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    for _ in 0..2 {
        let mut page = 0;
        terminal.draw(|frame| page = draw(frame, view, now)).unwrap();
        view.page = page;
    }
    terminal.backend().clone()
}

/// The lines that are shown, without what is empty at their end.
fn lines(screen: &TestBackend) -> Vec<String> {
    let buffer = screen.buffer();
    let line = |row: &[ratatui::buffer::Cell]| -> String {
        row.iter().map(ratatui::buffer::Cell::symbol).collect()
    };
    let rows = buffer.content().chunks(buffer.area.width.max(1).into());
    rows.map(|row| line(row).trim_end().to_owned()).collect()
}

fn shown(before: &Value, after: &Value, size: (u16, u16)) -> Vec<String> {
    let (mut view, now) = view(before, after);
    lines(&screen(&mut view, now, size))
}

#[test]
fn a_usual_screen() {
    let (before, after) = usual();
    let heading = "SLOT    PID  STATE     GEN  CONN/S  IN FLIGHT  OPEN   CPU%   MEMORY  RESTARTS  ";
    let first = "   0   4712  ready       1     120          1     -   25.5   20 MiB         0  ";
    let second = "   1   4713  ready       1      30          2     7    0.0   20 MiB         0  ";
    // The past has two seconds a character here.
    let lines = [
        "primary 4711  generation 1  up 1h 02m  round-robin",
        "2/2 ready  150 conn/s  2 pending  3 in flight  1 refused",
        "",
        "",
        "LISTENER        PENDING  QUEUE",
        "127.0.0.1:8080        2      5",
        "",
        &format!("{heading}{:<30}  LAST EXIT", "LAST 60 S"),
        &format!("{first}{:>30}  -", "█"),
        &format!("{second}{:>30}  -", "▃"),
        "",
        "",
        "",
        "q quit  ? help  r reload  + - scale  p pause  s sort: slot",
    ];
    assert_eq!(shown(&before, &after, (120, 14)), lines);
}

#[test]
fn the_least_screen() {
    let (before, after) = usual();
    assert_eq!(
        shown(&before, &after, (20, 5)),
        ["2/2 ready", "SLOT  STATE", "   0  ready", "   1  ready", "q quit  ? help",]
    );
}

#[test]
fn a_narrow_screen_has_the_columns_that_matter() {
    let (before, after) = usual();
    let lines = shown(&before, &after, (80, 12));
    assert_eq!(
        lines[7],
        "SLOT    PID  STATE     CONN/S  IN FLIGHT  OPEN   CPU%   MEMORY  LAST 60 S"
    );
    let row = "   0   4712  ready        120          1     -   25.5   20 MiB  ";
    assert_eq!(lines[8], format!("{row}{:>15}", "█"));
}

/// No size and no text makes it fail.
#[test]
fn every_size_is_drawn() {
    let (before, mut after) = usual();
    after["listeners"] = (0..9)
        .map(|n| {
            json!({"address": format!("unix:/tmp/\n{n}"), "policy": "a", "pending": 0,
            "accepting": true})
        })
        .collect();
    after["workers"][0]["last_exit"] = "é".repeat(200).into();
    after["workers"][0]["state"] = "a state of a newer primary".into();
    let (mut view, now) = view(&before, &after);
    for (width, height) in [(1, 1), (2, 3), (5, 40), (300, 1), (300, 100)]
        .into_iter()
        .chain((1..40).map(|size| (size * 4, size)))
    {
        for help in [false, true] {
            view.help = help;
            screen(&mut view, now, (width, height));
        }
    }
    view.help = false;
    let wide = lines(&screen(&mut view, now, (300, 100)));
    assert!(wide.iter().any(|line| line.starts_with(r"unix:/tmp/\n0 ")), "{wide:#?}");
}

#[test]
fn a_reload_that_goes_on() {
    let (before, mut after) = usual();
    after["workers"][1]["generation"] = 2.into();
    after["workers"].as_array_mut().unwrap().push(worker(3, 0));
    after["workers"][2]["slot"] = 1.into();
    after["workers"][2]["state"] = "draining".into();
    after["reloads"] = json!([{"generation": 2, "result": "running", "cause": null, "ago_s": 70,
        "took_ms": null}]);
    let lines = shown(&before, &after, (60, 13));
    assert_eq!(lines[2], "reload to generation 2: 1/2 ready after 1m 10s");
    assert_eq!(lines[9], "   1   4713  ready         30          2    0.0   20 MiB");
    assert_eq!(lines[10], "   1   4714  draining       0          3  100.0   20 MiB");
    // The same on a low screen: it is what the operator looks for.
    assert!(shown(&before, &after, (60, 6))[0].starts_with("reload to generation 2"));
}

#[test]
fn a_reload_that_failed_and_a_pause() {
    let (before, mut after) = usual();
    after["primary"]["paused"] = true.into();
    after["reloads"] = json!([{"generation": null, "result": "failed",
        "cause": "c.toml:1: no\nsuch key", "ago_s": 4, "took_ms": 0}]);
    let lines = shown(&before, &after, (80, 12));
    assert_eq!(lines[2], r"paused  reload 4s ago failed: c.toml:1: no\nsuch key");
    assert!(lines[11].contains("p resume"), "{}", lines[11]);
}

#[test]
fn a_slot_that_was_given_up() {
    let (before, mut after) = usual();
    after["workers"].as_array_mut().unwrap().pop();
    let slot = |slot, state| {
        json!({"slot": slot, "state": state, "worker": null,
        "generation": 1, "restarts": 6, "last_exit": "crashed (code 1)", "next_in_ms": 47_001})
    };
    after["slots"] = json!([slot(0, "filled"), slot(1, "given_up")]);
    let lines = shown(&before, &after, (120, 12));
    assert_eq!(
        lines[9],
        "   1  is given up: its workers failed too often; the next worker starts in 48s; its last \
         worker: crashed (code 1)"
    );
}

#[test]
fn sixty_four_workers_are_scrolled() {
    let status = status((1..=64).map(|id| worker(id, 0)).collect());
    let (mut view, now) = view(&status, &status);
    let top = lines(&screen(&mut view, now, (100, 20)));
    assert!(top[8].starts_with("   0 ") && top[17].starts_with("   9 "), "{top:#?}");
    assert!(top[19].ends_with("rows 1-10 of 64"), "{}", top[19]);
    view.above = 54;
    let bottom = lines(&screen(&mut view, now, (100, 20)));
    assert!(bottom[17].starts_with("  63 ") && bottom[19].ends_with("rows 55-64 of 64"));
    // A larger screen has fewer rows above.
    let large = lines(&screen(&mut view, now, (100, 74)));
    assert!(large[8].starts_with("   0 "), "{large:#?}");
}

#[test]
fn a_question_takes_the_place_of_the_keys_on_a_low_screen() {
    let (before, after) = usual();
    let (mut view, now) = view(&before, &after);
    view.asked = Some(Order::Reload);
    let question = "reload: replace all workers? y: yes, any other key: no";
    assert_eq!(lines(&screen(&mut view, now, (60, 5)))[4], question);
    let high = lines(&screen(&mut view, now, (60, 12)));
    assert_eq!((high[10].as_str(), high[11].starts_with("q quit")), (question, true));
}

#[test]
fn a_silent_primary() {
    let (before, after) = usual();
    let (mut view, now) = view(&before, &after);
    let later = now + Duration::from_secs(5);
    assert_eq!(lines(&screen(&mut view, later, (60, 12)))[2], "no answer since 5 s");
    assert_eq!(lines(&screen(&mut view, later, (20, 5)))[0], "no answer since 5 s");
}

#[test]
fn colours_only_if_they_are_wanted() {
    let (before, after) = usual();
    let (mut view, now) = view(&before, &after);
    let later = now + Duration::from_secs(5);
    for colours in [false, true] {
        view.colours = colours;
        let screen = screen(&mut view, later, (120, 14));
        let cells = screen.buffer().content();
        let is_coloured = cells.iter().any(|it| (it.fg, it.bg) != (Color::Reset, Color::Reset));
        assert_eq!(is_coloured, colours);
    }
}
