//! How a line becomes a request. What is wrong with one is said in the words of the documentation.

use serde_json::{Map, Value};

use super::Request;

/// The commands and their fields.
const COMMANDS: [(&str, &[(&str, Kind)]); 7] = [
    ("status", &[]),
    ("logs", &[("slot", Kind::Slot)]),
    ("reload", &[("dry_run", Kind::Flag)]),
    ("scale", &[("to", Kind::Count), ("by", Kind::Change)]),
    ("pause", &[]),
    ("resume", &[]),
    ("stop", &[]),
];

/// What a field must be.
#[derive(Clone, Copy)]
enum Kind {
    Slot,
    Count,
    Change,
    Flag,
}

impl Kind {
    fn takes(self, value: &Value) -> bool {
        match self {
            Kind::Flag => value.is_boolean(),
            Kind::Change => {
                value.is_null() || value.as_i64().is_some_and(|it| i32::try_from(it).is_ok())
            }
            Kind::Slot | Kind::Count => {
                value.is_null() || value.as_u64().is_some_and(|it| u32::try_from(it).is_ok())
            }
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Flag => "true or false",
            Kind::Change => "a whole number, such as 1 or -1",
            Kind::Count => "a number of workers, such as 4",
            Kind::Slot => "the number of a slot, such as 0",
        }
    }
}

/// Reads a line. Fields that are not known are skipped.
///
/// # Errors
/// What is wrong, worded to follow "not a request".
pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| match error.column() {
        0 => "it is not JSON".to_owned(),
        at => format!("it is not JSON (byte {at})"),
    })?;
    let Value::Object(fields) = &value else { return Err("it is not a JSON object".into()) };
    check(fields)?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn check(fields: &Map<String, Value>) -> Result<(), String> {
    let command = fields.get("command").and_then(Value::as_str);
    let known = COMMANDS.iter().find(|(name, _)| Some(*name) == command);
    let Some((_, kinds)) = known else {
        let names: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
        return Err(format!("the field \"command\" must be one of {}", names.join(", ")));
    };
    for (name, kind) in *kinds {
        if fields.get(*name).is_some_and(|value| !kind.takes(value)) {
            return Err(format!("the field {name:?} must be {}", kind.words()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_terms_of_the_parser() {
        let command = "the field \"command\" must be one of status, logs, reload, scale, pause, \
                       resume, stop";
        for (line, cause) in [
            ("", "it is not JSON"),
            ("{\"command\":", "it is not JSON (byte 11)"),
            ("[\"status\"]", "it is not a JSON object"),
            ("{}", command),
            ("{\"command\":1}", command),
            ("{\"command\":\"x\"}", command),
            (
                "{\"command\":\"logs\",\"slot\":-1}",
                "the field \"slot\" must be the number of a slot, such as 0",
            ),
            (
                "{\"command\":\"reload\",\"dry_run\":null}",
                "the field \"dry_run\" must be true or false",
            ),
            (
                "{\"command\":\"scale\",\"to\":\"4\"}",
                "the field \"to\" must be a number of workers, such as 4",
            ),
            (
                "{\"command\":\"scale\",\"by\":9999999999}",
                "the field \"by\" must be a whole number, such as 1 or -1",
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(cause.to_owned()), "{line}");
        }
    }

    #[test]
    fn every_request_is_known() {
        for request in [
            Request::Status,
            Request::Logs { slot: None },
            Request::Logs { slot: Some(2) },
            Request::Reload { dry_run: true },
            Request::Scale { to: Some(4), by: None },
            Request::Scale { to: None, by: Some(-1) },
            Request::Pause,
            Request::Resume,
            Request::Stop,
        ] {
            assert_eq!(parse(&serde_json::to_vec(&request).unwrap()), Ok(request));
        }
        let newer = b"{\"command\":\"logs\",\"of\":[1]}";
        assert_eq!(parse(newer), Ok(Request::Logs { slot: None }));
    }
}
