//! Transfers, payouts, application fees, and balance transactions that belong to no object: `ledger.md`, "Other objects".

use std::collections::BTreeMap;

use serde_json::Value;

use super::Lines;
use super::attribution::is_creator;
use super::cash::{PROCESSING, UNCONFIRMED, account, cash, category};
use super::seen::{Seen, minor, text};

pub(crate) fn lines(seen: &Seen, instant: i64) -> Lines {
    let mut all = Lines::default();
    for (kind, write) in [
        ("transfer", transfer as fn(&Seen, &str, i64) -> Lines),
        ("payout", payout as fn(&Seen, &str, i64) -> Lines),
        ("application_fee", application_fee as fn(&Seen, &str, i64) -> Lines),
        ("topup", topup as fn(&Seen, &str, i64) -> Lines),
    ] {
        for id in seen.ids(kind) {
            let mut lines = write(seen, &id, instant);
            // These settle in their own currency: what only one of object and balance transaction says is unconfirmed.
            for (currency, minor) in lines.left() {
                lines.cr(UNCONFIRMED, &currency, minor);
            }
            all.add(lines);
        }
    }
    all.add(alone(seen, instant));
    all
}

/// The parts of it that were given back, by id, with their `created`.
fn parts(seen: &Seen, kind: &str, id: &str, field: &str) -> BTreeMap<String, Value> {
    let snapshots = seen.snapshots(kind, id);
    let all = snapshots.iter().filter_map(|snapshot| snapshot.object[field]["data"].as_array()).flatten();
    all.map(|part| (text(part, "id").unwrap(), part.clone())).collect()
}

/// How much of it was given back by an instant, and the cash of that.
fn given_back(seen: &Seen, kind: &str, id: &str, field: &str, instant: i64, lines: &mut Lines) -> i128 {
    let mut back = 0;
    for (part_id, part) in parts(seen, kind, id, field) {
        for transaction in seen.transactions_of(&part_id, instant) {
            cash(lines, transaction, PROCESSING);
        }
        if part["created"].as_i64().unwrap() <= instant {
            back += minor(&part, "amount");
        }
    }
    back
}

fn own_cash(seen: &Seen, id: &str, fee_account: &str, instant: i64, lines: &mut Lines) {
    for transaction in seen.transactions_of(id, instant) {
        if category(transaction) != "fee" {
            cash(lines, transaction, fee_account);
        }
    }
}

fn begun(object: &Value, instant: i64) -> bool {
    object["created"].as_i64().unwrap() <= instant
}

fn transfer(seen: &Seen, id: &str, instant: i64) -> Lines {
    let mut lines = Lines::default();
    own_cash(seen, id, PROCESSING, instant, &mut lines);
    let back = given_back(seen, "transfer", id, "reversals", instant, &mut lines);
    let transfer = seen.newest("transfer", id).unwrap();
    if begun(transfer, instant) {
        let (currency, sent) = (text(transfer, "currency").unwrap(), minor(transfer, "amount") - back);
        let account = match transfer["metadata"]["creator_id"].as_str() {
            Some(creator) if is_creator(creator) => {
                lines.tell(creator, &currency, "payouts", None, -sent);
                format!("liabilities:creators:{creator}:available")
            }
            Some(_) | None => "liabilities:suspense:unknown-creator".to_owned(),
        };
        lines.dr(&account, &currency, sent);
    }
    lines
}

fn payout(seen: &Seen, id: &str, instant: i64) -> Lines {
    let mut lines = Lines::default();
    own_cash(seen, id, "expenses:payout-fees", instant, &mut lines);
    let payout = seen.newest("payout", id).unwrap();
    if begun(payout, instant) {
        let status = seen.newest_at("payout", id, instant).and_then(|payout| payout["status"].as_str());
        let account = match status {
            Some("paid") => Some("assets:bank"),
            Some("failed" | "canceled") => None,
            // On its way since its `created`, whichever event told of it first.
            _ => Some("assets:payouts:in-transit"),
        };
        if let Some(account) = account {
            lines.dr(account, &text(payout, "currency").unwrap(), minor(payout, "amount"));
        }
    }
    lines
}

fn application_fee(seen: &Seen, id: &str, instant: i64) -> Lines {
    let mut lines = Lines::default();
    own_cash(seen, id, PROCESSING, instant, &mut lines);
    let back = given_back(seen, "application_fee", id, "refunds", instant, &mut lines);
    let fee = seen.newest("application_fee", id).unwrap();
    if begun(fee, instant) {
        let (amount, currency) = (minor(fee, "amount"), text(fee, "currency").unwrap());
        if fee["originating_transaction"].is_string() {
            lines.cr("liabilities:suspense:unknown-creator", &currency, amount - back);
        } else {
            lines.cr("income:platform-fees", &currency, amount);
            lines.dr("income:refunds", &currency, back);
        }
    }
    lines
}

/// Money of the platform's bank: by its balance transactions; until there is one, from when an event says that it succeeded.
fn topup(seen: &Seen, id: &str, instant: i64) -> Lines {
    let mut lines = Lines::default();
    own_cash(seen, id, "expenses:processing-fees:products", instant, &mut lines);
    let topup = seen.newest("topup", id).unwrap();
    let moved = seen.transactions_of(id, instant).into_iter().filter(|transaction| category(transaction) != "fee");
    let mut is_confirmed = false;
    for transaction in moved {
        lines.cr("assets:bank", &text(transaction, "currency").unwrap(), minor(transaction, "amount"));
        is_confirmed = true;
    }
    let succeeded = seen.newest_at("topup", id, instant).is_some_and(|topup| topup["status"] == "succeeded");
    if succeeded && !is_confirmed {
        lines.cr("assets:bank", &text(topup, "currency").unwrap(), minor(topup, "amount"));
    }
    lines
}

/// What belongs to no object: by category. And what belongs to one that was never seen: unconfirmed.
fn alone(seen: &Seen, instant: i64) -> Lines {
    const OF_OBJECTS: &[&str] = &[
        "charge",
        "charge_failure",
        "partial_capture_reversal",
        "refund",
        "refund_failure",
        "dispute",
        "dispute_reversal",
        "payout",
        "payout_reversal",
        "transfer",
        "transfer_reversal",
        "platform_earning",
        "platform_earning_refund",
        "topup",
        "topup_reversal",
    ];
    let mut has_object: Vec<String> = seen.charge_ids().into_iter().collect();
    for kind in ["refund", "dispute", "payout", "transfer", "application_fee", "topup"] {
        has_object.extend(seen.ids(kind));
    }
    for id in seen.ids("transfer") {
        has_object.extend(parts(seen, "transfer", &id, "reversals").into_keys());
    }
    for id in seen.ids("application_fee") {
        has_object.extend(parts(seen, "application_fee", &id, "refunds").into_keys());
    }
    has_object.sort();
    let mut lines = Lines::default();
    for (id, transaction) in &seen.transactions {
        if transaction["created"].as_i64().unwrap() > instant {
            continue;
        }
        let of_an_object = OF_OBJECTS.contains(&category(transaction).as_str());
        let object_is_here = seen.owner.get(id).is_some_and(|owner| has_object.binary_search(owner).is_ok());
        if of_an_object && object_is_here {
            continue;
        }
        // A top-up can only be the bank's money, whether or not its object was seen.
        let waits = of_an_object && !category(transaction).starts_with("topup");
        let counter = if waits { UNCONFIRMED.to_owned() } else { account(transaction) };
        let fee_account = match category(transaction).as_str() {
            "charge" | "charge_failure" | "partial_capture_reversal" | "refund" | "refund_failure" => PROCESSING,
            "dispute" | "dispute_reversal" => "expenses:dispute-fees",
            "payout" | "payout_reversal" => "expenses:payout-fees",
            _ => "expenses:processing-fees:products",
        };
        cash(&mut lines, transaction, fee_account);
        lines.cr(&counter, &text(transaction, "currency").unwrap(), minor(transaction, "amount"));
    }
    lines
}
