//! Whose money it is, as somebody wrote it into an object's metadata.
//!
//! Taken whole or refused whole: a client that misspells the share must not have the rest of the metadata believed, and a refusal
//! does not fall through to the next object, which might name somebody else.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::facts::{Attribution, AttributionProblem, Offer, PaymentKind};
use crate::id::{CreatorId, Jurisdiction};
use crate::split::BasisPoints;

use super::read::AMOUNT_MAX;

/// What a charge's metadata, or that of an object that speaks for charges, says.
pub(super) fn offer(metadata: Option<&Value>) -> Offer {
    match creator(metadata) {
        None => Offer::Silent,
        Some((creator, fields)) => match attribution(creator, fields) {
            Ok(attribution) => Offer::Valid(attribution),
            Err(problem) => Offer::Invalid(problem),
        },
    }
}

/// What a transfer's or an account's metadata says: only the creator means anything there.
pub(super) fn creator_offer(metadata: Option<&Value>) -> Offer {
    match creator(metadata) {
        None => Offer::Silent,
        Some((Err(problem), _)) => Offer::Invalid(problem),
        Some((Ok(creator), _)) => Offer::Valid(Attribution {
            creator,
            fan: None,
            kind: None,
            share: None,
            tax_minor: None,
            tax_jurisdiction: None,
        }),
    }
}

/// Whether the metadata has a `creator_id` at all.
pub(super) fn names_creator(metadata: Option<&Value>) -> bool {
    creator(metadata).is_some()
}

type Creator<'a> = (Result<CreatorId, AttributionProblem>, &'a Map<String, Value>);

fn creator(metadata: Option<&Value>) -> Option<Creator<'_>> {
    let fields = metadata?.as_object()?;
    let value = present(fields, "creator_id")?;
    Some((parse(value, AttributionProblem::CreatorId), fields))
}

/// `order_id` is ignored while there are no orders.
fn attribution(
    creator: Result<CreatorId, AttributionProblem>,
    fields: &Map<String, Value>,
) -> Result<Attribution, AttributionProblem> {
    Ok(Attribution {
        creator: creator?,
        fan: optional(fields, "fan_id", AttributionProblem::FanId)?,
        kind: match present(fields, "kind") {
            None => None,
            Some(value) => Some(value.as_str().and_then(PaymentKind::from_text).ok_or(AttributionProblem::Kind)?),
        },
        share: match number(fields, "creator_share_bps", AttributionProblem::CreatorShareBps)? {
            None => None,
            Some(bps) => {
                let share = u16::try_from(bps).ok().and_then(|bps| BasisPoints::new(bps).ok());
                Some(share.ok_or(AttributionProblem::CreatorShareBps)?)
            }
        },
        tax_minor: number(fields, "tax_minor", AttributionProblem::TaxMinor)?,
        tax_jurisdiction: optional::<Jurisdiction>(fields, "tax_jurisdiction", AttributionProblem::TaxJurisdiction)?,
    })
}

fn present<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

fn parse<T: FromStr>(value: &Value, problem: AttributionProblem) -> Result<T, AttributionProblem> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or(problem)
}

fn optional<T: FromStr>(
    fields: &Map<String, Value>,
    key: &str,
    problem: AttributionProblem,
) -> Result<Option<T>, AttributionProblem> {
    present(fields, key).map(|value| parse(value, problem)).transpose()
}

/// Metadata values are texts; a number in one is its digits and nothing else, no sign, no spaces, no decimals.
fn number(
    fields: &Map<String, Value>,
    key: &str,
    problem: AttributionProblem,
) -> Result<Option<i64>, AttributionProblem> {
    let Some(value) = present(fields, key) else { return Ok(None) };
    let digits =
        value.as_str().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).ok_or(problem)?;
    let number: i64 = digits.parse().map_err(|_| problem)?;
    if number <= AMOUNT_MAX { Ok(Some(number)) } else { Err(problem) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn silent_without_a_creator() {
        for metadata in [
            json!(null),
            json!({}),
            json!([]),
            json!("creator_id"),
            json!({ "creator_id": null }),
            json!({ "fan_id": "fan_1" }),
        ] {
            assert_eq!(offer(Some(&metadata)), Offer::Silent, "{metadata}");
            assert_eq!(creator_offer(Some(&metadata)), Offer::Silent, "{metadata}");
        }
        assert_eq!(offer(None), Offer::Silent);
    }

    #[test]
    fn all_keys_are_read() {
        let metadata = json!({
            "creator_id": "crt_1", "fan_id": "fan_1", "kind": "unlock", "creator_share_bps": "8333", "tax_minor": "87",
            "tax_jurisdiction": "us-ca", "order_id": "anything", "colour": "blue",
        });
        let Offer::Valid(read) = offer(Some(&metadata)) else { panic!("not valid") };
        assert_eq!(read.creator.as_str(), "crt_1");
        assert_eq!(read.fan.unwrap().as_str(), "fan_1");
        assert_eq!(read.kind, Some(PaymentKind::Unlock));
        assert_eq!(read.share.map(BasisPoints::get), Some(8333));
        assert_eq!(read.tax_minor, Some(87));
        assert_eq!(read.tax_jurisdiction.unwrap().as_str(), "us-ca");
    }

    #[test]
    fn one_bad_key_refuses_all_of_it() {
        use AttributionProblem as P;
        let long = "9".repeat(40);
        for (key, value, problem) in [
            ("creator_id", json!(""), P::CreatorId),
            ("creator_id", json!("jane"), P::CreatorId),
            ("creator_id", json!("crt_"), P::CreatorId),
            ("creator_id", json!(7), P::CreatorId),
            ("fan_id", json!("crt_1"), P::FanId),
            ("fan_id", json!(""), P::FanId),
            ("kind", json!("Tip"), P::Kind),
            ("kind", json!(1), P::Kind),
            ("creator_share_bps", json!("12000"), P::CreatorShareBps),
            ("creator_share_bps", json!("10001"), P::CreatorShareBps),
            ("creator_share_bps", json!("80.5"), P::CreatorShareBps),
            ("creator_share_bps", json!(8000), P::CreatorShareBps),
            ("tax_minor", json!("-1"), P::TaxMinor),
            ("tax_minor", json!("+1"), P::TaxMinor),
            ("tax_minor", json!(" 1"), P::TaxMinor),
            ("tax_minor", json!("٣"), P::TaxMinor),
            ("tax_minor", json!("9007199254740992"), P::TaxMinor),
            ("tax_minor", json!(long), P::TaxMinor),
            ("tax_jurisdiction", json!("US"), P::TaxJurisdiction),
        ] {
            let mut metadata = json!({ "creator_id": "crt_1" });
            metadata[key] = value.clone();
            assert_eq!(offer(Some(&metadata)), Offer::Invalid(problem), "{key} {value}");
        }
    }

    #[test]
    fn of_a_transfer_only_the_creator_matters() {
        let metadata = json!({ "creator_id": "crt_1", "kind": "whatever", "creator_share_bps": "99999" });
        assert!(matches!(creator_offer(Some(&metadata)), Offer::Valid(Attribution { kind: None, share: None, .. })));
    }
}
