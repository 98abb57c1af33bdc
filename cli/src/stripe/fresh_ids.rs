//! Fresh ids for histories whose ids were used before, or were blanked so that they name everything at once.
//!
//! One id becomes one fresh id, derived from the seed, wherever it stands in any of the files. Blanked histories use one
//! id for many things (`ch_000…` for each charge), so an object is known by its id, type, amount and currency: objects
//! that share an id and differ in one of those become different objects. Where a bare id could then mean several of
//! them, it means the one whose type fits the field, that stands in the same event, and whose amount is one of the
//! referring object's; the first of those in a fixed order decides what is left. An event is known by its id and its
//! whole content, so that two files with one event id are two events and one file sent twice is a duplicate.
//!
//! Metadata is ours and stays as it is, as do ids that people chose (`gold`), which have no underscore.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Fields that hold the id of another object, whatever it looks like.
const REFERENCE_FIELDS: [&str; 24] = [
    "application_fee",
    "balance_transaction",
    "charge",
    "customer",
    "destination",
    "destination_payment",
    "dispute",
    "failure_balance_transaction",
    "fee",
    "invoice",
    "latest_charge",
    "latest_invoice",
    "originating_transaction",
    "payment_intent",
    "payment_method",
    "payout",
    "refund",
    "source",
    "source_refund",
    "source_transaction",
    "subscription",
    "subscription_item",
    "transfer",
    "transfer_reversal",
];

/// Fields in which the amount of a referring object may stand.
const AMOUNT_FIELDS: [&str; 6] = ["amount", "amount_captured", "amount_due", "amount_paid", "amount_total", "total"];

/// What an object is known by besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    object: String,
    amount: Option<String>,
    currency: Option<String>,
}

/// Every object of the history, by id.
type Objects = BTreeMap<String, BTreeSet<Identity>>;

/// Gives every object and event of `events` a fresh id.
pub fn freshen(events: &[Value], seed: u64) -> Vec<Value> {
    let mut objects = Objects::new();
    for event in events {
        collect(&event["data"], &mut objects);
    }
    events.iter().map(|event| freshen_event(event, &objects, seed)).collect()
}

fn freshen_event(event: &Value, objects: &Objects, seed: u64) -> Value {
    let mut here = Objects::new();
    collect(&event["data"], &mut here);
    let renamer = Renamer { seed, objects, here: &here };
    let Value::Object(fields) = event else { return event.clone() };
    let renamed = fields.iter().map(|(name, value)| {
        let value = match (name.as_str(), value) {
            // serde_json keeps the fields of an object sorted, so its text is the same however the file was laid out.
            ("id", Value::String(id)) => Value::String(renamer.derive(id, &["event", &event.to_string()])),
            _ => renamer.rename(name, value, &[]),
        };
        (name.clone(), value)
    });
    Value::Object(renamed.collect())
}

fn collect(value: &Value, objects: &mut Objects) {
    match value {
        Value::Object(fields) => {
            if let Some(id) = fields.get("id").and_then(Value::as_str) {
                objects.entry(id.to_owned()).or_default().insert(identity(fields));
            }
            for (_, value) in fields.iter().filter(|(name, _)| *name != "metadata") {
                collect(value, objects);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, objects)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn identity(fields: &Map<String, Value>) -> Identity {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let amount = fields.get("amount").filter(|amount| amount.is_number()).map(ToString::to_string);
    // A customer has a currency once it has paid, and is the same customer.
    let currency = amount.as_ref().and_then(|_| text("currency"));
    Identity { object: text("object").unwrap_or_default(), amount, currency }
}

struct Renamer<'a> {
    seed: u64,
    objects: &'a Objects,
    here: &'a Objects,
}

impl Renamer<'_> {
    /// `amounts` are those of the object that `value` stands in.
    fn rename(&self, field: &str, value: &Value, amounts: &[String]) -> Value {
        match value {
            Value::Object(_) if field == "metadata" => value.clone(),
            Value::Object(fields) => self.rename_object(fields, amounts),
            Value::Array(items) => items.iter().map(|item| self.rename(field, item, amounts)).collect(),
            Value::String(text) if self.is_reference(field, text) => Value::String(self.refer(field, text, amounts)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    fn rename_object(&self, fields: &Map<String, Value>, outer_amounts: &[String]) -> Value {
        let own: Vec<String> = AMOUNT_FIELDS
            .iter()
            .filter_map(|name| fields.get(*name))
            .filter(|v| v.is_number())
            .map(ToString::to_string)
            .collect();
        let amounts = if own.is_empty() { outer_amounts } else { &own };
        let renamed = fields.iter().map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("id", Value::String(id)) if id.contains('_') => Value::String(self.name(id, &identity(fields))),
                _ => self.rename(name, value, amounts),
            };
            (name.clone(), value)
        });
        Value::Object(renamed.collect())
    }

    fn is_reference(&self, field: &str, text: &str) -> bool {
        let Some((prefix, rest)) = text.rsplit_once('_') else { return false };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if prefix.is_empty() || rest.is_empty() || !plain(text) {
            return false;
        }
        let looks_made = rest.len() >= 14 && rest.bytes().any(|b| b.is_ascii_digit());
        looks_made || REFERENCE_FIELDS.contains(&field) || self.objects.contains_key(text)
    }

    fn refer(&self, field: &str, id: &str, amounts: &[String]) -> String {
        let Some(candidates) = self.objects.get(id) else { return self.derive(id, &["reference"]) };
        let kind = field.trim_start_matches("latest_").trim_start_matches("failure_").trim_start_matches("default_");
        let here = self.here.get(id);
        let score = |candidate: &Identity| {
            (
                candidate.object == kind,
                here.is_some_and(|here| here.contains(candidate)),
                candidate.amount.as_ref().is_some_and(|amount| amounts.contains(amount)),
            )
        };
        // `max_by_key` takes the last of equals; the candidates are reversed so that it is the first in order.
        match candidates.iter().rev().max_by_key(|candidate| score(candidate)) {
            Some(identity) => self.name(id, identity),
            None => self.derive(id, &["reference"]),
        }
    }

    fn name(&self, id: &str, identity: &Identity) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        self.derive(id, &["object", &identity.object, &part(&identity.amount), &part(&identity.currency)])
    }

    /// `ch_` and 24 letters and digits that depend on the seed, the id and `parts`, and on nothing else.
    fn derive(&self, id: &str, parts: &[&str]) -> String {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        for part in std::iter::once(&id).chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let prefix = id.rsplit_once('_').map_or("", |(prefix, _)| prefix);
        let suffix = hash
            .finalize()
            .iter()
            .take(24)
            .map(|byte| char::from(ALPHABET[usize::from(byte % 62)]))
            .collect::<String>();
        format!("{prefix}_{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(id: &str, object: Value) -> Value {
        json!({"id": id, "object": "event", "type": "x", "data": {"object": object}})
    }

    fn charge(amount: u32) -> Value {
        json!({"id": "ch_0", "object": "charge", "amount": amount, "currency": "usd", "balance_transaction": "txn_0",
               "metadata": {"creator_id": "crt_00000000000000", "fan_id": "fan_1"}})
    }

    fn dispute(amount: u32) -> Value {
        json!({"id": "dp_0", "object": "dispute", "amount": amount, "currency": "usd", "charge": "ch_0"})
    }

    #[test]
    fn one_id_becomes_one_fresh_id_and_references_follow() {
        let fresh = freshen(&[event("evt_0", charge(100)), event("evt_0", dispute(100))], 7);
        let charge_id = &fresh[0]["data"]["object"]["id"];
        assert!(charge_id.as_str().unwrap().starts_with("ch_"));
        assert_ne!(charge_id, "ch_0");
        assert_eq!(&fresh[1]["data"]["object"]["charge"], charge_id);
        assert_eq!(fresh[0]["data"]["object"]["metadata"], charge(100)["metadata"]);
        assert_eq!(fresh[0]["type"], "x");
    }

    #[test]
    fn objects_that_differ_in_amount_become_different_and_the_amount_tells_which_is_meant() {
        let events = [event("evt_0", charge(100)), event("evt_0", charge(200)), event("evt_0", dispute(200))];
        let fresh = freshen(&events, 7);
        let id = |n: usize| fresh[n]["data"]["object"]["id"].clone();
        assert_ne!(id(0), id(1));
        assert_eq!(fresh[2]["data"]["object"]["charge"], id(1));
        assert_eq!(
            fresh[0]["data"]["object"]["balance_transaction"],
            fresh[1]["data"]["object"]["balance_transaction"]
        );
    }

    #[test]
    fn what_stands_in_the_same_event_is_meant() {
        let mut with_refund = charge(200);
        with_refund["refunds"] = json!({"data": [{"id": "re_0", "object": "refund", "amount": 100, "charge": "ch_0"}]});
        let fresh = freshen(&[event("evt_0", charge(100)), event("evt_1", with_refund)], 7);
        let object = &fresh[1]["data"]["object"];
        assert_eq!(object["refunds"]["data"][0]["charge"], object["id"]);
    }

    #[test]
    fn events_are_told_apart_by_content_and_the_order_of_files_does_not_matter() {
        let events = [event("evt_0", charge(100)), event("evt_0", dispute(100)), event("evt_0", charge(100))];
        let fresh = freshen(&events, 7);
        assert_ne!(fresh[0]["id"], fresh[1]["id"]);
        assert_eq!(fresh[0], fresh[2]);
        let reversed: Vec<Value> = events.iter().rev().cloned().collect();
        let mut again = freshen(&reversed, 7);
        again.reverse();
        assert_eq!(fresh, again);
        assert_ne!(fresh, freshen(&events, 8));
    }

    #[test]
    fn words_with_underscores_and_chosen_ids_stay() {
        let object = json!({"id": "gold", "object": "plan", "status": "requires_payment_method", "plan": "gold",
                            "reason": "warning_needs_response", "client_secret": "pi_1_secret_2"});
        let fresh = freshen(&[event("evt_0", object.clone())], 7);
        assert_eq!(fresh[0]["data"]["object"], object);
    }
}
