//! The worked examples of the ledger's design, each in every order of its facts, and a few more of the same kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod activity;
mod facts;
mod policy;

use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::{Balances, Books, Standing};
use fanledger_domain::entry::check_postings;
use fanledger_domain::event::{AttributionOffered, ChargeObserved, ChargeReleased, Event};
use fanledger_domain::facts::*;
use fanledger_domain::ledgered::{LedgerCommand, Ledgered};
use fanledger_domain::period::FirstOpen;

use crate::facts::{at, attribution, charge, charge_snapshot, dispute, refund, stamp, transaction};

/// Every order of `items`, by Heap's algorithm.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    fn go<T: Clone>(k: usize, items: &mut Vec<T>, all: &mut Vec<Vec<T>>) {
        if k <= 1 {
            all.push(items.clone());
            return;
        }
        for i in 0..k {
            go(k - 1, items, all);
            items.swap(if k.is_multiple_of(2) { i } else { 0 }, k - 1);
        }
    }
    let mut all = Vec::new();
    let mut items = items.to_vec();
    go(items.len(), &mut items, &mut all);
    all
}

/// Feeds the facts one by one in every order, each twice, and gives the final posted balances after checking that they never differ
/// from `books`, at any instant, and that every entry balances.
fn post_in_every_order(facts: &[Event]) -> Standing {
    let object = "ch_1".parse().unwrap();
    let mut finals: Option<Standing> = None;
    for order in permutations(facts) {
        let mut aggregate = Ledgered::<Charge>::default();
        for fact in order.iter().chain(&order) {
            let events = aggregate
                .decide(
                    &object,
                    LedgerCommand::Learn { facts: vec![fact.clone()], stripe_event: None },
                    FirstOpen::default(),
                )
                .unwrap();
            for event in &events {
                if let Event::EntryPosted(entry) = event {
                    check_postings(&entry.postings).unwrap();
                    let mut alone = Standing::default();
                    alone.post(entry);
                    assert!(alone.unexplained().is_empty(), "{entry:?}");
                }
                aggregate.evolve(event);
            }
            for instant in aggregate.books().instants() {
                assert_eq!(aggregate.posted_at(instant), aggregate.books().at(instant), "at {instant} in {order:?}");
            }
        }
        let end = aggregate.posted_at(at(1_000_000_000));
        match &finals {
            Some(known) => assert_eq!(*known, end, "{order:?}"),
            None => finals = Some(end),
        }
    }
    finals.unwrap()
}

fn expect(standing: &Standing, expected: &[(&str, &str, i128)]) {
    let mut wanted = Balances::default();
    for (account, currency, minor) in expected {
        wanted.debit(account.parse().unwrap(), currency.parse().unwrap(), *minor);
    }
    assert_eq!(standing.balances, wanted);
}

const CLEARING: &str = "assets:stripe:clearing";
const PROCESSING: &str = "expenses:processing-fees:payments";
const PENDING: &str = "liabilities:creators:crt_1:pending";
const TAX: &str = "liabilities:tax:us-ca";
const PLATFORM: &str = "income:platform-fees";

#[test]
fn refund_in_pieces_with_tax() {
    let offered: Event = AttributionOffered {
        stamp: stamp(3, "evt_in"),
        from: "in_1".parse().unwrap(),
        offer: SourceOffer::new(OfferRank::Invoice, attribution(8333, 87)),
    }
    .into();
    let mut facts = vec![
        charge("usd", 1099, Offer::Silent),
        offered,
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1099, 62),
        refund("re_1", "evt_r1", 100, "usd", 333, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -333, 0),
        refund("re_2", "evt_r2", 110, "usd", 333, RefundStatus::Succeeded),
        transaction("txn_r2", "re_2", Category::Refund, 110, "usd", -333, 0),
    ];
    expect(
        &post_in_every_order(&facts),
        &[
            (CLEARING, "usd", 371),
            (PROCESSING, "usd", 62),
            (TAX, "usd", -35),
            (PENDING, "usd", -333),
            (PLATFORM, "usd", -169),
            ("income:refunds", "usd", 104),
        ],
    );
    // … and 433 more; the first facts together, so that the orders stay countable.
    facts.truncate(3);
    facts.push(refund("re_1", "evt_r1", 100, "usd", 666, RefundStatus::Succeeded));
    facts.push(transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -666, 0));
    facts.push(refund("re_3", "evt_r3", 120, "usd", 433, RefundStatus::Pending));
    facts.push(transaction("txn_r3", "re_3", Category::Refund, 120, "usd", -433, 0));
    expect(
        &post_in_every_order(&facts),
        &[(CLEARING, "usd", -62), (PROCESSING, "usd", 62), (PLATFORM, "usd", -169), ("income:refunds", "usd", 169)],
    );
}

/// An invoice (or session) of 30.00 with 5.00 of tax inside, paid by two charges: each carries the tax of what it pays, not all of it.
/// What was read of it before it was read with its total gives way, whichever comes first.
#[test]
fn a_part_of_an_invoice_carries_that_part_of_its_tax() {
    let Offer::Valid(mut attribution) = attribution(8000, 0) else { unreachable!() };
    attribution.tax_minor = None;
    let parts = [(1000, 166, 667, 167), (2000, 333, 1333, 334), (3000, 500, 2000, 500), (3500, 500, 2400, 600)];
    let ranks = [(OfferRank::Invoice, "in_1"), (OfferRank::CheckoutSession, "cs_1")];
    for ((rank, from), (paid, tax, creator, platform)) in
        ranks.into_iter().flat_map(|rank| parts.map(|part| (rank, part)))
    {
        let offer = SourceOffer { tax_minor: Some(500), ..SourceOffer::new(rank, Offer::Valid(attribution.clone())) };
        let offered = |total_minor| {
            let offer = SourceOffer { total_minor, ..offer.clone() };
            Event::from(AttributionOffered { stamp: stamp(3, "evt_in"), from: from.parse().unwrap(), offer })
        };
        let facts = [
            charge("usd", paid, Offer::Silent),
            offered(None),
            offered(Some(3000)),
            transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", paid, 62),
        ];
        expect(
            &post_in_every_order(&facts),
            &[
                (CLEARING, "usd", i128::from(paid) - 62),
                (PROCESSING, "usd", 62),
                (TAX, "usd", -tax),
                (PENDING, "usd", -creator),
                (PLATFORM, "usd", -platform),
            ],
        );
    }
}

#[test]
fn refund_then_lost_dispute() {
    for (disputed, clearing, losses) in [(1500, -1588, 0), (2000, -2088, 500)] {
        let facts = vec![
            charge("usd", 2000, attribution(8000, 0)),
            transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 2000, 88),
            refund("re_1", "evt_r1", 100, "usd", 500, RefundStatus::Succeeded),
            transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -500, 0),
            dispute("evt_d1", 200, disputed, DisputeStatus::NeedsResponse),
            transaction("txn_d1", "dp_1", Category::Dispute, 200, "usd", -disputed, 1500),
            dispute("evt_d2", 300, disputed, DisputeStatus::Lost),
        ];
        let mut expected = vec![
            (CLEARING, "usd", clearing),
            (PROCESSING, "usd", 88),
            ("expenses:dispute-fees", "usd", 1500),
            (PLATFORM, "usd", -400),
            ("income:refunds", "usd", 100),
            ("income:chargebacks", "usd", 300),
        ];
        if losses > 0 {
            expected.push(("expenses:dispute-losses", "usd", losses));
        }
        expect(&post_in_every_order(&facts), &expected);
    }
}

#[test]
fn settled_in_another_currency() {
    let facts = vec![
        charge("eur", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1085, 61),
        refund("re_1", "evt_r1", 100, "eur", 400, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -430, 0),
    ];
    expect(
        &post_in_every_order(&facts),
        &[
            (CLEARING, "usd", 594),
            (PROCESSING, "usd", 61),
            (PENDING, "usd", -521),
            (PLATFORM, "usd", -217),
            ("income:refunds", "usd", 87),
            ("income:fx", "usd", -4),
        ],
    );
}

#[test]
fn zero_and_three_decimals() {
    let jpy = vec![
        charge("jpy", 500, attribution(8000, 45)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "jpy", 500, 18),
        refund("re_1", "evt_r1", 100, "jpy", 250, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "jpy", -250, 0),
    ];
    expect(
        &post_in_every_order(&jpy),
        &[
            (CLEARING, "jpy", 232),
            (PROCESSING, "jpy", 18),
            (TAX, "jpy", -23),
            (PENDING, "jpy", -182),
            (PLATFORM, "jpy", -91),
            ("income:refunds", "jpy", 46),
        ],
    );
    let kwd = vec![
        charge("kwd", 12340, attribution(8333, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "kwd", 12340, 560),
        refund("re_1", "evt_r1", 100, "kwd", 4110, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "kwd", -4110, 0),
    ];
    expect(
        &post_in_every_order(&kwd),
        &[
            (CLEARING, "kwd", 7670),
            (PROCESSING, "kwd", 560),
            (PENDING, "kwd", -6858),
            (PLATFORM, "kwd", -2058),
            ("income:refunds", "kwd", 686),
        ],
    );
}

#[test]
fn gross_without_its_balance_transaction_is_unconfirmed() {
    expect(
        &post_in_every_order(&[charge("usd", 1000, Offer::Silent)]),
        &[("assets:stripe:unconfirmed", "usd", 1000), ("liabilities:suspense:unattributed", "usd", -1000)],
    );
}

#[test]
fn a_balance_transaction_without_its_object_is_unconfirmed() {
    expect(
        &post_in_every_order(&[transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1000, 59)]),
        &[(CLEARING, "usd", 941), (PROCESSING, "usd", 59), ("assets:stripe:unconfirmed", "usd", -1000)],
    );
}

#[test]
fn a_refund_whose_charge_is_unknown_is_in_suspense() {
    let facts = vec![
        refund("re_1", "evt_r1", 100, "usd", 400, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -400, 0),
    ];
    expect(
        &post_in_every_order(&facts),
        &[(CLEARING, "usd", -400), ("liabilities:suspense:unknown-charge", "usd", 400)],
    );
}

#[test]
fn a_refund_that_fails_gives_back_what_it_took_at_the_instant_that_says_so() {
    let facts = vec![
        charge("usd", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1000, 59),
        refund("re_1", "evt_r1", 100, "usd", 400, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -400, 0),
        refund("re_1", "evt_r2", 500, "usd", 400, RefundStatus::Failed),
        transaction("txn_r2", "re_1", Category::RefundFailure, 500, "usd", 400, 0),
    ];
    expect(
        &post_in_every_order(&facts),
        &[(CLEARING, "usd", 941), (PROCESSING, "usd", 59), (PENDING, "usd", -800), (PLATFORM, "usd", -200)],
    );
    let mut aggregate = Ledgered::<Charge>::default();
    let learn = LedgerCommand::Learn { facts, stripe_event: None };
    let events = aggregate.decide(&"ch_1".parse().unwrap(), learn, FirstOpen::default()).unwrap();
    events.iter().for_each(|event| aggregate.evolve(event));
    expect(
        &aggregate.posted_at(at(499)),
        &[
            (CLEARING, "usd", 541),
            (PROCESSING, "usd", 59),
            (PENDING, "usd", -480),
            (PLATFORM, "usd", -200),
            ("income:refunds", "usd", 80),
        ],
    );
}

#[test]
fn a_dispute_freezes_the_creators_part_and_a_win_frees_it() {
    let mut facts = vec![
        charge("usd", 2000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 2000, 88),
        dispute("evt_d1", 200, 2000, DisputeStatus::NeedsResponse),
        transaction("txn_d1", "dp_1", Category::Dispute, 200, "usd", -2000, 1500),
    ];
    expect(
        &post_in_every_order(&facts),
        &[
            (CLEARING, "usd", -1588),
            (PROCESSING, "usd", 88),
            ("expenses:dispute-fees", "usd", 1500),
            ("assets:disputes:held", "usd", 2000),
            ("liabilities:creators:crt_1:held", "usd", -1600),
            (PLATFORM, "usd", -400),
        ],
    );
    facts.push(dispute("evt_d2", 300, 2000, DisputeStatus::Won));
    facts.push(transaction("txn_d2", "dp_1", Category::DisputeReversal, 300, "usd", 2000, -1500));
    expect(
        &post_in_every_order(&facts),
        &[(CLEARING, "usd", 1912), (PROCESSING, "usd", 88), (PENDING, "usd", -1600), (PLATFORM, "usd", -400)],
    );
    // Lost after it was won, with the money withdrawn again.
    facts.push(dispute("evt_d3", 400, 2000, DisputeStatus::Lost));
    facts.push(transaction("txn_d3", "dp_1", Category::Dispute, 400, "usd", -2000, 1500));
    facts.drain(..2).for_each(drop);
    let with_charge: Vec<Event> = [charge("usd", 2000, attribution(8000, 0))].into_iter().chain(facts).collect();
    expect(
        &post_in_every_order(&with_charge),
        &[
            (CLEARING, "usd", -3500),
            ("expenses:dispute-fees", "usd", 1500),
            ("assets:stripe:unconfirmed", "usd", 2000),
            (PLATFORM, "usd", -400),
            ("income:chargebacks", "usd", 400),
        ],
    );
}

#[test]
fn a_charge_that_fails_after_it_succeeded_leaves_fees_only() {
    let mut failed = charge_snapshot("usd", 1000, attribution(8000, 0));
    failed.status = ChargeStatus::Failed;
    failed.failure_balance_transaction = Some("txn_f".parse().unwrap());
    let facts = vec![
        charge("usd", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1000, 80),
        ChargeObserved { stamp: stamp(400_000, "evt_f"), charge: failed }.into(),
        transaction("txn_f", "ch_1", Category::ChargeFailure, 400_000, "usd", -1000, 0),
    ];
    expect(&post_in_every_order(&facts), &[(CLEARING, "usd", -80), (PROCESSING, "usd", 80)]);
}

#[test]
fn a_round_trip_through_another_currency_leaves_an_exchange_difference() {
    let mut failed = charge_snapshot("eur", 1299, Offer::Silent);
    failed.status = ChargeStatus::Failed;
    let mut facts = vec![
        charge("eur", 1299, Offer::Silent),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1424, 71),
        ChargeObserved { stamp: stamp(400_000, "evt_f"), charge: failed }.into(),
    ];
    // Until the money is seen to have gone back, what came stands unconfirmed.
    expect(
        &post_in_every_order(&facts),
        &[(CLEARING, "usd", 1353), (PROCESSING, "usd", 71), ("assets:stripe:unconfirmed", "usd", -1424)],
    );
    facts.push(transaction("txn_f", "ch_1", Category::ChargeFailure, 400_000, "usd", -1383, 0));
    expect(&post_in_every_order(&facts), &[(CLEARING, "usd", -30), (PROCESSING, "usd", 71), ("income:fx", "usd", -41)]);
    // The same for a refund that fails.
    let refunded = vec![
        charge("eur", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1085, 61),
        refund("re_1", "evt_r1", 100, "eur", 400, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -430, 0),
        refund("re_1", "evt_r2", 500, "eur", 400, RefundStatus::Failed),
        transaction("txn_r2", "re_1", Category::RefundFailure, 500, "usd", 433, 0),
    ];
    expect(
        &post_in_every_order(&refunded),
        &[
            (CLEARING, "usd", 1027),
            (PROCESSING, "usd", 61),
            (PENDING, "usd", -868),
            (PLATFORM, "usd", -217),
            ("income:fx", "usd", -3),
        ],
    );
}

#[test]
fn a_released_charge_is_available_from_then_and_refunds_come_out_of_it() {
    let facts = vec![
        charge("usd", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1000, 59),
        ChargeReleased { through: at(90_000) }.into(),
        refund("re_1", "evt_r1", 100, "usd", 500, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100_000, "usd", -500, 0),
    ];
    expect(
        &post_in_every_order(&facts),
        &[
            (CLEARING, "usd", 441),
            (PROCESSING, "usd", 59),
            ("liabilities:creators:crt_1:available", "usd", -400),
            (PLATFORM, "usd", -200),
            ("income:refunds", "usd", 100),
        ],
    );
}

#[test]
fn tax_is_owed_as_invoiced_when_settled_elsewhere() {
    let facts = vec![
        charge("eur", 1000, attribution(8000, 190)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1085, 61),
        refund("re_1", "evt_r1", 100, "eur", 500, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -540, 0),
    ];
    // Ts = ⌊1085·190/1000⌋ = 206, C = ⌊879·0.8⌋ = 703, P = 176; half back: β = 103, α = 351, v = 542.
    expect(
        &post_in_every_order(&facts),
        &[
            (CLEARING, "usd", 484),
            (PROCESSING, "usd", 61),
            (TAX, "eur", -95),
            ("equity:fx:eur", "eur", 95),
            ("equity:fx:usd", "usd", -103),
            (PENDING, "usd", -352),
            (PLATFORM, "usd", -176),
            ("income:refunds", "usd", 88),
            ("income:fx", "usd", -2),
        ],
    );
}
