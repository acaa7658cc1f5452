//! Text that people read or write.

#[cfg(feature = "observe")]
use std::fmt::Write;

/// Parses a whole number of the command line or of an address. Only digits are taken: anything else
/// that `u32::from_str` accepts (`+5`) is more likely a mistake.
///
/// # Errors
/// What is wrong, worded to follow the text.
pub fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {min} to {max}")),
    }
}

/// The error of a system call: in words, as strerror(3) has them, and its number.
pub fn errno(errno: roundel_core::Errno) -> String {
    format!("{} ({})", nix::errno::Errno::from_raw(errno.0).desc(), errno.0)
}

/// Escapes what may not reach a terminal: line breaks, control characters (escape sequences begin
/// with one) and invisible ones that reverse text are written like `\n` and `\u{1b}`.
#[cfg(feature = "observe")]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // `escape_debug` also escapes these three, which only source code needs.
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Cuts a text to about `max` bytes; the full length is appended if something was cut.
#[cfg(feature = "observe")]
pub fn cut(mut text: String, max: usize) -> String {
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
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abcd".into(), 3), "abc... (4 bytes)");
        assert_eq!(cut("aéé".into(), 2), "a... (5 bytes)");
    }
}
