//! Creators who can be paid: their connected accounts, and sales that leave no doubt whose they are. The histories of the devkit are
//! of everything that goes wrong, so that often nothing of them may be paid out.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// The creators of a history.
pub(crate) const CREATORS: [&str; 4] = ["crt_ada", "crt_bel", "crt_cho", "crt_other"];
/// When all this was: 2026-01-01 00:00 UTC, in seconds.
const THEN: i64 = 1_767_225_600;
/// Sales of one history.
const SALES: std::ops::RangeInclusive<usize> = 3..=6;

fn event(id: &str, kind: &str, created: i64, object: &Value) -> Value {
    json!({
        "id": id, "object": "event", "api_version": "2026-10-28.endive", "created": created, "livemode": false,
        "pending_webhooks": 1, "type": kind, "data": { "object": object },
    })
}

/// Whose the connected accounts are, as Stripe tells it twice. Most can be paid; some creators have two accounts.
pub(crate) fn accounts(random: &mut StdRng) -> Vec<Value> {
    let mut events = Vec::new();
    for (which, creator) in CREATORS.iter().enumerate() {
        let accounts = if random.random_range(0..20) == 0 { 2 } else { 1 };
        for (account, told) in (0..accounts).flat_map(|account| (0..2).map(move |told| (account, told))) {
            // What is told last counts, in whichever order it comes.
            let is_able = random.random_range(0..10) < if told == 0 { 5 } else { 9 };
            let due: &[&str] = if is_able { &[] } else { &["external_account"] };
            let id = format!("acct_1Sim{which}{account}");
            let object = json!({
                "id": id, "object": "account", "capabilities": { "transfers": if is_able { "active" } else { "inactive" } },
                "charges_enabled": false, "created": THEN, "details_submitted": true, "livemode": false,
                "metadata": { "creator_id": creator }, "payouts_enabled": is_able,
                "requirements": { "currently_due": due, "disabled_reason": null, "eventually_due": due, "past_due": due },
                "type": "express",
            });
            let mut told =
                event(&format!("evt_1Account{which}{account}{told}"), "account.updated", THEN + told, &object);
            told["account"] = id.into();
            events.push(told);
        }
    }
    events
}

/// Sales that went well: what Stripe sends, and the balance transactions behind it. Some move more than one person may.
pub(crate) fn sales(random: &mut StdRng) -> (Vec<Value>, Vec<Value>) {
    let (mut events, mut transactions) = (Vec::new(), Vec::new());
    for number in 0..random.random_range(SALES) {
        let (id, transaction) = (format!("ch_1Sale{number}"), format!("txn_1Sale{number}"));
        let amount: i64 = random.random_range(3_000..150_000);
        let creator = CREATORS.choose(random).copied().unwrap_or(CREATORS[0]);
        let object = json!({
            "id": id, "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": 0,
            "balance_transaction": transaction, "captured": true, "created": THEN, "currency": "usd", "customer": null,
            "disputed": false, "failure_balance_transaction": null, "livemode": false,
            "metadata": { "creator_id": creator }, "paid": true, "payment_intent": null, "refunded": false,
            "status": "succeeded",
        });
        events.push(event(&format!("evt_1Sale{number}"), "charge.succeeded", THEN, &object));
        transactions.push(json!({
            "id": transaction, "object": "balance_transaction", "amount": amount, "available_on": THEN, "created": THEN,
            "currency": "usd", "description": null, "exchange_rate": null, "fee": 0, "fee_details": [], "net": amount,
            "reporting_category": "charge", "source": id, "status": "available", "type": "charge",
        }));
    }
    (events, transactions)
}
