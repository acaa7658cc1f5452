//! Colours, or none.

use ratatui::style::{Color, Modifier, Style};

pub(super) fn paint(colours: bool, colour: Color) -> Style {
    if colours { Style::new().fg(colour) } else { Style::new() }
}

/// What must be noticed, with and without colours.
pub(super) fn alarm(colours: bool) -> Style {
    paint(colours, Color::Red).add_modifier(Modifier::BOLD)
}

pub(super) fn notice(colours: bool) -> Style {
    paint(colours, Color::Yellow).add_modifier(Modifier::BOLD)
}
