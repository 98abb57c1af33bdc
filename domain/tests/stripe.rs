//! Reading Stripe's events: one fixture for each type and each difference between API versions, written after the shapes that
//! Stripe documents, and a look at every event of a folder of fixtures from elsewhere.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fanledger_domain::event::{NotTranslatedReason, ReceivedFlag};
use fanledger_domain::facts::{AttributionProblem, ChargeStatus, Offer, OfferRank, RefundStatus};
use fanledger_domain::stripe::{NotTranslated, Observation, Translation, read_envelope, translate};
use proptest::prelude::*;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stripe")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn body(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()
}

fn read(name: &str) -> Result<Translation, NotTranslated> {
    translate(body(name).as_bytes(), false)
}

fn facts(name: &str) -> Translation {
    read(name).unwrap_or_else(|not| panic!("{name}: {not}"))
}

fn links(name: &str) -> Vec<String> {
    facts(name).links.iter().map(|(from, to)| format!("{from} {to}")).collect()
}

/// Everything that is read out of every fixture, for a person to look through.
#[test]
fn every_fixture_reads_as_it_did() {
    for name in names() {
        let text = match read(&name) {
            Ok(Translation { stamp, observations, links }) => {
                let observations: Vec<String> =
                    observations.iter().map(|observation| format!("{observation:#?}")).collect();
                let links: Vec<String> = links.iter().map(|(from, to)| format!("{from} - {to}")).collect();
                format!(
                    "{} at {}\n{}\nlinks: {}",
                    stamp.event,
                    stamp.created,
                    observations.join("\n"),
                    links.join(", ")
                )
            }
            Err(not) => not.to_string(),
        };
        insta::assert_snapshot!(name.clone(), text);
    }
}

/// What a charge pays of an invoice is a part of all that was due, and a debt from before has no tax in it.
#[test]
fn an_invoice_is_told_with_what_was_to_be_paid() {
    for (due, whole) in [(1099, 1099), (599, 1099), (1599, 1599)] {
        let mut event: Value = serde_json::from_str(&body("invoice.paid")).unwrap();
        event["data"]["object"]["amount_due"] = due.into();
        let read = translate(event.to_string().as_bytes(), false).unwrap();
        let told = read.observations.iter().find_map(|observation| match observation {
            Observation::Source { offers, .. } => offers.first(),
            _ => None,
        });
        assert_eq!(told.map(|offer| (offer.rank, offer.total_minor)), Some((OfferRank::Invoice, Some(whole))));
    }
}

/// The fixtures are full of a Jane Doe, who must not be in anything that is kept in the clear.
#[test]
fn nothing_personal_is_kept() {
    for name in names() {
        let body = body(&name);
        let kept = format!("{:?} {:?}", translate(body.as_bytes(), false), read_envelope(body.as_bytes()));
        for personal in ["Jane", "jane", "Doe", "example.com"] {
            assert!(!kept.contains(personal), "{name} keeps {personal}: {kept}");
        }
    }
}

#[test]
fn the_envelope_of_every_fixture_is_whole() {
    for name in names() {
        let envelope = read_envelope(body(&name).as_bytes()).unwrap();
        let expected = (name == "thin").then_some(ReceivedFlag::Thin);
        assert_eq!(envelope.flag, expected, "{name}");
        assert!(envelope.event_type.is_some(), "{name}");
    }
}

#[test]
fn reasons_are_named() {
    use NotTranslatedReason as R;
    for (name, reason, detail) in [
        ("customer.created", R::UnusedType, "move no money"),
        ("credit_note.created", R::UnusedType, "move no money"),
        ("transfer.paid.2014_bank", R::UnusedType, "move no money"),
        ("charge.succeeded.connected", R::ConnectedAccount, "connected account"),
        ("account.updated.connected_other", R::ConnectedAccount, "connected account"),
        ("charge.succeeded.live", R::OtherMode, "an event of live mode; this platform is in test mode"),
        ("thin", R::ThinEvent, "thin"),
        ("invoice.upcoming", R::NoFacts, "nothing in it"),
        ("charge.refunded", R::NoFacts, "nothing in it"),
        (
            "charge.succeeded.no_amount",
            R::Untranslatable,
            "data.object.amount is missing, in an event of API version 2020-08-27",
        ),
        (
            "charge.succeeded.unknown_currency",
            R::Untranslatable,
            "data.object.currency is not a currency that we know, in an event of API version 2026-10-28.endive",
        ),
        (
            "charge.dispute.updated.no_id",
            R::Untranslatable,
            "data.object.id is missing, in an event without an API version",
        ),
    ] {
        let not = read(name).unwrap_err();
        assert_eq!(not.reason, reason, "{name}");
        assert!(not.detail.contains(detail), "{name}: {}", not.detail);
    }
    for (body, reason) in [
        ("", R::Undecodable),
        ("[]", R::Undecodable),
        ("{}", R::Undecodable),
        (r#"{"id":"evt_1"}"#, R::Undecodable),
        (r#"{"id":"evt_1","type":7}"#, R::Undecodable),
        (r#"{"id":"evt_1","type":"customer.created"}"#, R::UnusedType),
        (r#"{"id":"evt_1","type":"charge.succeeded"}"#, R::Untranslatable),
        (r#"{"id":"evt_1","type":"charge.succeeded","livemode":false,"data":[]}"#, R::Untranslatable),
        (r#"{"id":"evt_1","type":"charge.succeeded","livemode":"no","data":{"object":{}}}"#, R::Untranslatable),
    ] {
        assert_eq!(translate(body.as_bytes(), false).unwrap_err().reason, reason, "{body}");
    }
    assert!(translate(body("charge.succeeded.live").as_bytes(), true).is_ok());
}

/// The charge of the only charge that a fixture shows.
fn charge(name: &str) -> fanledger_domain::facts::ChargeSnapshot {
    let found = facts(name).observations.into_iter().find_map(|observation| match observation {
        Observation::Charge(charge) => Some(charge),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{name} has no charge"))
}

#[test]
fn what_is_captured() {
    for (name, captured, amount_captured, status) in [
        ("charge.succeeded", true, 1099, ChargeStatus::Succeeded),
        ("charge.succeeded.2014", true, 1099, ChargeStatus::Succeeded),
        ("charge.failed.2013", true, 1099, ChargeStatus::Failed),
        ("charge.succeeded.authorised", false, 0, ChargeStatus::Succeeded),
        ("charge.captured.partial", true, 700, ChargeStatus::Succeeded),
        ("charge.expired", false, 0, ChargeStatus::Succeeded),
        ("charge.pending", true, 1099, ChargeStatus::Pending),
        ("charge.failed.after_success", true, 1099, ChargeStatus::Failed),
    ] {
        let charge = charge(name);
        assert_eq!(
            (charge.captured, charge.amount_captured, charge.status),
            (captured, amount_captured, status),
            "{name}"
        );
    }
}

#[test]
fn a_charge_names_whose_money_it_is_or_why_not() {
    assert_eq!(charge("charge.succeeded").offer, Offer::Silent);
    assert!(matches!(charge("charge.succeeded.attributed").offer, Offer::Valid(_)));
    assert_eq!(charge("charge.succeeded.invalid_share").offer, Offer::Invalid(AttributionProblem::CreatorShareBps));
}

#[test]
fn charge_and_invoice_find_each_other_in_every_version() {
    for (name, expected) in [
        ("charge.succeeded", vec!["ch_1 pi_1"]),
        ("charge.succeeded.2020", vec!["ch_1 pi_1", "ch_1 in_1"]),
        ("charge.succeeded.2014", vec!["ch_1 in_1"]),
        ("payment_intent.succeeded", vec!["pi_1 ch_1"]),
        ("payment_intent.succeeded.2020", vec!["pi_1 ch_1", "pi_1 ch_2", "pi_1 in_1"]),
        ("checkout.session.completed", vec!["cs_test_1 in_1", "cs_test_1 sub_1"]),
        ("invoice.paid", vec!["in_1 pi_1", "in_1 ch_2", "in_1 sub_1"]),
        ("invoice.paid.2020", vec!["in_1 ch_1", "in_1 pi_1", "in_1 sub_1"]),
        ("invoice.paid.2023", vec!["in_1 ch_1", "in_1 pi_1", "in_1 sub_1"]),
        ("invoice_payment.paid", vec!["in_1 pi_1"]),
        ("refund.created", vec!["ch_1 pi_1"]),
    ] {
        assert_eq!(links(name), expected, "{name}");
    }
}

#[test]
fn sources_say_whose_money_it_is_and_what_tax_is_in_it() {
    use OfferRank as Rank;
    #[derive(Debug, PartialEq)]
    enum Said {
        Silent,
        Valid,
        Invalid,
    }
    for (name, expected) in [
        ("payment_intent.succeeded", vec![(Rank::PaymentIntent, Said::Valid, None)]),
        ("payment_intent.succeeded.2020", vec![(Rank::PaymentIntent, Said::Silent, None)]),
        ("checkout.session.completed", vec![(Rank::CheckoutSession, Said::Valid, Some(87))]),
        ("invoice.paid", vec![(Rank::Invoice, Said::Silent, Some(87)), (Rank::InvoiceSubscription, Said::Valid, None)]),
        (
            "invoice.paid.2020",
            vec![(Rank::Invoice, Said::Valid, Some(87)), (Rank::InvoiceSubscription, Said::Silent, None)],
        ),
        (
            "invoice.paid.2023",
            vec![(Rank::Invoice, Said::Silent, Some(0)), (Rank::InvoiceSubscription, Said::Invalid, None)],
        ),
        ("customer.subscription.updated", vec![(Rank::Subscription, Said::Silent, None)]),
        ("account.updated.connected", vec![(Rank::Account, Said::Valid, None)]),
        ("account.updated.connected_silenced", vec![(Rank::Account, Said::Silent, None)]),
    ] {
        let observations = facts(name).observations;
        let (Some(Observation::Source { offers, .. }), None | Some(Observation::ConnectedAccount(_))) =
            (observations.first(), observations.get(1))
        else {
            panic!("{name} is not one source")
        };
        let said: Vec<_> = offers
            .iter()
            .map(|offer| {
                let said = match &offer.offer {
                    Offer::Silent => Said::Silent,
                    Offer::Valid(_) => Said::Valid,
                    Offer::Invalid(_) => Said::Invalid,
                };
                (offer.rank, said, offer.tax_minor)
            })
            .collect();
        assert_eq!(said, expected, "{name}");
    }
}

#[test]
fn embedded_refunds_are_read_each_for_itself() {
    let ids = |name: &str| -> Vec<(String, RefundStatus, Option<String>)> {
        let refunds = facts(name).observations.into_iter().map(|observation| match observation {
            Observation::Refund(refund) => (refund.id.into(), refund.status, refund.charge.map(String::from)),
            other => panic!("{name} says {other:?}"),
        });
        refunds.collect()
    };
    let ch = || Some("ch_1".to_owned());
    assert_eq!(
        ids("charge.refunded.2020"),
        [("re_2".into(), RefundStatus::Succeeded, ch()), ("re_1".into(), RefundStatus::Succeeded, ch())]
    );
    // Neither a status nor the charge: then it is done, and of the charge that embeds it.
    assert_eq!(ids("charge.refunded.2014"), [("re_1".into(), RefundStatus::Succeeded, ch())]);
    assert_eq!(ids("refund.updated.no_charge"), [("re_1".into(), RefundStatus::RequiresAction, None)]);
}

#[test]
fn embedded_balance_transactions_belong_to_what_embeds_them() {
    for (name, expected) in [
        ("charge.updated.expanded", vec!["ch_1 txn_1"]),
        ("refund.created", vec!["re_1 txn_3"]),
        ("charge.dispute.funds_withdrawn", vec!["du_1 txn_6"]),
        ("charge.dispute.funds_reinstated", vec!["du_1 txn_6", "du_1 txn_7"]),
        ("transfer.reversed", vec!["trr_1 txn_9"]),
        ("payout.failed", vec!["po_1 txn_11"]),
    ] {
        let translation = facts(name);
        let found: Vec<String> = translation
            .observations
            .iter()
            .filter_map(|observation| match observation {
                Observation::BalanceTransaction { owner, transaction } => Some(format!("{owner} {}", transaction.id)),
                _ => None,
            })
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(translation.observations.len(), expected.len() + 1, "{name}: and the object itself");
    }
}

/// Every amount that a snapshot is made of, set to what it cannot be.
#[test]
fn amounts_that_cannot_be_are_refused() {
    let most = 9_007_199_254_740_991_i64;
    for (name, field) in [
        ("charge.succeeded", "amount"),
        ("charge.succeeded", "amount_captured"),
        ("refund.failed", "amount"),
        ("charge.dispute.created.inquiry", "amount"),
        ("transfer.created", "amount"),
        ("transfer.created", "amount_reversed"),
        ("payout.created", "amount"),
        ("application_fee.created", "amount_refunded"),
        ("topup.succeeded", "amount"),
    ] {
        let with = |value: Value| {
            let mut event: Value = serde_json::from_str(&body(name)).unwrap();
            event["data"]["object"][field] = value;
            translate(event.to_string().as_bytes(), false)
        };
        for bad in [
            json!(most + 1),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1.0),
            json!(1e300),
            json!("1099"),
            json!([1]),
        ] {
            let not = with(bad.clone()).unwrap_err();
            assert_eq!(not.reason, NotTranslatedReason::Untranslatable, "{name} {field} {bad}");
            assert!(
                not.detail.starts_with(&format!("data.object.{field} is ")),
                "{name} {field} {bad}: {}",
                not.detail
            );
        }
        assert!(with(json!(most)).is_ok(), "{name} {field}");
        assert_eq!(with(json!(-1)).is_ok(), name == "payout.created", "{name} {field}: only payouts may be negative");
    }
}

/// With `STRIPE_FIXTURES` naming a folder: every event in it, and every resource of an OpenAPI `fixtures3.json` as each type of
/// event that it could come with, is facts or a named reason. Prints what became of each.
#[test]
fn fixtures_from_elsewhere_are_all_read() {
    let Some(root) = std::env::var_os("STRIPE_FIXTURES").map(PathBuf::from) else {
        println!("skipped: set STRIPE_FIXTURES to a folder of events to read them");
        return;
    };
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            match value.get("resources").and_then(Value::as_object) {
                None => {
                    bodies.insert(name, text);
                }
                Some(resources) => {
                    for (resource, object) in resources {
                        for event_type in types_of(resource) {
                            let event = json!({
                                "id": "evt_1", "object": "event", "type": event_type, "created": 1_700_000_000, "livemode": false,
                                "api_version": "2026-10-28.endive", "data": { "object": object },
                            });
                            bodies.insert(format!("{name} {resource} as {event_type}"), event.to_string());
                        }
                    }
                }
            }
        }
    }
    let mut with_facts = 0;
    for (name, body) in &bodies {
        assert!(read_envelope(body.as_bytes()).is_ok(), "{name}");
        match translate(body.as_bytes(), false) {
            Ok(translation) => {
                with_facts += 1;
                let kinds: Vec<String> = translation.observations.iter().map(kind).collect();
                println!("{name}: {} and {} links", kinds.join(", "), translation.links.len());
            }
            Err(not) => {
                assert!(!not.detail.is_empty(), "{name}");
                println!("{name}: {not}");
            }
        }
    }
    println!("{} events, {with_facts} with facts", bodies.len());
    assert!(with_facts > 0);
}

fn kind(observation: &Observation) -> String {
    format!("{observation:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn types_of(resource: &str) -> Vec<String> {
    let types: &[&str] = match resource {
        "charge" => &["charge.succeeded", "charge.refunded", "charge.expired"],
        "refund" => &["refund.created", "charge.refund.updated"],
        "dispute" => &["charge.dispute.created"],
        "subscription" => &["customer.subscription.created"],
        "invoice" => &["invoice.paid", "invoice.upcoming"],
        "invoice_payment" => &["invoice_payment.paid"],
        "checkout.session" => &["checkout.session.completed"],
        // Any other under its own name, and each as a charge, which it is not.
        other => return vec![format!("{other}.created"), "charge.succeeded".to_owned()],
    };
    types.iter().map(|text| (*text).to_owned()).collect()
}

/// Replaces the values at some places of a fixture.
fn mutate(value: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *value = with.clone();
        *at = usize::MAX;
        return;
    }
    if *at == usize::MAX {
        return;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mutate(item, at, with)),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, field)| mutate(field, at, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([{}])),
        Just(json!({ "data": [null] })),
        Just(json!({ "id": "x_1" })),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(|text| json!(format!("{text} SECRET @"))),
        ".{0,12}".prop_map(|text| json!({ "id": format!("{text} SECRET @"), "creator_id": "SECRET @" })),
    ]
}

proptest! {
    // A failing case belongs into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = translate(&body, false);
    }

    /// A fixture with some of its values replaced is facts or a reason, and keeps nothing of what cannot be an id.
    #[test]
    fn any_mutation_is_read(pick in any::<prop::sample::Index>(), places in proptest::collection::vec((0_usize..90, strange()), 1..5)) {
        let names = names();
        let mut event: Value = serde_json::from_str(&body(&names[pick.index(names.len())])).unwrap();
        for (place, with) in places {
            mutate(&mut event, &mut place.clone(), &with);
        }
        let body = event.to_string();
        let read = translate(body.as_bytes(), false);
        let kept = format!("{read:?} {:?}", read_envelope(body.as_bytes()));
        prop_assert!(!kept.contains("SECRET") && !kept.contains("Jane"), "{}", kept);
    }

    /// Cut off anywhere: never a panic, and the id is found once it is there.
    #[test]
    fn any_cut_is_read(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let names = names();
        let body = body(&names[pick.index(names.len())]);
        let bytes = &body.as_bytes()[..at.index(body.len())];
        let _ = translate(bytes, false);
        let id_starts = body.find("evt_").unwrap();
        let id_ends = id_starts + body[id_starts..].find('"').unwrap();
        prop_assert_eq!(read_envelope(bytes).is_ok(), bytes.len() > id_ends);
    }
}

#[test]
fn a_connected_account_says_whether_it_can_be_paid() {
    let account = |name: &str| {
        let account = facts(name).observations.into_iter().find_map(|observation| match observation {
            Observation::ConnectedAccount(account) => Some(account),
            _ => None,
        });
        account.unwrap()
    };
    let able = account("account.updated.connected_able");
    assert!(able.is_payable(), "{able:?}");
    assert_eq!(able.creator.unwrap().as_str(), "crt_ada");
    let restricted = account("account.updated.connected_restricted");
    // One of the two that are due is past due, too.
    assert_eq!(
        (restricted.requirements_due, restricted.transfers_active, restricted.payouts_enabled),
        (2, false, false)
    );
    assert_eq!(restricted.disabled_reason.as_deref(), Some("requirements.past_due"));
    // Old or partial: what does not say that it can be paid is not paid.
    assert!(!account("account.updated.connected").is_payable());
}
