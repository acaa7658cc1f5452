//! One line for a command line that can't be understood.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The option or argument, its value and the cause; never more than one line.
pub(super) fn complaint(error: &clap::Error) -> String {
    let option = text(error, ContextKind::InvalidArg).unwrap_or_default();
    // Clap appends the name of the value: `--window <N>`.
    let name = option.split(' ').next().unwrap_or_default();
    let line = match error.kind() {
        ErrorKind::ValueValidation => {
            let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
            let cause = text(error, ContextKind::Custom).unwrap_or("is not valid");
            format!("{name}: {value} {cause}")
        }
        ErrorKind::InvalidValue => format!("{name}: a value is missing"),
        ErrorKind::UnknownArgument => unknown(error, option),
        ErrorKind::ArgumentConflict => format!("{name}: given more than once"),
        ErrorKind::TooManyValues => format!("{name}: takes no value"),
        ErrorKind::InvalidSubcommand => {
            let command = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("{command:?} is not a command (see --help)")
        }
        ErrorKind::MissingSubcommand => "a command is missing (see --help)".into(),
        ErrorKind::MissingRequiredArgument => {
            let missing = text(error, ContextKind::InvalidArg).unwrap_or_default();
            format!("{} is missing (see --help)", missing.trim_matches(['<', '>']))
        }
        _ => error.to_string().trim_start_matches("error: ").to_owned(),
    };
    line.lines().next().unwrap_or_default().to_owned()
}

fn unknown(error: &clap::Error, argument: &str) -> String {
    let kind = if argument.starts_with('-') { "not an option" } else { "not expected here" };
    match text(error, ContextKind::SuggestedArg) {
        Some(similar) => format!("{argument:?} is {kind} (did you mean {similar}?)"),
        None => format!("{argument:?} is {kind} (see --help)"),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}
