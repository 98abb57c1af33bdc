//! The envelope of a webhook: what is kept of it in the clear.
//!
//! This runs for every webhook before it is answered, so it builds no tree: one strict pass tells whether the translator will be
//! able to read the body ([`ReceivedFlag::Undecodable`] here and `Undecodable` there are one verdict), and the few fields are
//! picked out of the raw text.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::ReceivedFlag;
use crate::id::StripeId;
use crate::time::Timestamp;

use super::scan;

/// What is known of an event before its object is looked at. Texts are kept only in the forms that Stripe uses, so that nothing
/// personal can hide in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `evt_…`.
    pub id: StripeId,
    /// Stripe's `type`.
    pub event_type: Option<String>,
    /// The API version that the event was made with.
    pub api_version: Option<String>,
    /// When Stripe made it.
    pub created: Option<Timestamp>,
    /// Live or test mode.
    pub livemode: Option<bool>,
    /// The connected account that it is of.
    pub account: Option<StripeId>,
    /// The object that it is about.
    pub object: Option<StripeId>,
    /// What could not be read, where something could not.
    pub flag: Option<ReceivedFlag>,
}

/// No event id can be read: the one thing for which a signed webhook is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event id can be read: expected a JSON object with \"id\", 1 to 200 of A-Z a-z 0-9 _ . : -")]
pub struct NoEventId;

/// Reads the envelope from raw bytes. Fails only where no event id can be read; whatever else is wrong is in `flag`.
pub fn read_envelope(body: &[u8]) -> Result<Envelope, NoEventId> {
    let decodable = serde_json::from_slice::<Decodable>(body).is_ok();
    let event: Members<'_> = if decodable { serde_json::from_slice(body).unwrap_or_default() } else { Members::new() };
    let id = member(&event, "id").and_then(stripe_id).or_else(|| scan::top_level_id(body)).ok_or(NoEventId)?;

    let event_type = member(&event, "type").and_then(|text: String| sane_type(&text));
    let created = member(&event, "created").and_then(Time::into_timestamp);
    let livemode = member(&event, "livemode");
    let thin = member(&event, "object").is_some_and(|kind: String| is_thin(&kind));
    let object: Option<Members<'_>> = member(&event, "data").and_then(|data: Members<'_>| member(&data, "object"));
    let flag = if !decodable {
        Some(ReceivedFlag::Undecodable)
    } else if thin {
        Some(ReceivedFlag::Thin)
    } else if event_type.is_none() || created.is_none() || livemode.is_none() || object.is_none() {
        Some(ReceivedFlag::Incomplete)
    } else {
        None
    };
    // A thin event names its object beside `data`.
    let object = object.or_else(|| member(&event, "related_object"));
    Ok(Envelope {
        id,
        event_type,
        api_version: member(&event, "api_version").and_then(|text: String| sane_version(&text)),
        created,
        livemode,
        account: member(&event, "account").and_then(stripe_id),
        object: object.and_then(|object| member(&object, "id")).and_then(stripe_id),
        flag,
    })
}

/// Whether an event's `object` says that it carries none (<https://docs.stripe.com/event-destinations#thin-events>).
pub(super) fn is_thin(object: &str) -> bool {
    object.starts_with("v2.")
}

/// The type of an event, if it has the form of one.
pub(super) fn sane_type(text: &str) -> Option<String> {
    let sane =
        (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    sane.then(|| text.to_owned())
}

/// An API version, if it has the form of one: `2020-08-27`, since 2024 with a name, `2026-10-28.endive`.
pub(super) fn sane_version(text: &str) -> Option<String> {
    let (date, name) = text.split_once('.').map_or((text, None), |(date, name)| (date, Some(name)));
    let date_is_sane = date.len() == 10
        && date
            .bytes()
            .enumerate()
            .all(|(index, b)| if index == 4 || index == 7 { b == b'-' } else { b.is_ascii_digit() });
    let name_is_sane = name
        .is_none_or(|name| (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    (date_is_sane && name_is_sane).then(|| text.to_owned())
}

/// The members of an object, unread. Of repeated keys the last counts, as in [`serde_json::Value`].
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// A member, if it is there and of the wanted shape.
fn member<'a, T: Deserialize<'a>>(members: &Members<'a>, key: &str) -> Option<T> {
    members.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

fn stripe_id(text: String) -> Option<StripeId> {
    StripeId::try_from(text).ok()
}

/// Unix seconds, or RFC 3339 as thin events write times.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Time {
    Seconds(i64),
    Text(String),
}

impl Time {
    fn into_timestamp(self) -> Option<Timestamp> {
        match self {
            Self::Seconds(seconds) => Timestamp::from_unix_seconds(seconds).ok(),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// A value that is decoded as strictly as [`serde_json::Value`] is, and dropped. `IgnoredAny` would let pass what that refuses
/// (1e400, lone surrogates).
struct Decodable;

impl<'de> Deserialize<'de> for Decodable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecodableVisitor)
    }
}

struct DecodableVisitor;

impl<'de> Visitor<'de> for DecodableVisitor {
    type Value = Decodable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_unit<E>(self) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Decodable, E> {
        Ok(Decodable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Decodable, A::Error> {
        while items.next_element::<Decodable>()?.is_some() {}
        Ok(Decodable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decodable, A::Error> {
        while map.next_entry::<Decodable, Decodable>()?.is_some() {}
        Ok(Decodable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Envelope {
        read_envelope(body.as_bytes()).unwrap()
    }

    #[test]
    fn keeps_what_is_sane() {
        let envelope = read(
            r#"{"id":"evt_1","object":"event","type":"charge.succeeded","api_version":"2026-10-28.endive","created":1700000000,
                "livemode":false,"account":"acct_1","data":{"object":{"id":"ch_1","object":"charge"}}}"#,
        );
        assert_eq!(envelope.id.as_str(), "evt_1");
        assert_eq!(envelope.event_type.as_deref(), Some("charge.succeeded"));
        assert_eq!(envelope.api_version.as_deref(), Some("2026-10-28.endive"));
        assert_eq!(envelope.created.map(Timestamp::as_unix_seconds), Some(1_700_000_000));
        assert_eq!(envelope.livemode, Some(false));
        assert_eq!(envelope.account.as_ref().map(StripeId::as_str), Some("acct_1"));
        assert_eq!(envelope.object.as_ref().map(StripeId::as_str), Some("ch_1"));
        assert_eq!(envelope.flag, None);
    }

    #[test]
    fn drops_and_flags_what_is_not() {
        let envelope = read(
            r#"{"id":"evt_1","type":"jane@example.com","api_version":"Jane","created":1e400000,"livemode":"yes","account":"a b","data":7}"#,
        );
        let nothing = Envelope {
            id: "evt_1".parse().unwrap(),
            event_type: None,
            api_version: None,
            created: None,
            livemode: None,
            account: None,
            object: None,
            flag: Some(ReceivedFlag::Undecodable),
        };
        assert_eq!(envelope, nothing);
        let envelope = read(
            r#"{"id":"evt_1","type":"jane@example.com","api_version":"Jane","created":-1e40,"livemode":"yes","account":"a b","data":7}"#,
        );
        assert_eq!(envelope, Envelope { flag: Some(ReceivedFlag::Incomplete), ..nothing });
    }

    #[test]
    fn a_thin_event_is_told_by_its_object() {
        let envelope = read(
            r#"{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered","livemode":true,
                "created":"2024-09-17T06:20:52.246Z","related_object":{"id":"mtr_1","type":"billing.meter"}}"#,
        );
        assert_eq!(envelope.flag, Some(ReceivedFlag::Thin));
        assert_eq!(envelope.object.as_ref().map(StripeId::as_str), Some("mtr_1"));
        assert!(envelope.created.is_some());
    }

    #[test]
    fn the_id_is_found_in_what_cannot_be_decoded() {
        let deep = format!(r#"{{"id":"evt_1","data":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        for body in [
            deep.as_str(),
            r#"{"id":"evt_1","n":1e400}"#,
            r#"{"id":"evt_1","s":"\ud800"}"#,
            r#"{"id":"evt_1","s":"cut of"#,
            r#"{"id":"evt_1"} and more"#,
        ] {
            let envelope = read(body);
            assert_eq!((envelope.id.as_str(), envelope.flag), ("evt_1", Some(ReceivedFlag::Undecodable)), "{body:.60}");
        }
        // Escapes that JSON allows are no reason to call a body undecodable.
        assert_eq!(read(r#"{"id":"evt_1","s":"\u0000"}"#).flag, Some(ReceivedFlag::Incomplete));
    }

    #[test]
    fn repeated_keys_read_as_the_translator_reads_them() {
        assert_eq!(read(r#"{"id":"evt_1","id":"evt_2"}"#).id.as_str(), "evt_2");
        // The last is no id; then the first that is one will do.
        assert_eq!(read(r#"{"id":"evt_1","id":2}"#).id.as_str(), "evt_1");
    }

    #[test]
    fn without_an_id_there_is_nothing_to_store_it_under() {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            "[{\"id\":\"evt_1\"}]",
            r#"{"id":7}"#,
            r#"{"id":""}"#,
            r#"{"id":"a b"}"#,
            r#"{"data":{"id":"evt_1"}}"#,
        ] {
            assert_eq!(read_envelope(body.as_bytes()), Err(NoEventId), "{body}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(201));
        assert_eq!(read_envelope(long.as_bytes()), Err(NoEventId));
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_envelope(&body);
        }

        /// The flag says `Undecodable` exactly where a tree cannot be built.
        #[test]
        fn decodable_is_what_serde_json_decodes(rest in r#"[\[\]{}:,"\\ud80e19.+\-n tr]{0,40}"#) {
            let body = format!(r#"{{"id":"evt_1","rest":{rest}}}"#);
            let decoded = serde_json::from_str::<serde_json::Value>(&body).is_ok();
            prop_assert_eq!(read(&body).flag == Some(ReceivedFlag::Undecodable), !decoded);
        }
    }
}
