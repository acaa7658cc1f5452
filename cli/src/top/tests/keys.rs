use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use roundel_runtime::observe::control::Progress;

use super::super::orders::Order;
use super::super::state::Sort;
use super::super::view::{Said, Step, View};
use super::{status, usual, view, worker};

fn press(view: &mut View, now: Instant, code: KeyCode) -> Step {
    view.on_key(KeyEvent::new(code, KeyModifiers::NONE), now)
}

fn usual_view() -> (View, Instant) {
    let (before, after) = usual();
    view(&before, &after)
}

#[test]
fn keys_that_leave() {
    let (mut view, now) = usual_view();
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut view, now, code), Step::Quit);
    }
    for (key, step) in [('c', Step::Quit), ('z', Step::Suspend), ('q', Step::Stay)] {
        let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
        assert_eq!(view.on_key(key, now), step);
    }
}

#[test]
fn what_takes_something_away_is_asked_first() {
    for (key, order) in [('r', Order::Reload), ('-', Order::Fewer), ('p', Order::Pause)] {
        let (mut view, now) = usual_view();
        assert_eq!(press(&mut view, now, KeyCode::Char(key)), Step::Stay);
        assert_eq!(view.asked, Some(order));
        // Esc is a no here; and a no has no other effect.
        for no in [KeyCode::Esc, KeyCode::Char('q'), KeyCode::Char(key)] {
            view.asked = Some(order);
            assert_eq!((press(&mut view, now, no), view.asked), (Step::Stay, None));
        }
        view.asked = Some(order);
        assert_eq!(press(&mut view, now, KeyCode::Char('y')), Step::CarryOut(order));
        assert_eq!(view.asked, None);
    }
    let (mut view, now) = usual_view();
    assert_eq!(press(&mut view, now, KeyCode::Char('+')), Step::CarryOut(Order::More));
}

#[test]
fn a_pause_is_ended_by_the_same_key() {
    let (before, mut after) = usual();
    after["primary"]["paused"] = true.into();
    let (mut view, now) = view(&before, &after);
    press(&mut view, now, KeyCode::Char('p'));
    assert_eq!(press(&mut view, now, KeyCode::Char('y')), Step::CarryOut(Order::Resume));
}

#[test]
fn an_order_is_told_of_until_some_time_after_its_end() {
    let (mut view, now) = usual_view();
    press(&mut view, now, KeyCode::Char('+'));
    assert_eq!(view.message(now), Some(("scale: asked", false)));
    let progress = Progress { ready: 2, wanted: 3 };
    view.on_said(Order::More, Said::Progress(progress), now);
    let later = now + Duration::from_secs(3_600);
    assert_eq!(view.message(later), Some(("scale: 2/3 ready", false)));
    view.on_said(Order::More, Said::End(Err("the primary says: \"no\"".into())), later);
    assert_eq!(view.message(later), Some(("scale: the primary says: \"no\"", true)));
    assert_eq!(view.message(later + Duration::from_secs(11)), None);
}

#[test]
fn one_reload_or_scale_at_a_time() {
    let (mut view, now) = usual_view();
    press(&mut view, now, KeyCode::Char('r'));
    assert_eq!(press(&mut view, now, KeyCode::Char('y')), Step::CarryOut(Order::Reload));
    assert_eq!(press(&mut view, now, KeyCode::Char('+')), Step::Stay);
    assert_eq!(view.message(now), Some(("scale: waits for the end of reload", true)));
    // A pause is at once, and does not end what goes on.
    press(&mut view, now, KeyCode::Char('p'));
    assert_eq!(press(&mut view, now, KeyCode::Char('y')), Step::CarryOut(Order::Pause));
    view.on_said(Order::Pause, Said::End(Ok("nothing is accepted".into())), now);
    assert_eq!(press(&mut view, now, KeyCode::Char('+')), Step::Stay);
    view.on_said(Order::Reload, Said::End(Ok("generation 2 serves".into())), now);
    assert_eq!(view.message(now), Some(("reload: generation 2 serves", false)));
    assert_eq!(press(&mut view, now, KeyCode::Char('+')), Step::CarryOut(Order::More));
}

#[test]
fn scrolling_ends_at_both_ends() {
    let status = status((1..=64).map(|id| worker(id, 0)).collect());
    let (mut view, now) = view(&status, &status);
    view.page = 10;
    let mut go = |code| {
        press(&mut view, now, code);
        view.above
    };
    assert_eq!(go(KeyCode::Up), 0);
    assert_eq!(go(KeyCode::Down), 1);
    assert_eq!(go(KeyCode::PageDown), 11);
    assert_eq!(go(KeyCode::End), 54);
    assert_eq!(go(KeyCode::Down), 54);
    assert_eq!(go(KeyCode::PageUp), 44);
    assert_eq!(go(KeyCode::Home), 0);
}

#[test]
fn sorting_goes_round_and_help_ends_with_any_key() {
    let (mut view, now) = usual_view();
    let mut seen = vec![view.sort];
    loop {
        press(&mut view, now, KeyCode::Char('s'));
        if view.sort == Sort::Slot {
            break;
        }
        seen.push(view.sort);
    }
    assert_eq!(seen.len(), 7);
    press(&mut view, now, KeyCode::Char('?'));
    assert!(view.help);
    assert_eq!(press(&mut view, now, KeyCode::Char('r')), Step::Stay);
    assert!(!view.help && view.asked.is_none());
}

#[test]
fn silence_is_told_with_its_reason() {
    let (mut view, now) = usual_view();
    assert_eq!(view.silence(now + Duration::from_secs(2)), None);
    let later = now + Duration::from_millis(3_400);
    assert_eq!(view.silence(later).as_deref(), Some("no answer since 3 s"));
    view.on_trouble("the primary does not answer".into());
    let said = view.silence(later);
    assert_eq!(said.as_deref(), Some("no answer since 3 s: the primary does not answer"));
    view.on_answer(later, super::sample(&usual().1));
    assert_eq!(view.silence(later), None);
}
