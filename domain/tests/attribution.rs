//! Finance says whose money it is: the books follow at the date of the object, and the last word stands.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

use fanledger_domain::attribution::{Attributable, AttributionError, Saying, decide};
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Transfer};
use fanledger_domain::entry::EntryPosted;
use fanledger_domain::event::*;
use fanledger_domain::facts::*;
use fanledger_domain::id::StripeId;
use fanledger_domain::ledgered::{LedgerCommand, Ledgered};
use fanledger_domain::period::FirstOpen;
use fanledger_domain::split::BasisPoints;
use fanledger_domain::time::Timestamp;

const CREATED: i64 = 1_770_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(CREATED + seconds).unwrap()
}

fn stamp() -> EventStamp {
    EventStamp { created: at(1), event: "evt_1".parse().unwrap() }
}

fn charge(captured: i64) -> Event {
    ChargeObserved {
        stamp: stamp(),
        charge: ChargeSnapshot {
            id: "ch_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 1000,
            amount_captured: captured,
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

fn transfer() -> Event {
    TransferObserved {
        stamp: stamp(),
        transfer: TransferSnapshot {
            id: "tr_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 700,
            amount_reversed: 0,
            reversals: Vec::new(),
            destination: None,
            balance_transaction: None,
            offer: Offer::Silent,
        },
    }
    .into()
}

fn application_fee() -> Event {
    ApplicationFeeObserved {
        stamp: stamp(),
        fee: ApplicationFeeSnapshot {
            id: "fee_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 300,
            amount_refunded: 0,
            refunds: Vec::new(),
            account: None,
            originating_transaction: Some("ch_2".parse().unwrap()),
            balance_transaction: None,
        },
    }
    .into()
}

fn saying(creator: &str, seconds: i64) -> Saying {
    Saying {
        attribution: Attribution {
            creator: creator.parse().unwrap(),
            fan: None,
            kind: None,
            share: None,
            tax_minor: None,
            tax_jurisdiction: None,
        },
        by: "ada".parse().unwrap(),
        now: at(seconds),
        reason: "the fan wrote".to_owned(),
    }
}

struct Object<B> {
    id: StripeId,
    aggregate: Ledgered<B>,
    entries: Vec<EntryPosted>,
}

impl<B: Attributable> Object<B> {
    fn seen(id: &str, fact: Event) -> Self {
        let mut object = Self { id: id.parse().unwrap(), aggregate: Ledgered::default(), entries: Vec::new() };
        object.learn(fact);
        object
    }

    /// A fact that Stripe tells.
    fn learn(&mut self, fact: impl Into<Event>) {
        let learn = LedgerCommand::Learn { facts: vec![fact.into()], stripe_event: None };
        let events = self.aggregate.decide(&self.id, learn, FirstOpen::default()).unwrap();
        self.take(events);
    }

    /// What another object's metadata says of it.
    fn hear(&mut self, from: &str, rank: OfferRank, offer: Offer) {
        let offer = SourceOffer::new(rank, offer);
        self.learn(AttributionOffered { stamp: stamp(), from: from.parse().unwrap(), offer });
    }

    fn take(&mut self, events: Vec<Event>) -> usize {
        let appended = events.len();
        for event in events {
            self.aggregate.evolve(&event);
            if let Event::EntryPosted(entry) = event {
                self.entries.push(entry);
            }
        }
        appended
    }

    fn say(&mut self, saying: Saying) -> Result<usize, AttributionError> {
        let events = decide(&self.aggregate, &self.id, saying, FirstOpen::default())?;
        Ok(self.take(events))
    }

    /// Debits minus credits of every entry so far, each of which must be of the object's own date.
    fn balance(&self, account: &str) -> i64 {
        assert!(self.entries.iter().all(|entry| entry.occurred_at == at(0)), "{:?}", self.entries);
        let postings = self.entries.iter().flat_map(|entry| &entry.postings);
        postings.filter(|posting| posting.account.to_string() == account).map(|posting| posting.signed_minor()).sum()
    }
}

const PENDING: &str = "liabilities:creators:crt_a:pending";

#[test]
fn a_charge_leaves_suspense_at_its_own_date() {
    let mut charge = Object::<Charge>::seen("ch_1", charge(1000));
    assert_eq!(charge.balance("liabilities:suspense:unattributed"), -1000);
    charge.say(saying("crt_a", 5000)).unwrap();
    assert_eq!(charge.balance("liabilities:suspense:unattributed"), 0);
    assert_eq!((charge.balance(PENDING), charge.balance("income:platform-fees")), (-800, -200));
}

#[test]
fn the_last_word_stands_whoever_s_clock_is_ahead() {
    let mut charge = Object::<Charge>::seen("ch_1", charge(1000));
    charge.say(saying("crt_a", 5000)).unwrap();
    assert_eq!(charge.say(saying("crt_a", 6000)), Ok(0), "the same again changes nothing");
    // Another machine, an hour behind.
    assert!(charge.say(saying("crt_b", 1400)).unwrap() > 0);
    assert_eq!((charge.balance(PENDING), charge.balance("liabilities:creators:crt_b:pending")), (0, -800));
    assert!(charge.say(saying("crt_a", 1400)).unwrap() > 0);
    assert_eq!((charge.balance(PENDING), charge.balance("liabilities:creators:crt_b:pending")), (-800, 0));
}

#[test]
fn finance_beats_metadata_that_comes_later() {
    let mut charge = Object::<Charge>::seen("ch_1", charge(1000));
    charge.say(saying("crt_a", 5000)).unwrap();
    charge.hear("pi_1", OfferRank::PaymentIntent, Offer::Valid(saying("crt_b", 0).attribution));
    assert_eq!(charge.balance(PENDING), -800);
}

#[test]
fn what_is_the_sale_s_stays_where_only_another_creator_is_said() {
    let mut by_metadata = saying("crt_a", 0).attribution;
    by_metadata.kind = Some(PaymentKind::Unlock);
    by_metadata.share = Some(BasisPoints::new(9000).unwrap());
    by_metadata.tax_minor = Some(100);
    by_metadata.tax_jurisdiction = Some("us-ca".parse().unwrap());
    let Event::ChargeObserved(mut seen) = charge(1000) else { panic!("a charge is one") };
    seen.charge.offer = Offer::Valid(by_metadata);
    let mut charge = Object::<Charge>::seen("ch_1", seen.clone().into());
    let tax = "liabilities:tax:us-ca";
    assert_eq!((charge.balance(tax), charge.balance(PENDING)), (-100, -810));
    charge.say(saying("crt_b", 5000)).unwrap();
    assert_eq!((charge.balance(tax), charge.balance(PENDING)), (-100, 0));
    assert_eq!(charge.balance("liabilities:creators:crt_b:pending"), -720, "of 900, by the policy's share");
    let Some((_, said)) = charge.aggregate.books().said_by_finance() else { panic!("finance said so") };
    assert_eq!((said.kind, said.tax_minor, said.share), (Some(PaymentKind::Unlock), Some(100), None));
    assert_eq!(charge.say(saying("crt_b", 6000)), Ok(0), "the same again changes nothing");
    // It was a mistake: what was agreed with the first creator is agreed still.
    charge.say(saying("crt_a", 7000)).unwrap();
    assert_eq!((charge.balance(tax), charge.balance(PENDING)), (-100, -810));
    let mut without_tax = saying("crt_a", 8000);
    without_tax.attribution.tax_minor = Some(0);
    charge.say(without_tax).unwrap();
    assert_eq!((charge.balance(tax), charge.balance(PENDING)), (0, -900));

    // Nothing is captured yet, and it stays all the same; what is more than was captured then does not count, and is to be said.
    let mut authorised = seen.clone();
    (authorised.charge.captured, authorised.charge.amount_captured) = (false, 0);
    seen.stamp.event = "evt_2".parse().unwrap();
    for (captured, expected) in [(1000, -720), (99, 0)] {
        let mut charge = Object::<Charge>::seen("ch_1", authorised.clone().into());
        charge.say(saying("crt_b", 5000)).unwrap();
        seen.charge.amount_captured = captured;
        charge.learn(seen.clone());
        assert_eq!(charge.balance("liabilities:creators:crt_b:pending"), expected);
        if expected == 0 {
            let refused = charge.say(saying("crt_b", 6000));
            assert!(matches!(refused, Err(AttributionError::TaxAbovePayment { .. })), "{refused:?}");
            let mut with_tax = saying("crt_b", 7000);
            with_tax.attribution.tax_minor = Some(9);
            charge.say(with_tax).unwrap();
            assert_eq!((charge.balance(tax), charge.balance("liabilities:creators:crt_b:pending")), (-9, -72));
        }
    }
}

/// What metadata says of a share counts only where it counts whole.
#[test]
fn a_share_is_not_picked_out_of_metadata_that_does_not_stand() {
    let with_share = |creator: &str| {
        let mut attribution = saying(creator, 0).attribution;
        attribution.share = Some(BasisPoints::new(9000).unwrap());
        Offer::Valid(attribution)
    };
    // Finance spoke first, and says the same again.
    let mut first = Object::<Charge>::seen("ch_1", charge(1000));
    first.say(saying("crt_a", 5000)).unwrap();
    first.hear("pi_1", OfferRank::PaymentIntent, with_share("crt_a"));
    assert_eq!(first.say(saying("crt_a", 6000)), Ok(0), "the same again changes nothing");
    assert_eq!(first.balance(PENDING), -800);
    // The first place says the creator, and no share; a later one does, and does not count.
    let Event::ChargeObserved(mut seen) = charge(1000) else { panic!("a charge is one") };
    seen.charge.offer = Offer::Valid(saying("crt_a", 0).attribution);
    let mut taken_whole = Object::<Charge>::seen("ch_1", seen.into());
    taken_whole.hear("sub_1", OfferRank::Subscription, with_share("crt_a"));
    let mut of_a_fan = saying("crt_a", 5000);
    of_a_fan.attribution.fan = Some("fan_x".parse().unwrap());
    taken_whole.say(of_a_fan).unwrap();
    assert_eq!(taken_whole.balance(PENDING), -800);
}

/// Somebody was named by mistake and the first is named again: what finance said of that creator holds, not what it overruled.
#[test]
fn a_share_that_finance_said_is_found_again_after_another_creator() {
    let with_share = |creator: &str, seconds, bps| {
        let mut saying = saying(creator, seconds);
        saying.attribution.share = Some(BasisPoints::new(bps).unwrap());
        saying
    };
    let Event::ChargeObserved(mut seen) = charge(1000) else { panic!("a charge is one") };
    seen.charge.offer = Offer::Valid(with_share("crt_a", 0, 9000).attribution);
    let mut charge = Object::<Charge>::seen("ch_1", seen.into());
    assert_eq!(charge.balance(PENDING), -900);
    charge.say(with_share("crt_a", 5000, 5000)).unwrap();
    assert_eq!(charge.balance(PENDING), -500);
    charge.say(saying("crt_b", 6000)).unwrap();
    assert_eq!((charge.balance(PENDING), charge.balance("liabilities:creators:crt_b:pending")), (0, -800));
    charge.say(saying("crt_a", 7000)).unwrap();
    assert_eq!(charge.balance(PENDING), -500);
    // The policy's share was what stood with the other one, whatever metadata says of that creator since.
    charge.hear("pi_1", OfferRank::PaymentIntent, Offer::Valid(with_share("crt_b", 0, 9500).attribution));
    charge.say(saying("crt_b", 8000)).unwrap();
    assert_eq!(charge.balance("liabilities:creators:crt_b:pending"), -800);
}

/// A refund can be the first that is heard of a charge. What is said of it then stays, too.
#[test]
fn what_is_said_of_a_charge_that_is_not_known_yet_stays_where_only_more_is_said() {
    let mut whole = saying("crt_a", 5000);
    whole.attribution.kind = Some(PaymentKind::Unlock);
    whole.attribution.share = Some(BasisPoints::new(9000).unwrap());
    whole.attribution.tax_minor = Some(100);
    whole.attribution.tax_jurisdiction = Some("us-ca".parse().unwrap());
    let tax = "liabilities:tax:us-ca";

    let mut said =
        Object::<Charge> { id: "ch_1".parse().unwrap(), aggregate: Ledgered::default(), entries: Vec::new() };
    said.hear("pi_1", OfferRank::PaymentIntent, Offer::Silent);
    said.say(whole.clone()).unwrap();
    let mut of_a_fan = saying("crt_a", 6000);
    of_a_fan.attribution.fan = Some("fan_x".parse().unwrap());
    said.say(of_a_fan).unwrap();
    said.learn(charge(1000));
    assert_eq!((said.balance(tax), said.balance(PENDING)), (-100, -810));
    let Some((_, standing)) = said.aggregate.books().said_by_finance() else { panic!("finance said so") };
    assert_eq!(standing.kind, Some(PaymentKind::Unlock));

    let mut offered =
        Object::<Charge> { id: "ch_1".parse().unwrap(), aggregate: Ledgered::default(), entries: Vec::new() };
    offered.hear("pi_1", OfferRank::PaymentIntent, Offer::Valid(whole.attribution));
    offered.say(saying("crt_b", 5000)).unwrap();
    offered.learn(charge(1000));
    assert_eq!((offered.balance(tax), offered.balance("liabilities:creators:crt_b:pending")), (-100, -720));
}

#[test]
fn a_stated_tax_above_what_was_captured_is_refused() {
    let mut charge = Object::<Charge>::seen("ch_1", charge(300));
    // As it was told before its total was.
    let offer = SourceOffer { tax_minor: Some(500), ..SourceOffer::new(OfferRank::Invoice, Offer::Silent) };
    charge.learn(AttributionOffered { stamp: stamp(), from: "in_1".parse().unwrap(), offer });
    let refused = charge.say(saying("crt_a", 5000)).unwrap_err();
    assert!(matches!(refused, AttributionError::TaxAbovePayment { .. }), "{refused:?}");
    // Nobody said a tax here: which one it is has to be told.
    assert!(refused.to_string().contains("5.00 usd") && refused.to_string().contains("3.00 usd"), "{refused}");
}

#[test]
fn what_cannot_be_is_refused() {
    let unknown =
        decide(&Ledgered::<Charge>::default(), &"ch_1".parse().unwrap(), saying("crt_a", 0), FirstOpen::default());
    assert!(matches!(unknown, Err(AttributionError::Unknown { .. })), "{unknown:?}");
    let mut charge = Object::<Charge>::seen("ch_1", charge(600));
    let tax = |minor| {
        let mut saying = saying("crt_a", 5000);
        saying.attribution.tax_minor = Some(minor);
        saying
    };
    let refused = charge.say(tax(601)).unwrap_err();
    assert!(
        matches!(refused, AttributionError::TaxAbovePayment { .. }) && refused.to_string().contains("6.00"),
        "{refused}"
    );
    for reason in [" ".to_owned(), "x".repeat(501)] {
        assert_eq!(charge.say(Saying { reason, ..tax(0) }), Err(AttributionError::Reason));
    }
    // All of it may be tax.
    assert!(charge.say(tax(600)).is_ok());
    assert_eq!(charge.balance("liabilities:tax:unknown"), -600);
}

#[test]
fn a_transfer_and_a_fee_learn_whose_they_are() {
    let mut transfer = Object::<Transfer>::seen("tr_1", transfer());
    assert_eq!(transfer.balance("liabilities:suspense:unknown-creator"), 700);
    transfer.say(saying("crt_a", 5000)).unwrap();
    assert_eq!(transfer.balance("liabilities:suspense:unknown-creator"), 0);
    assert_eq!(transfer.balance("liabilities:creators:crt_a:available"), 700);
    assert_eq!(transfer.say(saying("crt_a", 6000)), Ok(0));

    let Event::TransferObserved(mut sent) = self::transfer() else { panic!("a transfer is one") };
    sent.transfer.offer = Offer::Valid(saying("crt_a", 0).attribution);
    let mut sent = Object::<Transfer>::seen("tr_1", sent.into());
    let elsewhere = sent.say(saying("crt_b", 5000));
    assert!(matches!(elsewhere, Err(AttributionError::Stated { .. })), "crt_a could be paid again: {elsewhere:?}");
    assert_eq!(sent.balance("liabilities:creators:crt_a:available"), 700);

    // The connected account names its creator for all that was sent to it.
    let mut to_account = Object::<Transfer>::seen("tr_1", self::transfer());
    to_account.hear("acct_1", OfferRank::Account, Offer::Valid(saying("crt_a", 0).attribution));
    assert_eq!(to_account.balance("liabilities:creators:crt_a:available"), 700);
    let elsewhere = to_account.say(saying("crt_b", 5000));
    assert!(matches!(elsewhere, Err(AttributionError::Stated { .. })), "crt_a could be paid again: {elsewhere:?}");

    let mut fee = Object::<ApplicationFee>::seen("fee_1", application_fee());
    assert_eq!(fee.balance("liabilities:suspense:unknown-creator"), -300);
    fee.say(saying("crt_a", 5000)).unwrap();
    assert_eq!(fee.balance("liabilities:suspense:unknown-creator"), 0);
    assert_eq!(fee.balance("liabilities:creators:crt_a:available"), -300);
    fee.hear("acct_1", OfferRank::Account, Offer::Valid(saying("crt_a", 0).attribution));
    let elsewhere = fee.say(saying("crt_b", 7000));
    assert!(matches!(elsewhere, Err(AttributionError::Stated { .. })), "{elsewhere:?}");
}
