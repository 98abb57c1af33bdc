//! What the worked examples are to their creator, line by line, in every order of their facts.

use std::collections::BTreeMap;

use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Transfer};
use fanledger_domain::books::{Books, Standing};
use fanledger_domain::entry::StatementLine::{self, Disputes, Payouts, PlatformFees, Refunds, Sales};
use fanledger_domain::entry::{EntryPosted, Posting, Side};
use fanledger_domain::event::{ApplicationFeeObserved, AttributionOffered, CreatorAttributed, Event, TransferObserved};
use fanledger_domain::facts::*;
use fanledger_domain::ledgered::{LedgerCommand, Ledgered};
use fanledger_domain::money::Money;
use fanledger_domain::period::FirstOpen;

use crate::facts::{at, attribution, charge, dispute, refund, stamp, transaction};
use crate::{permutations, post_in_every_order};

/// Every figure that is not zero: creator, currency, line, kind.
type Figures<'a> = &'a [(&'a str, &'a str, StatementLine, Option<PaymentKind>, i128)];

fn expect(standing: &Standing, expected: Figures<'_>) {
    let mut found: Vec<_> = standing
        .activity
        .iter()
        .map(|(figure, minor)| {
            (figure.creator.as_str().to_owned(), figure.currency.to_string(), figure.line, figure.kind, minor)
        })
        .collect();
    let mut wanted: Vec<_> = expected
        .iter()
        .map(|(creator, currency, line, kind, minor)| {
            ((*creator).to_owned(), (*currency).to_owned(), *line, *kind, *minor)
        })
        .collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(standing.unexplained(), BTreeMap::new());
}

fn expect_tips(facts: &[Event], currency: &str, lines: &[(StatementLine, i128)]) {
    let figures: Vec<_> =
        lines.iter().map(|(line, minor)| ("crt_1", currency, *line, Some(PaymentKind::Tip), *minor)).collect();
    expect(&post_in_every_order(facts), &figures);
}

#[test]
fn a_sale_a_fee_and_what_is_given_back() {
    let sold = [
        charge("usd", 1099, attribution(8333, 87)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1099, 62),
    ];
    expect_tips(&sold, "usd", &[(Sales, 1012), (PlatformFees, -169)]);
    let refunded = [
        &sold[..],
        &[
            refund("re_1", "evt_r1", 100, "usd", 333, RefundStatus::Succeeded),
            refund("re_2", "evt_r2", 110, "usd", 333, RefundStatus::Succeeded),
        ],
    ]
    .concat();
    expect_tips(&refunded, "usd", &[(Sales, 1012), (PlatformFees, -169), (Refunds, -510)]);
    let all = [&refunded[..], &[refund("re_3", "evt_r3", 120, "usd", 433, RefundStatus::Pending)]].concat();
    expect_tips(&all, "usd", &[(Sales, 1012), (PlatformFees, -169), (Refunds, -843)]);
}

#[test]
fn a_dispute_is_a_line_when_it_is_lost() {
    let mut facts = vec![
        charge("usd", 2000, attribution(8000, 0)),
        refund("re_1", "evt_r1", 100, "usd", 500, RefundStatus::Succeeded),
        dispute("evt_d1", 200, 1500, DisputeStatus::NeedsResponse),
        transaction("txn_d1", "dp_1", Category::Dispute, 200, "usd", -1500, 1500),
    ];
    let held = [(Sales, 2000), (PlatformFees, -400), (Refunds, -400)];
    expect_tips(&facts, "usd", &held);
    facts.push(dispute("evt_d2", 300, 1500, DisputeStatus::Lost));
    expect_tips(&facts, "usd", &[&held[..], &[(Disputes, -1200)]].concat());
}

#[test]
fn a_statement_is_in_the_currency_of_settlement() {
    let facts = [
        charge("eur", 1000, attribution(8000, 0)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1085, 61),
        refund("re_1", "evt_r1", 100, "eur", 400, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -430, 0),
    ];
    expect_tips(&facts, "usd", &[(Sales, 1085), (PlatformFees, -217), (Refunds, -347)]);
}

#[test]
fn three_decimals() {
    let facts = [
        charge("kwd", 12340, attribution(8333, 0)),
        refund("re_1", "evt_r1", 100, "kwd", 4110, RefundStatus::Succeeded),
    ];
    expect_tips(&facts, "kwd", &[(Sales, 12340), (PlatformFees, -2058), (Refunds, -3424)]);
}

#[test]
fn nobodys_sale_is_on_no_statement() {
    expect(&post_in_every_order(&[charge("usd", 1000, Offer::Silent)]), &[]);
}

fn with_creator(creator: &str, kind: Option<PaymentKind>) -> Attribution {
    let Offer::Valid(said) = attribution(8000, 0) else { panic!("a valid attribution") };
    Attribution { creator: creator.parse().unwrap(), kind, ..said }
}

#[test]
fn what_moves_to_another_creator_leaves_the_first() {
    let by_finance = |seconds, creator| -> Event {
        CreatorAttributed {
            at: at(seconds),
            by: None,
            attribution: with_creator(creator, Some(PaymentKind::Unlock)),
            reason: "asked".to_owned(),
        }
        .into()
    };
    let facts = [charge("usd", 1000, attribution(8000, 0)), by_finance(10, "crt_2"), by_finance(20, "crt_3")];
    let unlock = Some(PaymentKind::Unlock);
    expect(
        &post_in_every_order(&facts),
        &[("crt_3", "usd", Sales, unlock, 1000), ("crt_3", "usd", PlatformFees, unlock, -200)],
    );
}

fn invoice() -> Event {
    AttributionOffered {
        stamp: stamp(3, "evt_in"),
        from: "in_1".parse().unwrap(),
        offer: SourceOffer::new(OfferRank::Invoice, Offer::Silent),
    }
    .into()
}

/// An invoice that comes late makes a subscription of a tip, and no balance moves.
#[test]
fn a_kind_alone_is_restated_by_an_entry_that_moves_nothing() {
    let facts = [charge("usd", 1000, attribution(8000, 0)), invoice()];
    let subscription = Some(PaymentKind::Subscription);
    expect(
        &post_in_every_order(&facts),
        &[("crt_1", "usd", Sales, subscription, 1000), ("crt_1", "usd", PlatformFees, subscription, -200)],
    );
    let entries = entries_of::<Charge>("ch_1", &facts);
    let [_, restated] = entries.as_slice() else { panic!("two entries, not {entries:?}") };
    let posting = |side| Posting {
        account: "liabilities:creators:crt_1:pending".parse().unwrap(),
        side,
        money: Money::new(1200, "usd".parse().unwrap()),
    };
    assert_eq!(restated.postings, [posting(Side::Debit), posting(Side::Credit)]);
    assert!(restated.description.ends_with("restated, no balance moves"), "{}", restated.description);
    let said: Vec<_> = restated.activity.iter().map(|said| (said.line, said.kind, said.minor)).collect();
    let tip = Some(PaymentKind::Tip);
    assert_eq!(
        said,
        [
            (Sales, subscription, 1000),
            (Sales, tip, -1000),
            (PlatformFees, subscription, -200),
            (PlatformFees, tip, 200)
        ]
    );
}

/// The entries that come of the facts one after the other.
fn entries_of<B: Books>(object: &str, facts: &[Event]) -> Vec<EntryPosted> {
    let mut aggregate = Ledgered::<B>::default();
    let mut entries = Vec::new();
    for fact in facts {
        let learn = LedgerCommand::Learn { facts: vec![fact.clone()], stripe_event: None };
        for event in aggregate.decide(&object.parse().unwrap(), learn, FirstOpen::default()).unwrap() {
            aggregate.evolve(&event);
            if let Event::EntryPosted(entry) = event {
                entries.push(entry);
            }
        }
    }
    entries
}

/// The sum of the entries, the same in every order.
fn sum_in_every_order<B: Books>(object: &str, facts: &[Event]) -> Standing {
    let mut sums = permutations(facts).into_iter().map(|facts| {
        let mut sum = Standing::default();
        entries_of::<B>(object, &facts).iter().for_each(|entry| sum.post(entry));
        sum
    });
    let first = sums.next().unwrap();
    sums.for_each(|sum| assert_eq!(sum, first));
    first
}

fn transfer(seconds: i64, event: &str, reversed: i64) -> Event {
    let reversal =
        |amount| Reversal { id: "trr_1".parse().unwrap(), created: at(seconds), amount, balance_transaction: None };
    TransferObserved {
        stamp: stamp(seconds, event),
        transfer: TransferSnapshot {
            id: "tr_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 5000,
            amount_reversed: reversed,
            reversals: (reversed > 0).then(|| reversal(reversed)).into_iter().collect(),
            balance_transaction: None,
            destination: None,
            offer: Offer::Valid(with_creator("crt_1", None)),
        },
    }
    .into()
}

#[test]
fn a_transfer_is_a_payout_less_what_came_back() {
    let facts = [transfer(1, "evt_t1", 0), transfer(50, "evt_t2", 1200)];
    expect(&sum_in_every_order::<Transfer>("tr_1", &facts), &[("crt_1", "usd", Payouts, None, -3800)]);
}

/// Of a destination charge the whole was transferred out: the fee that comes back was not paid out after all.
#[test]
fn the_fee_of_a_destination_charge_was_not_paid_out() {
    let fee: Event = ApplicationFeeObserved {
        stamp: stamp(1, "evt_f"),
        fee: ApplicationFeeSnapshot {
            id: "fee_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 200,
            amount_refunded: 0,
            refunds: Vec::new(),
            balance_transaction: None,
            account: None,
            originating_transaction: Some("ch_1".parse().unwrap()),
        },
    }
    .into();
    let offered: Event = AttributionOffered {
        stamp: stamp(3, "evt_a"),
        from: "acct_1".parse().unwrap(),
        offer: SourceOffer::new(OfferRank::Account, Offer::Valid(with_creator("crt_1", None))),
    }
    .into();
    expect(&sum_in_every_order::<ApplicationFee>("fee_1", &[fee, offered]), &[("crt_1", "usd", Payouts, None, 200)]);
}
