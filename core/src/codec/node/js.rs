//! JSON values as JavaScript takes them: the messages of a Node worker have passed through
//! `JSON.stringify`, and Node's own primary reads them by JavaScript's conversions. Nothing here
//! fails; a value that is not a number is NaN.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The values of the fields with these names, in the order of the names; if a name comes twice, the
/// last value counts, as in JavaScript. `None` if this is not an object, or not JSON.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a str,
    names: &'static [&'static str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Fields(names).deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(found)
}

/// Whether this is one JSON value.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A string without its quotes and escapes; `None` for any other value.
///
/// Half of a surrogate pair, which a JavaScript string may hold, becomes the replacement
/// character, as when Node writes such a string as UTF-8.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_bytes(Text).ok()
}

/// `Number(value)`, but NaN for arrays and objects.
pub(crate) fn number(raw: &RawValue) -> f64 {
    match raw.get() {
        "null" | "false" => 0.0,
        "true" => 1.0,
        json if json.starts_with('"') => text(raw).map_or(f64::NAN, |text| number_of_string(&text)),
        json => json.parse().unwrap_or(f64::NAN),
    }
}

/// Whether `if (value)` holds.
pub(crate) fn is_truthy(raw: &RawValue) -> bool {
    match raw.get() {
        "null" | "false" | "\"\"" => false,
        json if json.starts_with(['"', '{', '[']) => true,
        _ => {
            let number = number(raw);
            number != 0.0 && !number.is_nan()
        }
    }
}

/// The number, if it is whole and within these bounds.
pub(crate) fn whole(number: f64, min: i64, max: i64) -> Option<i64> {
    let whole = number as i64;
    (whole as f64 == number && (min..=max).contains(&whole)).then_some(whole)
}

/// ToUint16 of the language: the fraction is dropped, and what is left wraps around.
pub(crate) fn to_u16(number: f64) -> u16 {
    // Beyond this JavaScript's numbers are multiples of 65,536, which wrap to 0.
    let exact = number > -9.0e18 && number < 9.0e18;
    if exact { (number as i64 & 0xFFFF) as u16 } else { 0 }
}

fn number_of_string(text: &str) -> f64 {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{FEFF}');
    let radix =
        |digits: &str, radix| u64::from_str_radix(digits, radix).map_or(f64::NAN, |n| n as f64);
    if let Some((prefix, digits)) = text.split_at_checked(2)
        && !digits.starts_with(['+', '-'])
    {
        match prefix {
            "0x" | "0X" => return radix(digits, 16),
            "0o" | "0O" => return radix(digits, 8),
            "0b" | "0B" => return radix(digits, 2),
            _ => {}
        }
    }
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // Rust also parses words as numbers.
        _ if text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) =>
        {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

struct Fields<const N: usize>(&'static [&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Fields<N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Fields<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(place) = map.next_key_seed(Place(self.0))? {
            let value = map.next_value()?;
            if let Some(field) = place.and_then(|place| found.get_mut(place)) {
                *field = Some(value);
            }
        }
        Ok(found)
    }
}

/// Finds a key among names. Keys are compared as bytes, since they may hold halves of surrogate
/// pairs.
struct Place(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Place {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(match core::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(without_surrogates(bytes)),
        })
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(without_surrogates(bytes)))
    }
}

/// UTF-8 in which surrogates are encoded as if they were characters.
fn without_surrogates(bytes: &[u8]) -> String {
    let mut fixed = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        match rest {
            [0xED, 0xA0..=0xBF, _, behind @ ..] => {
                fixed.extend_from_slice("\u{FFFD}".as_bytes());
                rest = behind;
            }
            _ => {
                fixed.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&fixed).into_owned()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    /// Each value is what `Number` of Node 24 says.
    #[test]
    fn numbers_are_those_of_javascript() {
        for (json, wanted) in [
            ("8080", 8080.0),
            ("8080.0", 8080.0),
            ("1e3", 1000.0),
            ("-0", 0.0),
            ("1e999", f64::INFINITY),
            ("\"8080\"", 8080.0),
            ("\" 8080\\n\"", 8080.0),
            ("\"\\ufeff8\"", 8.0),
            ("\"\"", 0.0),
            ("\"  \"", 0.0),
            ("\"0x1F90\"", 8080.0),
            ("\"0o17\"", 15.0),
            ("\"0b11\"", 3.0),
            ("\"1e4\"", 10_000.0),
            ("\".5\"", 0.5),
            ("\"5.\"", 5.0),
            ("\"+5\"", 5.0),
            ("\"-5\"", -5.0),
            ("\"Infinity\"", f64::INFINITY),
            ("\"-Infinity\"", f64::NEG_INFINITY),
            ("null", 0.0),
            ("false", 0.0),
            ("true", 1.0),
        ] {
            assert_eq!(number(raw(json)), wanted, "{json}");
        }
        for none in [
            "\"abc\"",
            "\"8080a\"",
            "\"-0x5\"",
            "\"0x-5\"",
            "\"0x\"",
            "\"inf\"",
            "\"nan\"",
            "\".\"",
            "\"1_000\"",
            "\"\\ud800\"",
            "{}",
            "[]",
            "[5,6]",
        ] {
            assert!(number(raw(none)).is_nan(), "{none}");
        }
    }

    #[test]
    fn numbers_wrap_around_like_those_of_javascript() {
        for (number, wanted) in [
            (0.0, 0),
            (65_535.0, 65_535),
            (65_536.0, 0),
            (-1.0, 65_535),
            (18_096.5, 18_096),
            (-1.5, 65_535),
            (f64::NAN, 0),
            (f64::INFINITY, 0),
            (1e300, 0),
            (-1e300, 0),
        ] {
            assert_eq!(to_u16(number), wanted, "{number}");
        }
    }

    #[test]
    fn javascript_truthiness() {
        for truthy in ["true", "1", "-1", "1e999", "\"0\"", "\"false\"", "{}", "[]"] {
            assert!(is_truthy(raw(truthy)), "{truthy}");
        }
        for falsy in ["false", "0", "-0", "0.0", "null", "\"\""] {
            assert!(!is_truthy(raw(falsy)), "{falsy}");
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_once() {
        for (json, wanted) in [
            (r#""plain""#, "plain"),
            (r#""\u00e9\ud83d\ude00""#, "é😀"),
            (r#""a\ud800b""#, "a\u{FFFD}b"),
            (r#""\udc00\ud800\ud800""#, "\u{FFFD}\u{FFFD}\u{FFFD}"),
        ] {
            assert_eq!(text(raw(json)).unwrap(), wanted);
        }
        assert_eq!(text(raw("5")), None);
        assert_eq!(text(raw("[1]")), None);
    }

    #[test]
    fn the_last_field_of_a_name_counts_and_odd_keys_do_no_harm() {
        let get = |json| {
            fields(json, &["a", "b"]).map(|found| found.map(|it| it.map(|it| it.get().to_string())))
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(get(r#"{"a":1,"\ud800":{},"\u0061":2}"#), Some([some("2"), None]));
        assert_eq!(get(r#" {"b":null} "#), Some([None, some("null")]));
        for none in ["[]", "1", "{", "{}{}", "", r#"{"a":}"#] {
            assert_eq!(get(none), None, "{none}");
        }
    }
}
