//! The API's JSON: a list object (`{"object": "list", "data": […]}`), an array, or one balance transaction after the other. Each is
//! taken as it is met; none is held.

use std::fmt;
use std::io::Read;

use fanledger_domain::stripe::read_balance_transaction;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{FileError, Stopped};
use crate::reconcile::Theirs;

/// Takes balance transactions as they are met.
struct Taker<'t> {
    take: &'t mut dyn FnMut(Theirs) -> bool,
    met: u64,
    has_enough: bool,
}

impl Taker<'_> {
    fn transaction<E: Error>(&mut self, value: &Value) -> Result<(), E> {
        self.met += 1;
        let transaction = read_balance_transaction(value)
            .map_err(|error| E::custom(format_args!("balance transaction number {}: {error}", self.met)))?;
        if (self.take)(Theirs::of_api(transaction, self.met)) {
            return Ok(());
        }
        self.has_enough = true;
        Err(E::custom("enough"))
    }
}

/// A whole document: a list of either form, or a balance transaction.
struct Document<'a, 't>(&'a mut Taker<'t>);
/// The items of a list.
struct Items<'a, 't>(&'a mut Taker<'t>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of balance transactions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        Items(self.0).visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut fields = Map::new();
        let mut is_list = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                map.next_value_seed(Items(&mut *self.0))?;
                is_list = true;
            } else {
                fields.insert(key, map.next_value()?);
            }
        }
        if is_list { Ok(()) } else { self.0.transaction(&Value::Object(fields)) }
    }
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of balance transactions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<Value>()? {
            self.0.transaction(&item)?;
        }
        Ok(())
    }
}

pub(super) fn read(file: impl Read, take: &mut dyn FnMut(Theirs) -> bool) -> Result<(), Stopped> {
    let mut taker = Taker { take, met: 0, has_enough: false };
    let mut documents = serde_json::Deserializer::from_reader(file);
    // Until nothing but white space is left.
    while documents.end().is_err() {
        if let Err(error) = (&mut documents).deserialize_any(Document(&mut taker)) {
            return Err(if taker.has_enough { Stopped::Taker } else { FileError::Json(error).into() });
        }
    }
    Ok(())
}
