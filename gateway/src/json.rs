//! JSON that says each thing once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How the error begins where a name is there twice.
pub(crate) const TWICE: &str = "a field is there twice";

/// A value in which no object names a field twice. Readers differ in which of the two counts, so what somebody looked over may not be
/// what is done (RFC 8259, section 4).
pub(crate) struct Unambiguous(pub(crate) Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read).map(Self)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Unambiguous(value))) = fields.next_entry::<String, _>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_not_read_wherever_it_is() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"{"a": [{"b": {}, "b": null}]}"#, r#"{"a": 1, "\u0061": 2}"#] {
            let error = serde_json::from_str::<Unambiguous>(text).map(|read| read.0).unwrap_err();
            assert!(error.to_string().starts_with(TWICE), "{error}");
        }
        let text = r#"{"a": [1, -2, 0.5, "x", true, null, {"a": {}}], "b": 18446744073709551615}"#;
        let read: Value = serde_json::from_str::<Unambiguous>(text).unwrap().0;
        assert_eq!(read, serde_json::from_str::<Value>(text).unwrap());
    }
}
