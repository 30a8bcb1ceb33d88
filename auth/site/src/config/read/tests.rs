use serde::de::Visitor;
use serde::de::value::Error;
use serde::{Deserializer, forward_to_deserialize_any};

use super::super::key::{Key, Status};
use super::*;

/// Asks a type for the names of its fields: serde hands them to whoever deserializes a struct.
struct Fields<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields);
        Err(serde::de::Error::custom("only asked"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    assert!(T::deserialize(Fields(&mut names)).is_err());
    names.sort_unstable();
    names
}

fn built(table: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = keys()
        .iter()
        .filter(|key| key.table == table && key.status == Status::Built)
        .map(|key| key.name)
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn the_table_and_the_structs_have_the_same_keys() {
    let without = |tables: &[&str], mut names: Vec<&'static str>| {
        names.retain(|name| !tables.contains(name));
        names
    };
    assert_eq!(fields::<RawConfig>(), ["auth", "general", "sandbox"]);
    assert_eq!(fields::<RawGeneral>(), built("general"));
    assert_eq!(without(&["logging"], fields::<RawAuth>()), built("auth"));
    assert_eq!(fields::<RawLogging>(), built("auth.logging"));
    assert_eq!(fields::<RawSandbox>(), built("sandbox"));
    let tables: Vec<_> =
        keys().iter().filter(|key| key.status == Status::Built).map(|key| key.table).collect();
    assert!(tables.iter().all(|table| matches!(*table, "general" | "auth" | "auth.logging" | "sandbox")));
}

#[test]
fn no_key_stands_twice_in_the_table() {
    for (position, key) in keys().iter().enumerate() {
        let same = |other: &Key| (other.table, other.name) == (key.table, key.name);
        assert_eq!(keys().iter().position(same), Some(position), "{}", key.name);
    }
}
