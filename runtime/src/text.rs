//! Text on its way to people and from them.

#[cfg(feature = "observe")]
use std::fmt::Write;

/// A whole number of the command line or an address. Digits only: what `u32::from_str` takes beyond
/// them (`+5`) is more likely a mistake.
///
/// # Errors
/// What is wrong, to be read on after the text.
pub fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {min} to {max}")),
    }
}

/// What may be shown on a line of a terminal: line breaks, control characters (escape sequences
/// begin with one) and invisible ones that turn text around are written as `\n` and `\u{1b}`.
#[cfg(feature = "observe")]
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // What else `escape_debug` would do is for source code.
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// At most about `max` bytes of a text; what was left out is told by its length.
#[cfg(feature = "observe")]
pub(crate) fn cut(mut text: String, max: usize) -> String {
    let len = text.len();
    if len > max {
        let is_end = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=max).rev().find(is_end).unwrap_or(0));
        // Writing to a string does not fail.
        let _ = write!(text, "... ({len} bytes)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(
            printable("unix:/tmp/a\n\x1b[31mb é\u{9b}2J"),
            r"unix:/tmp/a\n\u{1b}[31mb é\u{9b}2J"
        );
        assert_eq!(printable("a\u{202e}b\u{2028}c\r\t\0"), r"a\u{202e}b\u{2028}c\r\t\0");
        assert_eq!(printable(r#"cannot open "it's \here""#), r#"cannot open "it's \here""#);
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abcd".into(), 3), "abc... (4 bytes)");
        assert_eq!(cut("aéé".into(), 2), "a... (5 bytes)");
    }
}
