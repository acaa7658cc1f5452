//! Equality of messages under a one-to-one renaming.

use std::collections::BTreeMap;

use serde_json::Value;

/// What is called what, of keys, numbers and ports.
#[derive(Debug, Default)]
pub(crate) struct Renaming {
    ours: BTreeMap<(String, String), Value>,
    captured: BTreeMap<(String, String), Value>,
}

/// The fields that are renamed. Numbers count for each channel by itself.
fn scope(field: &str, channel: &str) -> Option<String> {
    match field {
        "seq" => Some(format!("seq of {channel}")),
        "key" | "port" => Some(field.to_owned()),
        _ => None,
    }
}

impl Renaming {
    /// Whether two messages are the same.
    pub(crate) fn is_same(
        &mut self,
        channel: &str,
        captured: &Value,
        ours: &Value,
    ) -> Result<(), String> {
        let (Value::Object(left), Value::Object(right)) = (captured, ours) else {
            return if captured == ours {
                Ok(())
            } else {
                Err(format!("{captured} is not {ours}"))
            };
        };
        if !left.keys().eq(right.keys()) {
            return Err(format!("other fields: {captured} and {ours}"));
        }
        for ((field, captured), ours) in left.iter().zip(right.values()) {
            match scope(field, channel) {
                Some(scope) => self.rename(scope, captured, ours)?,
                // The program's own data have no names of ours in them.
                None if field == "data" && captured == ours => {}
                None => self.is_same(channel, captured, ours)?,
            }
        }
        Ok(())
    }

    fn rename(&mut self, scope: String, captured: &Value, ours: &Value) -> Result<(), String> {
        let there = (scope.clone(), captured.to_string());
        let back = (scope, ours.to_string());
        let known = self.ours.entry(there).or_insert_with(|| ours.clone());
        let origin = self.captured.entry(back).or_insert_with(|| captured.clone());
        if known == ours && origin == captured {
            Ok(())
        } else {
            Err(format!("{captured} is called {known}, not {ours}, which stands for {origin}"))
        }
    }

    /// What we call a captured thing; itself if it has no name yet.
    pub(crate) fn ours(&self, field: &str, channel: &str, captured: &Value) -> Value {
        let name = scope(field, channel).map(|scope| (scope, captured.to_string()));
        name.and_then(|name| self.ours.get(&name)).unwrap_or(captured).clone()
    }
}
