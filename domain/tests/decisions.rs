//! Decisions: given what a stream holds, when a command comes, then these events or this refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cqrs_es::test::TestFramework;
use fanledger_domain::aggregate::Addressed;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::entry::{
    EntryError, EntryPosted, FactReference, POSTING_MINOR_MAX, Posting, Side, check_postings,
};
use fanledger_domain::event::{BalanceTransactionObserved, ChargeObserved, ChargeReleased, Event};
use fanledger_domain::facts::*;
use fanledger_domain::ledgered::{LedgerCommand, LedgerError, Ledgered};
use fanledger_domain::money::Money;
use fanledger_domain::period::FirstOpen;
use fanledger_domain::time::Timestamp;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const CREATED: &str = "2026-02-02T02:40:00Z";
const AVAILABLE: &str = "2026-02-09T00:00:00Z";

fn charge() -> TestFramework<Ledgered<Charge>> {
    TestFramework::with(FirstOpen::default())
}

fn learn(facts: Vec<Event>) -> Addressed {
    let stripe_event = Some("evt_1".parse().unwrap());
    Addressed { object: "ch_1".parse().unwrap(), command: LedgerCommand::Learn { facts, stripe_event } }
}

fn observed(amount: i64) -> Event {
    let charge = ChargeSnapshot {
        id: "ch_1".parse().unwrap(),
        created: at(CREATED),
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
    };
    ChargeObserved { stamp: EventStamp { created: at(CREATED), event: "evt_1".parse().unwrap() }, charge }.into()
}

fn settled(amount: i64) -> Event {
    let transaction = BalanceTransaction {
        id: "txn_1".parse().unwrap(),
        created: at(CREATED),
        available_on: at(AVAILABLE),
        currency: "usd".parse().unwrap(),
        amount,
        fee: 0,
        net: amount,
        fee_details: Vec::new(),
        category: Category::Charge,
        reported_as: "charge".to_owned(),
        source: Some("ch_1".parse().unwrap()),
    };
    BalanceTransactionObserved { owner: "ch_1".parse().unwrap(), transaction }.into()
}

fn posting(account: &str, side: Side, minor: i64, currency: &str) -> Posting {
    Posting { account: account.parse().unwrap(), side, money: Money::new(minor, currency.parse().unwrap()) }
}

fn entries(events: &[Event]) -> Vec<EntryPosted> {
    events
        .iter()
        .filter_map(|event| if let Event::EntryPosted(entry) = event { Some(entry.clone()) } else { None })
        .collect()
}

#[test]
fn a_fact_and_the_entry_that_it_causes_are_one_command() {
    let events = charge().given_no_previous_events().when(learn(vec![observed(1099)])).inspect_result().unwrap();
    assert_eq!(events[0], observed(1099));
    let [entry] = entries(&events[1..]).try_into().unwrap();
    assert_eq!(entry.entry_id.as_str(), "ch_1:1:20260202T024000Z");
    assert_eq!((entry.occurred_at, entry.effective_at), (at(CREATED), at(CREATED)));
    assert_eq!(entry.cause.facts, [FactReference { event_type: "ChargeObserved".to_owned(), sequence: 1 }]);
    assert_eq!(entry.cause.stripe_event.as_ref().map(|id| id.as_str()), Some("evt_1"));
    let expected = [
        posting("assets:stripe:unconfirmed", Side::Debit, 1099, "usd"),
        posting("liabilities:suspense:unattributed", Side::Credit, 1099, "usd"),
    ];
    assert_eq!(entry.postings, expected);
}

#[test]
fn a_fact_that_is_known_leads_to_nothing() {
    let stream = charge().given_no_previous_events().when(learn(vec![observed(1099)])).inspect_result().unwrap();
    charge().given(stream.clone()).when(learn(vec![observed(1099)])).then_expect_events(Vec::new());
    let converge = Addressed { object: "ch_1".parse().unwrap(), command: LedgerCommand::Converge };
    charge().given(stream).when(converge).then_expect_events(Vec::new());
}

/// As after a mended `books`: a fact stands in the stream and its entry does not.
#[test]
fn converging_posts_what_is_missing_and_names_no_fact() {
    let converge = Addressed { object: "ch_1".parse().unwrap(), command: LedgerCommand::Converge };
    let events = charge().given(vec![observed(1099)]).when(converge).inspect_result().unwrap();
    let [entry] = entries(&events).try_into().unwrap();
    assert_eq!(entry.entry_id.as_str(), "ch_1:2:20260202T024000Z");
    assert_eq!((entry.cause.facts, entry.cause.stripe_event), (Vec::new(), None));
}

#[test]
fn an_amount_that_no_posting_holds_is_refused() {
    let too_large = POSTING_MINOR_MAX + 1;
    charge().given_no_previous_events().when(learn(vec![observed(too_large)])).then_expect_error(LedgerError::Entry {
        object: "ch_1".parse().unwrap(),
        at: at(CREATED),
        source: EntryError::Amount(too_large),
    });
}

#[test]
fn a_charge_is_released_once_and_not_before_its_money_is_available() {
    let object = "ch_1".parse().unwrap();
    let release =
        |charge: &Ledgered<Charge>, through| charge.decide_release(&object, at(through), FirstOpen::default());
    let mut charge = Ledgered::<Charge>::default();
    charge.evolve(&observed(1099));
    assert_eq!(release(&charge, AVAILABLE).unwrap(), [], "nothing of it has arrived");
    charge.evolve(&settled(1099));
    assert_eq!(release(&charge, "2026-02-08T23:59:59Z").unwrap(), []);
    let released = release(&charge, AVAILABLE).unwrap();
    assert_eq!(released[0], Event::from(ChargeReleased { through: at(AVAILABLE) }));
    released.iter().for_each(|event| charge.evolve(event));
    assert_eq!(release(&charge, "2027-01-01T00:00:00Z").unwrap(), []);
}

#[test]
fn postings_that_are_no_entry_are_refused() {
    let bank = |side, minor, currency| posting("assets:bank", side, minor, currency);
    let usd = "usd".parse().unwrap();
    for (postings, refusal) in [
        (vec![], EntryError::TooFewPostings(0)),
        (vec![bank(Side::Debit, 1, "usd")], EntryError::TooFewPostings(1)),
        (vec![bank(Side::Debit, 0, "usd"), bank(Side::Credit, 0, "usd")], EntryError::Amount(0)),
        (vec![bank(Side::Debit, -1, "usd"), bank(Side::Debit, 1, "usd")], EntryError::Amount(-1)),
        (vec![bank(Side::Debit, i64::MIN, "usd"), bank(Side::Debit, 1, "usd")], EntryError::Amount(i64::MIN)),
        (
            vec![bank(Side::Debit, 3, "usd"), bank(Side::Credit, 1, "usd")],
            EntryError::Unbalanced { currency: usd, difference_minor: 2 },
        ),
        (
            // What is one of another currency does not make up for it.
            vec![
                bank(Side::Credit, 1, "usd"),
                bank(Side::Debit, 1, "usd"),
                bank(Side::Debit, 1, "eur"),
                bank(Side::Credit, 2, "eur"),
            ],
            EntryError::Unbalanced { currency: "eur".parse().unwrap(), difference_minor: -1 },
        ),
    ] {
        assert_eq!(check_postings(&postings), Err(refusal), "{postings:?}");
    }
    let most = [bank(Side::Debit, POSTING_MINOR_MAX, "usd"), bank(Side::Credit, POSTING_MINOR_MAX, "usd")];
    assert_eq!(check_postings(&most), Ok(()));
}

#[test]
fn a_reversal_takes_back_what_was_posted() {
    let events = charge().given_no_previous_events().when(learn(vec![observed(1099)])).inspect_result().unwrap();
    let [entry] = entries(&events).try_into().unwrap();
    let reversed = entry.reversed_postings();
    assert_eq!(check_postings(&reversed), Ok(()));
    for (posting, reversed) in entry.postings.iter().zip(&reversed) {
        assert_eq!(posting.account, reversed.account);
        assert_eq!(posting.signed_minor(), -reversed.signed_minor());
    }
}
