//! The variants of an enum, as serde knows them: so that a count of what happened has a row for
//! what never did, and a new variant has one by itself.

use std::fmt;

use serde::de::{self, Deserialize, Visitor};
use serde::ser::{self, Impossible, Serialize};

/// The names of all variants.
pub fn names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    match T::deserialize(Names) {
        Err(Found::Names(names)) => names,
        Ok(_) | Err(_) => &[],
    }
}

/// The number of a value's variant.
pub fn index<T: Serialize>(value: &T) -> usize {
    match value.serialize(Index) {
        Err(Found::Index(index)) => index as usize,
        Ok(()) | Err(_) => usize::MAX,
    }
}

/// What was looked for, given back as an error so that nothing more is done.
#[derive(Debug)]
enum Found {
    Names(&'static [&'static str]),
    Index(u32),
    NoEnum,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Found {}

impl de::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Found::NoEnum
    }
}

impl ser::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Found::NoEnum
    }
}

struct Names;

impl<'de> de::Deserializer<'de> for Names {
    type Error = Found;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found::NoEnum)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Found> {
        Err(Found::Names(variants))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Index;

macro_rules! no_enum {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {
        $(fn $name(self, $(_: $type),*) -> Result<$result, Found> {
            Err(Found::NoEnum)
        })*
    };
}

impl ser::Serializer for Index {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Impossible<(), Found>;
    type SerializeTuple = Impossible<(), Found>;
    type SerializeTupleStruct = Impossible<(), Found>;
    type SerializeTupleVariant = Impossible<(), Found>;
    type SerializeMap = Impossible<(), Found>;
    type SerializeStruct = Impossible<(), Found>;
    type SerializeStructVariant = Impossible<(), Found>;

    no_enum! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Impossible<(), Found>;
        serialize_tuple(usize) -> Impossible<(), Found>;
        serialize_tuple_struct(&'static str, usize) -> Impossible<(), Found>;
        serialize_map(Option<usize>) -> Impossible<(), Found>;
        serialize_struct(&'static str, usize) -> Impossible<(), Found>;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Found> {
        Err(Found::NoEnum)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), Found> {
        Err(Found::NoEnum)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Found> {
        Err(Found::Index(index))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Found> {
        Err(Found::Index(index))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Found> {
        Err(Found::Index(index))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Found> {
        Err(Found::Index(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundel_core::{Command, Policy, Refusal, WorkerId};

    #[test]
    fn variants_have_names_and_numbers() {
        assert_eq!(names::<Policy>().len(), Policy::ALL.len());
        assert_eq!(names::<Command>(), ["Stop", "StopNow", "Ping", "Scale", "Pause", "Resume"]);
        let worker = WorkerId::from_raw(1).unwrap();
        assert_eq!(index(&Command::Ping(worker)), 2);
        assert_eq!(names::<Refusal>()[index(&Refusal::Closed)], "Closed");
        assert!(names::<u32>().is_empty());
        assert_eq!(index(&7), usize::MAX);
    }
}
