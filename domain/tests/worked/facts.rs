//! Facts as the examples want them: one charge `ch_1`, what happens to it, and when.

use fanledger_domain::event::{BalanceTransactionObserved, ChargeObserved, DisputeObserved, Event, RefundObserved};
use fanledger_domain::facts::*;
use fanledger_domain::split::BasisPoints;
use fanledger_domain::time::Timestamp;

const CREATED: i64 = 1_770_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(CREATED + seconds).unwrap()
}

pub fn stamp(seconds: i64, event: &str) -> EventStamp {
    EventStamp { created: at(seconds), event: event.parse().unwrap() }
}

pub fn attribution(share: u16, tax: i64) -> Offer {
    Offer::Valid(Attribution {
        creator: "crt_1".parse().unwrap(),
        fan: None,
        kind: None,
        share: Some(BasisPoints::new(share).unwrap()),
        tax_minor: Some(tax),
        tax_jurisdiction: Some("us-ca".parse().unwrap()),
    })
}

pub fn charge_snapshot(currency: &str, amount: i64, offer: Offer) -> ChargeSnapshot {
    ChargeSnapshot {
        id: "ch_1".parse().unwrap(),
        created: at(0),
        currency: currency.parse().unwrap(),
        amount,
        amount_captured: amount,
        status: ChargeStatus::Succeeded,
        captured: true,
        payment_intent: None,
        invoice: None,
        balance_transaction: Some("txn_ch".parse().unwrap()),
        failure_balance_transaction: None,
        offer,
    }
}

pub fn charge(currency: &str, amount: i64, offer: Offer) -> Event {
    ChargeObserved { stamp: stamp(1, "evt_ch"), charge: charge_snapshot(currency, amount, offer) }.into()
}

pub fn transaction(
    id: &str,
    owner: &str,
    category: Category,
    seconds: i64,
    currency: &str,
    amount: i64,
    fee: i64,
) -> Event {
    let fee_details = if fee == 0 { vec![] } else { vec![FeeDetail { fee_type: FeeType::Stripe, amount: fee }] };
    BalanceTransactionObserved {
        owner: owner.parse().unwrap(),
        transaction: BalanceTransaction {
            id: id.parse().unwrap(),
            created: at(seconds),
            available_on: at(seconds + 86_400),
            currency: currency.parse().unwrap(),
            amount,
            fee,
            net: amount - fee,
            fee_details,
            category,
            reported_as: category.as_str().to_owned(),
            source: Some(owner.parse().unwrap()),
        },
    }
    .into()
}

pub fn refund(id: &str, event: &str, seconds: i64, currency: &str, amount: i64, status: RefundStatus) -> Event {
    RefundObserved {
        stamp: stamp(seconds, event),
        refund: RefundSnapshot {
            id: id.parse().unwrap(),
            created: at(100),
            currency: currency.parse().unwrap(),
            amount,
            status,
            charge: Some("ch_1".parse().unwrap()),
            payment_intent: None,
            balance_transaction: None,
            failure_balance_transaction: None,
        },
    }
    .into()
}

pub fn dispute(event: &str, seconds: i64, amount: i64, status: DisputeStatus) -> Event {
    dispute_in("usd", event, seconds, amount, status)
}

pub fn dispute_in(currency: &str, event: &str, seconds: i64, amount: i64, status: DisputeStatus) -> Event {
    DisputeObserved {
        stamp: stamp(seconds, event),
        dispute: DisputeSnapshot {
            id: "dp_1".parse().unwrap(),
            created: at(200),
            currency: currency.parse().unwrap(),
            amount,
            status,
            charge: Some("ch_1".parse().unwrap()),
            balance_transaction: None,
        },
    }
    .into()
}
