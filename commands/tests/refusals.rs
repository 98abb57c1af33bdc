//! What the ledger refuses is told, tried again, and stops nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use fanledger_commands::operations::{self, RetranslateFilter};
use fanledger_commands::stripe::delivery::{Delivery, of_balance_transaction};
use fanledger_domain::event::{
    BalanceTransactionObserved, ChargeObserved, Event, NotTranslatedReason, StripeEventReceived, StripeObjectsLinked,
};
use fanledger_domain::facts::{BalanceTransaction, Category, ChargeSnapshot, ChargeStatus, EventStamp, Offer};
use fanledger_domain::id::StripeId;
use fanledger_domain::time::Timestamp;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use support::Pipeline;

/// More than a posting can hold.
const TOO_MUCH: i64 = i64::MAX / 2;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000 + seconds).unwrap()
}

fn id(text: &str) -> StripeId {
    text.parse().unwrap()
}

fn metadata() -> Metadata {
    Metadata { actor: Some("system:test".to_owned()), ..Metadata::default() }
}

fn charge(name: &str, amount: i64) -> Event {
    ChargeObserved {
        stamp: EventStamp { created: at(0), event: id(&format!("evt_of_{name}")) },
        charge: ChargeSnapshot {
            id: id(name),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount,
            amount_captured: amount,
            status: ChargeStatus::Succeeded,
            captured: true,
            payment_intent: None,
            invoice: None,
            balance_transaction: None,
            failure_balance_transaction: None,
            offer: Offer::Silent,
        },
    }
    .into()
}

fn transaction(name: &str, source: &str, category: Category, amount: i64) -> BalanceTransaction {
    BalanceTransaction {
        id: id(name),
        created: at(1),
        available_on: at(2),
        currency: "usd".parse().unwrap(),
        amount,
        fee: 0,
        net: amount,
        fee_details: Vec::new(),
        category,
        reported_as: category.as_str().to_owned(),
        source: Some(id(source)),
    }
}

/// Past the ledger, which would refuse it.
async fn append(pipeline: &Pipeline, stream: StreamId, events: Vec<NewEvent>) {
    let command = Command::new(stream, 0, metadata(), events);
    let outcome = pipeline.executor.writer().append(command).await.unwrap();
    assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
}

fn new(event: &Event) -> NewEvent {
    NewEvent {
        event_type: event.type_name().to_owned(),
        event_version: event.version().to_owned(),
        payload: event.to_payload().unwrap(),
    }
}

fn refund_event(name: &str, kind: &str, seconds: i64) -> serde_json::Value {
    serde_json::json!({
        "id": name, "object": "event", "type": kind, "created": 1_790_000_000 + seconds, "livemode": false,
        "data": {"object": {
            "id": "re_1", "object": "refund", "amount": 500, "currency": "usd", "created": 1_790_000_000,
            "status": "succeeded", "charge": null, "payment_intent": null,
        }},
    })
}

/// What was last said of a webhook that it led to nothing, in its own stream.
async fn words(pipeline: &Pipeline, name: &str) -> Vec<NotTranslatedReason> {
    let said = pipeline.executor.stripe_event(&id(name)).await.unwrap().into_iter().filter_map(|event| match event {
        Event::StripeEventNotTranslated(not) => Some(not.reason),
        _ => None,
    });
    said.collect()
}

/// A refund's books are emptied by its link, and its charge refuses what it held: then its money is in no books, and it must be
/// seen where people look.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_refuses_is_told_of_the_webhook_and_handed_on_with_the_next_delivery() {
    let mut pipeline = Pipeline::start(None).await;
    pipeline.receive(&refund_event("evt_1", "refund.created", 10)).await.unwrap();
    pipeline.settle().await;
    let listed = of_balance_transaction(None, transaction("txn_1", "re_1", Category::Refund, -500));
    pipeline.executor.deliver_all(listed, None, &metadata()).await.unwrap();
    append(&pipeline, StreamId::new("stripe_charge", "ch_1"), vec![new(&charge("ch_1", TOO_MUCH))]).await;
    let link = StripeObjectsLinked { from: id("re_1"), to: id("ch_1") };
    let link = Delivery { object: id("re_1"), facts: vec![link.into()] };
    pipeline.executor.deliver(link, None, &metadata()).await.unwrap();
    pipeline.settle().await;
    let clearing = ("assets:stripe:clearing".to_owned(), "usd".to_owned());
    assert_eq!(pipeline.trial().await.get(&clearing), None, "it is in no books");
    assert_eq!(words(&pipeline, "evt_1").await, [NotTranslatedReason::Untranslatable]);

    // What made the charge refuse is mended by a later snapshot of it, and the refund is told of again.
    let mended = serde_json::json!({
        "id": "evt_2", "object": "event", "type": "charge.updated", "created": 1_790_000_020, "livemode": false,
        "data": {"object": {
            "id": "ch_1", "object": "charge", "amount": 1000, "amount_captured": 1000, "currency": "usd",
            "created": 1_790_000_000, "status": "succeeded", "captured": true, "metadata": {},
        }},
    });
    pipeline.receive(&mended).await.unwrap();
    pipeline.settle().await;
    pipeline.receive(&refund_event("evt_3", "refund.updated", 30)).await.unwrap();
    pipeline.settle().await;
    assert_eq!(pipeline.trial().await.get(&clearing), Some(&-500), "{:?}", pipeline.trial().await);

    // Only translating the same webhook again says that nothing of it is refused any more; and it says so once.
    for _ in 0..2 {
        let done = retranslate(&pipeline).await;
        assert_eq!((done.events, done.translated, done.refused), (3, 3, 0), "{done:?}");
        let expected = [NotTranslatedReason::Untranslatable, NotTranslatedReason::NoFacts];
        assert_eq!(words(&pipeline, "evt_1").await, expected);
    }
    assert_eq!(words(&pipeline, "evt_3").await, []);
}

async fn retranslate(pipeline: &Pipeline) -> operations::Retranslated {
    let (executor, reader, vault) = (&pipeline.executor, &pipeline.reader, &pipeline.vault);
    operations::retranslate(executor, reader, vault, false, &RetranslateFilter::default(), |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_charge_that_is_refused_stops_no_release_and_what_was_released_is_not_looked_at_again() {
    let pipeline = Pipeline::start(None).await;
    let facts = |name: &str, amount: i64| -> Vec<Event> {
        let owner = id(name);
        let transaction = transaction(&format!("txn_{name}"), name, Category::Charge, amount);
        vec![charge(name, amount), BalanceTransactionObserved { owner, transaction }.into()]
    };
    for name in ["ch_a", "ch_z"] {
        let delivery = Delivery { object: id(name), facts: facts(name, 1000) };
        pipeline.executor.deliver(delivery, None, &metadata()).await.unwrap();
    }
    let unpostable = facts("ch_m", TOO_MUCH).iter().map(new).collect();
    append(&pipeline, StreamId::new("stripe_charge", "ch_m"), unpostable).await;

    let release = async || {
        let through = at(100 * 86_400);
        operations::release(&pipeline.executor, &pipeline.reader, "system:test", through, |_| {}).await.unwrap()
    };
    let done = release().await;
    assert_eq!((done.charges, done.released), (3, 2), "{done:?}");
    let [(refused, why)] = done.refused.as_slice() else { panic!("{done:?}") };
    assert!(refused == "ch_m" && why.contains("ch_m"), "{refused}: {why}");

    let again = release().await;
    assert_eq!((again.charges, again.released, again.refused.len()), (1, 0, 1), "only what is not released: {again:?}");
}

/// A stored webhook of a later program's form is not passed over in silence.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_counted_when_it_is_to_be_translated_again() {
    let pipeline = Pipeline::start(None).await;
    pipeline.receive(&refund_event("evt_1", "refund.created", 10)).await.unwrap();
    let (event_type, event_version) = (StripeEventReceived::TYPE.to_owned(), "99".to_owned());
    let later = NewEvent { event_type, event_version, payload: "{}".to_owned() };
    append(&pipeline, StreamId::new("stripe_event", "evt_2"), vec![later]).await;
    let done = retranslate(&pipeline).await;
    assert_eq!((done.events, done.translated, done.unreadable), (2, 1, 1), "{done:?}");
}
