//! What is left to the platform's policy, and what is guessed where metadata is silent.

use fanledger_domain::books::Books;
use fanledger_domain::books::charge::{Charge, Owner};
use fanledger_domain::event::{AttributionOffered, ChargeObserved, ChargeReleased, Event};
use fanledger_domain::facts::*;
use fanledger_domain::policy::{self, Policy, TaxOnLostDispute};

use crate::facts::{at, attribution, charge, charge_snapshot, dispute, dispute_in, refund, stamp, transaction};
use crate::{CLEARING, PLATFORM, PROCESSING, TAX, expect};

/// Kept, the tax of a lost dispute stays owed and the platform bears it; what was refunded before is returned all the same.
#[test]
fn tax_on_a_lost_dispute_is_returned_or_kept_by_policy() {
    let mut charge_books = Charge::default();
    for fact in [
        charge("usd", 2000, attribution(8000, 200)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 2000, 88),
        refund("re_1", "evt_r1", 100, "usd", 500, RefundStatus::Succeeded),
        transaction("txn_r1", "re_1", Category::Refund, 100, "usd", -500, 0),
        dispute("evt_d1", 200, 1500, DisputeStatus::NeedsResponse),
        transaction("txn_d1", "dp_1", Category::Dispute, 200, "usd", -1500, 1500),
        dispute("evt_d2", 300, 1500, DisputeStatus::Lost),
    ] {
        assert!(charge_books.learn(&fact));
    }
    let returned = policy::in_force(at(0));
    assert_eq!(returned.tax_on_lost_dispute, TaxOnLostDispute::Return);
    let kept = Policy { tax_on_lost_dispute: TaxOnLostDispute::Keep, ..returned };
    // C = ⌊1800 × 0.8⌋ = 1440, P = 360; of 500 refunded 360 are the creator's and 50 tax.
    let always = [
        (CLEARING, "usd", -1588),
        (PROCESSING, "usd", 88),
        ("expenses:dispute-fees", "usd", 1500),
        (PLATFORM, "usd", -360),
        ("income:refunds", "usd", 90),
        ("income:chargebacks", "usd", 270),
    ];
    let end = at(1000);
    expect(&charge_books.at_under(&returned, end), &always);
    assert_eq!(
        charge_books.at(end),
        charge_books.at_under(&returned, end),
        "the policy in force is asked for the charge"
    );
    let with_tax = [(TAX, "usd", -150), ("expenses:dispute-losses", "usd", 150)];
    expect(&charge_books.at_under(&kept, end), &[&always[..], &with_tax[..]].concat());
    // Held is not lost: under either policy nothing of the tax has moved yet but what was refunded.
    let while_held = charge_books.at_under(&kept, at(250));
    assert_eq!(while_held, charge_books.at_under(&returned, at(250)));
    assert_eq!(while_held.balances.of(&TAX.parse().unwrap(), "usd".parse().unwrap()), -150);
}

/// All of a charge's money must be there, and the platform may hold it for longer than Stripe does.
#[test]
fn a_charge_is_released_when_the_last_of_its_money_is_available_and_held_no_more() {
    const DAY: i64 = 86_400;
    let mut books = Charge::default();
    let available_on = |fact: Event, at_seconds: i64| {
        let Event::BalanceTransactionObserved(mut seen) = fact else { panic!("{fact:?}") };
        seen.transaction.available_on = at(at_seconds);
        Event::from(seen)
    };
    books.learn(&charge("usd", 2000, attribution(8000, 0)));
    let at_once = policy::in_force(at(0));
    assert_eq!(at_once.holding_days, 0);
    assert!(!books.is_releasable_under(&at_once, at(30 * DAY)), "no money is there");
    books.learn(&available_on(transaction("txn_1", "ch_1", Category::Charge, 0, "usd", 1500, 0), 2 * DAY));
    books.learn(&available_on(transaction("txn_2", "ch_1", Category::Charge, DAY, "usd", 500, 0), 5 * DAY));
    for (holding_days, first) in [(0, 5 * DAY), (3, 5 * DAY), (7, 8 * DAY)] {
        let policy = Policy { holding_days, ..at_once };
        assert!(!books.is_releasable_under(&policy, at(first - 1)), "{holding_days} days");
        assert!(books.is_releasable_under(&policy, at(first)), "{holding_days} days");
    }
    assert_eq!(books.is_releasable(at(5 * DAY)), books.is_releasable_under(&at_once, at(5 * DAY)));
    books.learn(&ChargeReleased { through: at(5 * DAY) }.into());
    assert!(!books.is_releasable_under(&at_once, at(9 * DAY)), "once");
}

/// The same where the charge settled elsewhere: tax is owed as invoiced, and the loss is the platform's in its own currency.
#[test]
fn tax_that_is_kept_stays_owed_as_invoiced() {
    let mut charge_books = Charge::default();
    for fact in [
        charge("eur", 1000, attribution(8000, 100)),
        transaction("txn_ch", "ch_1", Category::Charge, 0, "usd", 1100, 0),
        transaction("txn_d1", "dp_1", Category::Dispute, 200, "usd", -1100, 0),
        dispute_in("eur", "evt_d2", 300, 1000, DisputeStatus::Lost),
    ] {
        assert!(charge_books.learn(&fact));
    }
    let kept = Policy { tax_on_lost_dispute: TaxOnLostDispute::Keep, ..policy::in_force(at(0)) };
    expect(
        &charge_books.at_under(&kept, at(1000)),
        &[
            (TAX, "eur", -100),
            ("equity:fx:eur", "eur", 100),
            ("equity:fx:usd", "usd", -110),
            ("expenses:dispute-losses", "usd", 110),
            (PLATFORM, "usd", -198),
            ("income:chargebacks", "usd", 198),
        ],
    );
}

/// What metadata does not say: a subscription if it came with an invoice, else a tip.
#[test]
fn the_kind_of_a_payment_is_guessed_by_its_invoice_alone() {
    let kind = |facts: &[Event], kind| {
        let mut books = Charge::default();
        for fact in facts {
            assert!(books.learn(fact));
        }
        let Owner::Creator(split) = books.owner(books.newest().unwrap(), &policy::in_force(at(0))) else {
            panic!("it is somebody's");
        };
        assert_eq!(split.kind, kind);
    };
    let with_kind = |kind| {
        let Offer::Valid(said) = attribution(8000, 0) else { panic!("a valid attribution") };
        Offer::Valid(Attribution { kind: Some(kind), ..said })
    };
    let invoice = |offer| -> Event {
        let offer = SourceOffer::new(OfferRank::Invoice, offer);
        AttributionOffered { stamp: stamp(3, "evt_in"), from: "in_1".parse().unwrap(), offer }.into()
    };
    kind(&[charge("usd", 500, attribution(8000, 0))], PaymentKind::Tip);
    kind(&[charge("usd", 500, with_kind(PaymentKind::Unlock))], PaymentKind::Unlock);
    kind(&[charge("usd", 500, Offer::Silent), invoice(attribution(8000, 0))], PaymentKind::Subscription);
    kind(&[charge("usd", 500, attribution(8000, 0)), invoice(Offer::Silent)], PaymentKind::Subscription);
    kind(&[charge("usd", 500, Offer::Silent), invoice(with_kind(PaymentKind::Tip))], PaymentKind::Tip);
    let mut invoiced = charge_snapshot("usd", 500, attribution(8000, 0));
    invoiced.invoice = Some("in_1".parse().unwrap());
    kind(&[ChargeObserved { stamp: stamp(1, "evt_ch"), charge: invoiced }.into()], PaymentKind::Subscription);
}
