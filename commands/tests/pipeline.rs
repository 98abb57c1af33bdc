//! From signed webhooks to balances, over a real Postgres and a stand-in for Stripe's API that speaks HTTP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use fanledger_commands::operations;
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature::Secret;
use fanledger_commands::vault::{Vault, VaultCheckError, VaultKey};
use fanledger_devkit::history;
use fanledger_devkit::stripe::sign;
use fanledger_domain::event::Event;
use fanledger_journal::database::connect;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use support::{Pipeline, SECRET};

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_by_webhook_ends_in_balanced_books() {
    let history = history::random(1, 20);
    let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    pipeline.settle().await;
    let trial = pipeline.trial().await;
    assert!(trial.keys().any(|(account, _)| account == "assets:stripe:clearing"), "{trial:?}");
    // Every raw event led to facts, to a reason, or told nothing that was not known.
    let events = pipeline.events().await;
    let caused: std::collections::BTreeSet<String> = events
        .iter()
        .filter(|(_, event)| !matches!(event, Event::StripeEventReceived(_)))
        .filter_map(|(recorded, _)| {
            let metadata: serde_json::Value = serde_json::from_str(&recorded.metadata).unwrap();
            metadata["causation_id"].as_str().map(str::to_owned)
        })
        .collect();
    for event in &history.events {
        let id = event["id"].as_str().unwrap();
        // Of a source only the newest snapshot matters: an older one that comes later is known already.
        let may_be_known =
            ["payment_intent.", "checkout.session.", "invoice.", "customer.subscription.", "invoice_payment."]
                .iter()
                .any(|prefix| event["type"].as_str().unwrap().starts_with(prefix));
        assert!(may_be_known || caused.contains(id), "{id} {} led to nothing", event["type"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_with_duplicates_ends_the_same() {
    let history = history::random(7, 40);
    let mut expected = None;
    for seed in 0..4_u64 {
        let mut events = history.events.clone();
        if seed > 0 {
            events.extend(history.events.iter().step_by(3).cloned());
            events.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
        }
        let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
        for (index, event) in events.iter().enumerate() {
            pipeline.receive(event).await.unwrap();
            // Translate in between, at places that differ by seed.
            if seed > 1 && (index as u64 + seed).is_multiple_of(17) {
                pipeline.settle().await;
            }
        }
        pipeline.settle().await;
        operations::sync(&pipeline.executor, pipeline.api.as_deref().unwrap(), None, |_| {}).await.unwrap();
        pipeline.settle().await;
        let trial = pipeline.trial().await;
        match &expected {
            None => expected = Some(trial),
            Some(expected) => assert_eq!(*expected, trial, "seed {seed}"),
        }
        // The books are what the code says today, and saying it again posts nothing.
        let converged =
            operations::converge(&pipeline.executor, &pipeline.reader, "system:test", false, |_| {}).await.unwrap();
        assert_eq!((converged.differing.len(), converged.entries, converged.refused.len()), (0, 0, 0));
    }
}

/// What is sealed with another key than the rest is opened by nobody, so no process begins with one.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_key_that_opens_nothing_is_refused() {
    let pipeline = Pipeline::start(None).await;
    let pool = connect(&pipeline.database.url_for("fanledger_command"), 2).await.unwrap();
    let other = Vault::new(VaultKey::new([4; 32]), pool);
    other.check().await.unwrap();
    let event =
        serde_json::json!({"id": "evt_1", "object": "event", "type": "charge.succeeded", "data": {"object": {}}});
    pipeline.receive(&event).await.unwrap();
    pipeline.vault.check().await.unwrap();
    let refused = other.check().await;
    assert!(matches!(refused, Err(VaultCheckError::OtherKey(1))), "{refused:?}");
    // One key that opens is enough: somebody may have sealed a few with the wrong one.
    let intake = Intake::new(pipeline.executor.clone(), other.clone(), vec![Secret::new(SECRET).unwrap()]);
    let mut second = event.clone();
    second["id"] = "evt_2".into();
    let body = serde_json::to_vec(&second).unwrap();
    let header = sign(SECRET, 1_770_000_000, &body);
    intake.receive_at(1_770_000_000, Some(header.as_bytes()), &body).await.unwrap();
    pipeline.vault.check().await.unwrap();
    other.check().await.unwrap();
}

/// Stripe's list does not always say what a balance transaction is of; whoever names it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_transaction_without_a_source_counts_once() {
    let history = history::random(7, 40);
    let mut silent = history.balance_transactions.clone();
    let mut silenced = 0;
    for transaction in &mut silent {
        // What no object names either cannot be known to be anybody's.
        let id = format!("\"{}\"", transaction["id"].as_str().unwrap());
        let is_named = history.events.iter().any(|event| event.to_string().contains(&id));
        if is_named && ["charge", "refund", "payout", "transfer"].contains(&transaction["type"].as_str().unwrap()) {
            transaction["source"] = serde_json::Value::Null;
            silenced += 1;
        }
    }
    assert!(silenced > 15, "{silenced}");
    let mut expected = None;
    for (transactions, syncs_first) in [(&history.balance_transactions, false), (&silent, false), (&silent, true)] {
        let mut pipeline = Pipeline::start(Some(transactions)).await;
        let api = pipeline.api.clone().unwrap();
        if syncs_first {
            operations::sync(&pipeline.executor, api.as_ref(), None, |_| {}).await.unwrap();
        }
        for event in &history.events {
            pipeline.receive(event).await.unwrap();
        }
        pipeline.settle().await;
        operations::sync(&pipeline.executor, api.as_ref(), None, |_| {}).await.unwrap();
        pipeline.settle().await;
        let trial = pipeline.trial().await;
        match &expected {
            None => expected = Some(trial),
            Some(expected) => assert_eq!(*expected, trial, "listed first: {syncs_first}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn translating_again_posts_nothing_twice() {
    let history = history::random(11, 25);
    let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    let head = pipeline.settle().await;
    let filter = operations::RetranslateFilter::default();
    let again = operations::retranslate(&pipeline.executor, &pipeline.reader, &pipeline.vault, false, &filter, |_| {})
        .await
        .unwrap();
    assert_eq!(again.events, history.events.len() as u64);
    assert_eq!(again.appended, 0);
    assert_eq!(pipeline.settle().await, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_again_is_a_duplicate_and_another_body_is_recorded_once() {
    let pipeline = Pipeline::start(None).await;
    let first =
        serde_json::json!({"id": "evt_1", "object": "event", "type": "charge.succeeded", "data": {"object": {}}});
    let mut other = first.clone();
    other["created"] = 5.into();
    let receipt = pipeline.receive(&first).await.unwrap();
    assert_eq!((receipt.position.get(), receipt.duplicate, receipt.conflict), (1, false, false));
    let receipt = pipeline.receive(&first).await.unwrap();
    assert_eq!((receipt.position.get(), receipt.duplicate, receipt.conflict), (1, true, false));
    for _ in 0..2 {
        let receipt = pipeline.receive(&other).await.unwrap();
        assert_eq!((receipt.position.get(), receipt.duplicate, receipt.conflict), (1, true, true));
    }
    let differed =
        pipeline.events().await.iter().filter(|(_, event)| matches!(event, Event::StripeEventBodyDiffered(_))).count();
    assert_eq!(differed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_stored_named_and_passed() {
    let mut pipeline = Pipeline::start(None).await;
    let bodies: [&[u8]; 5] = [
        br#"{"id":"evt_a","object":"event","type":"charge.succeeded","created":1,"livemode":false,"data":{"object":{"id":"ch_1","object":"charge","currency":"usd"}}}"#,
        br#"{"id":"evt_b","object":"event","type":"charge.succeeded","created":1,"livemode":false,"data":{"object":{"id":"ch_1","object":"charge","amount":9223372036854775807,"currency":"usd"}}}"#,
        br#"{"id":"evt_c","object":"v2.core.event","type":"v1.billing.meter"}"#,
        br#"{"id":"evt_d","object":"event","type":"customer.created","created":1,"livemode":false,"data":{"object":{"id":"cus_1","object":"customer"}}}"#,
        br#"{"id":"evt_e","type":"charge.succeeded","data":{"object":"#,
    ];
    for body in bodies {
        assert!(!pipeline.receive_bytes(body).await.unwrap().duplicate);
    }
    pipeline.settle().await;
    let reasons: Vec<String> = pipeline
        .events()
        .await
        .into_iter()
        .filter_map(|(_, event)| match event {
            Event::StripeEventNotTranslated(fact) => Some(format!("{} {}", fact.id, fact.reason)),
            _ => None,
        })
        .collect();
    let mut sorted = reasons.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        ["evt_a untranslatable", "evt_b untranslatable", "evt_c thin_event", "evt_d unused_type", "evt_e undecodable",]
    );
    assert!(pipeline.receive_bytes(b"{}").await.is_err());
}

/// A refund may name the payment intent only, whose first attempt failed: it belongs to the charge that was captured.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_without_its_charge_finds_the_captured_attempt_in_any_order() {
    let charge = |id: &str, status: &str| {
        serde_json::json!({
            "id": format!("evt_{id}"), "object": "event", "type": format!("charge.{status}"), "created": 1_790_000_000,
            "livemode": false, "data": {"object": {
                "id": id, "object": "charge", "amount": 1000, "currency": "usd", "created": 1_790_000_000,
                "status": status, "captured": status == "succeeded", "payment_intent": "pi_1",
                "metadata": {"creator_id": "crt_1"},
            }},
        })
    };
    let refund = serde_json::json!({
        "id": "evt_re_1", "object": "event", "type": "refund.created", "created": 1_790_000_100, "livemode": false,
        "data": {"object": {
            "id": "re_1", "object": "refund", "amount": 500, "currency": "usd", "created": 1_790_000_100,
            "status": "succeeded", "charge": null, "payment_intent": "pi_1",
        }},
    });
    let events = [charge("ch_a", "failed"), charge("ch_b", "succeeded"), refund];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut pipeline = Pipeline::start(None).await;
        for index in order {
            pipeline.receive(&events[index]).await.unwrap();
            pipeline.settle().await;
        }
        let trial = pipeline.trial().await;
        let pending = trial.get(&("liabilities:creators:crt_1:pending".to_owned(), "usd".to_owned()));
        assert_eq!(pending, Some(&-400), "{order:?}: {trial:?}");
        // Whoever looks at any entry finds the webhook behind it.
        for (recorded, event) in pipeline.events().await {
            if let Event::EntryPosted(entry) = event {
                assert!(entry.cause.stripe_event.is_some(), "{order:?}, position {}: {entry:?}", recorded.position);
            }
        }
    }
}

/// A transfer's event embeds its reversal's balance transaction; the list gives the same one with the reversal as its source.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_transaction_embedded_and_then_listed_counts_once() {
    let transaction = |id: &str, amount: i64, category: &str, source: &str| {
        serde_json::json!({
            "id": id, "object": "balance_transaction", "amount": amount, "fee": 0, "net": amount, "currency": "usd",
            "created": 1_790_000_000, "available_on": 1_790_000_000, "type": category, "reporting_category": category,
            "source": source, "fee_details": [],
        })
    };
    let back = transaction("txn_back", 300, "transfer_reversal", "trr_1");
    let mut pipeline = Pipeline::start(Some(&[transaction("txn_out", -1000, "transfer", "tr_1"), back.clone()])).await;
    let event = serde_json::json!({
        "id": "evt_1", "object": "event", "type": "transfer.reversed", "created": 1_790_000_000, "livemode": false,
        "data": {"object": {
            "id": "tr_1", "object": "transfer", "amount": 1000, "amount_reversed": 300, "currency": "usd",
            "created": 1_790_000_000, "destination": "acct_1", "balance_transaction": "txn_out",
            "metadata": {"creator_id": "crt_1"},
            "reversals": {"object": "list", "data": [{
                "id": "trr_1", "object": "transfer_reversal", "amount": 300, "currency": "usd",
                "created": 1_790_000_000, "balance_transaction": back,
            }]},
        }},
    });
    pipeline.receive(&event).await.unwrap();
    pipeline.settle().await;
    operations::sync(&pipeline.executor, pipeline.api.as_deref().unwrap(), None, |_| {}).await.unwrap();
    pipeline.settle().await;
    // Ties out, too.
    let trial = pipeline.trial().await;
    assert_eq!(trial.get(&("assets:stripe:clearing".to_owned(), "usd".to_owned())), Some(&-700), "{trial:?}");
}

/// Listed first, it stands with its refund; the charge's event then embeds it, links the refund, and has it taken over. Whatever
/// else is under way in the batch, the refund gives up first: between the two a balance may lack it, and never has it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_satellite_gives_up_before_its_owner_takes_over() {
    const OBJECTS: usize = 24;
    let transaction = |n: usize| {
        serde_json::json!({
            "id": format!("txn_{n}"), "object": "balance_transaction", "amount": -1383, "fee": 0, "net": -1383,
            "currency": "usd", "created": 1_790_400_000, "available_on": 1_790_400_000, "type": "payment_failure_refund",
            "reporting_category": "charge_failure", "source": format!("pyr_{n}"), "fee_details": [],
        })
    };
    let listed: Vec<_> = (0..OBJECTS).map(transaction).collect();
    let mut pipeline = Pipeline::start(Some(&listed)).await;
    operations::sync(&pipeline.executor, pipeline.api.as_deref().unwrap(), None, |_| {}).await.unwrap();
    pipeline.settle().await;
    for n in 0..OBJECTS {
        let event = serde_json::json!({
            "id": format!("evt_{n}"), "object": "event", "type": "charge.failed", "created": 1_790_400_000, "livemode": false,
            "data": {"object": {
                "id": format!("py_{n}"), "object": "charge", "amount": 1299, "amount_captured": 1299, "currency": "usd",
                "created": 1_790_000_000, "captured": true, "paid": false, "status": "failed", "balance_transaction": null,
                "failure_balance_transaction": transaction(n), "metadata": {},
            }},
        });
        pipeline.receive(&event).await.unwrap();
    }
    pipeline.settle().await;
    let events = pipeline.events().await;
    for n in 0..OBJECTS {
        let position = |stream: &str, is_it: &dyn Fn(&Event) -> bool| {
            let found = events.iter().find(|(recorded, event)| recorded.stream.aggregate_id == stream && is_it(event));
            found.map(|(recorded, _)| recorded.position)
        };
        let listed = position(&format!("pyr_{n}"), &|event| matches!(event, Event::BalanceTransactionObserved(_)));
        let given_up = position(&format!("pyr_{n}"), &|event| matches!(event, Event::StripeObjectsLinked(_)));
        let taken_over = position(&format!("py_{n}"), &|event| matches!(event, Event::BalanceTransactionObserved(_)));
        assert!(listed.is_some() && listed < given_up, "{listed:?} {given_up:?}");
        assert!(taken_over.is_some() && given_up < taken_over, "{n}: given up {given_up:?}, taken over {taken_over:?}");
    }
}

/// A charge names the balance transaction of its failure; in Stripe's list the same one has a `pyr_…` as its source.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_transaction_named_by_one_object_and_of_another_counts_once_in_any_order() {
    let transaction = |id: &str, created: i64, amount: i64, fee: i64, category: &str, source: &str| {
        serde_json::json!({
            "id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee, "currency": "usd",
            "created": created, "available_on": created, "type": category, "reporting_category": category,
            "source": source, "fee_details": [],
        })
    };
    let listed = [
        transaction("txn_c", 1_790_000_000, 1424, 71, "charge", "py_1"),
        transaction("txn_f", 1_790_400_000, -1383, 0, "charge_failure", "pyr_1"),
    ];
    let event = |id: &str, created: i64, kind: &str, status: &str, failure: Option<&str>| {
        serde_json::json!({
            "id": id, "object": "event", "type": kind, "created": created, "livemode": false,
            "data": {"object": {
                "id": "py_1", "object": "charge", "amount": 1299, "amount_captured": 1299, "currency": "eur",
                "created": 1_790_000_000, "captured": true, "paid": status == "succeeded", "status": status,
                "balance_transaction": "txn_c", "failure_balance_transaction": failure, "metadata": {},
            }},
        })
    };
    let events = [
        event("evt_1", 1_790_000_000, "charge.succeeded", "succeeded", None),
        event("evt_2", 1_790_400_000, "charge.failed", "failed", Some("txn_f")),
    ];
    let expected: support::Trial = [
        (("assets:stripe:clearing".to_owned(), "usd".to_owned()), -30),
        (("expenses:processing-fees:payments".to_owned(), "usd".to_owned()), 71),
        (("income:fx".to_owned(), "usd".to_owned()), -41),
    ]
    .into();
    for listed_first in [true, false] {
        let mut pipeline = Pipeline::start(Some(&listed)).await;
        for turn in [listed_first, !listed_first] {
            if turn {
                let api = pipeline.api.as_deref().unwrap();
                operations::sync(&pipeline.executor, api, None, |_| {}).await.unwrap();
            } else {
                for event in &events {
                    pipeline.receive(event).await.unwrap();
                }
            }
            pipeline.settle().await;
        }
        assert_eq!(pipeline.trial().await, expected, "listed first: {listed_first}");
    }
}
