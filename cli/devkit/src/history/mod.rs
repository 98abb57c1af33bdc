//! Made-up histories of payments: webhook events and the balance transactions behind them.
//!
//! [`demo`] is what `fanledger seed` plays: eight creators and three hundred fans over six months. [`random`] is for
//! property tests: few of everything, and all that goes wrong. Both depend on their arguments alone.
//!
//! Reading order: `objects` (Stripe's shapes), `world` (what can happen, and what Stripe then sends), `demo`, `random`.
//! Shapes follow Stripe's API reference, <https://docs.stripe.com/api>; three generations of it, because an event
//! keeps the shape of the API version that its account had.

mod demo;
mod objects;
mod random;
mod world;

use serde_json::Value;

pub use demo::demo;
pub use random::random;

/// What Stripe sends, and what its API knows.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The webhook events, by `created`, in the order in which they happened.
    pub events: Vec<Value>,
    /// The balance transactions of the platform's account, for a stand-in for Stripe's API.
    pub balance_transactions: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use chrono::{TimeZone, Utc};

    use super::*;

    fn demo_history() -> History {
        demo(7, Utc.with_ymd_and_hms(2026, 7, 1, 0, 0, 0).unwrap())
    }

    fn check(history: &History) {
        let mut ids = BTreeSet::new();
        for event in &history.events {
            assert!(ids.insert(event["id"].as_str().unwrap()), "twice: {}", event["id"]);
            assert_eq!(event["object"], "event");
            assert!(event["data"]["object"]["id"].is_string(), "{event}");
        }
        let created: Vec<i64> = history.events.iter().map(|event| event["created"].as_i64().unwrap()).collect();
        assert!(created.is_sorted());
        let mut transactions = BTreeSet::new();
        for transaction in &history.balance_transactions {
            assert!(transactions.insert(transaction["id"].as_str().unwrap()));
            let amount = |name: &str| transaction[name].as_i64().unwrap();
            assert_eq!(amount("net"), amount("amount") - amount("fee"), "{transaction}");
            let details = transaction["fee_details"].as_array().unwrap();
            let fees: i64 = details.iter().map(|detail| detail["amount"].as_i64().unwrap()).sum();
            assert_eq!(fees, amount("fee"), "{transaction}");
        }
        let ours = history.events.iter().filter(|event| event["livemode"] == false && event.get("account").is_none());
        for event in ours {
            for named in ["balance_transaction", "failure_balance_transaction"] {
                if let Some(id) = event["data"]["object"][named].as_str() {
                    assert!(transactions.contains(id), "{id} of {} is unknown to the API", event["id"]);
                }
            }
        }
    }

    #[test]
    fn the_demo_is_consistent_and_of_the_size_that_the_tour_tells() {
        let history = demo_history();
        check(&history);
        assert!((3000..6000).contains(&history.events.len()), "{} events", history.events.len());
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for event in &history.events {
            *types.entry(event["type"].as_str().unwrap()).or_default() += 1;
        }
        for kind in [
            "charge.succeeded",
            "charge.updated",
            "charge.refunded",
            "charge.dispute.created",
            "charge.dispute.closed",
            "charge.dispute.funds_reinstated",
            "refund.created",
            "refund.failed",
            "invoice.paid",
            "invoice_payment.paid",
            "checkout.session.completed",
            "payout.paid",
            "payout.failed",
            "transfer.created",
            "transfer.reversed",
            "application_fee.created",
            "application_fee.refunded",
            "topup.succeeded",
            "customer.subscription.created",
            "account.updated",
        ] {
            assert!(types.contains_key(kind), "no {kind} among {types:?}");
        }
        let currencies: BTreeSet<&str> =
            history.events.iter().filter_map(|event| event["data"]["object"]["currency"].as_str()).collect();
        assert_eq!(currencies, BTreeSet::from(["eur", "gbp", "jpy", "kwd", "usd"]));
    }

    #[test]
    fn the_demo_ends_when_it_is_told_to() {
        let end = Utc.with_ymd_and_hms(2026, 7, 1, 0, 0, 0).unwrap().timestamp();
        assert!(demo_history().events.iter().all(|event| event["created"].as_i64().unwrap() <= end));
    }

    #[test]
    fn a_seed_says_all() {
        assert_eq!(demo_history(), demo_history());
        assert_eq!(random(3, 20), random(3, 20));
        assert_ne!(random(3, 20), random(4, 20));
    }

    #[test]
    fn random_histories_are_consistent() {
        (0..50).for_each(|seed| check(&random(seed, 12)));
    }
}
