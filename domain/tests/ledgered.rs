//! `decide` and `evolve` are deterministic: a stream replayed is the aggregate that wrote it, and what is known is not told again.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

use cqrs_es::test::TestFramework;
use fanledger_domain::aggregate::Addressed;
use fanledger_domain::books::Standing;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::entry::{
    Activity, Cause, EntryPosted, FactReference, Posting, Side, StatementLine, check_postings,
};
use fanledger_domain::event::*;
use fanledger_domain::facts::*;
use fanledger_domain::ledgered::{LedgerCommand, LedgerError, Ledgered};
use fanledger_domain::money::Money;
use fanledger_domain::period::FirstOpen;
use fanledger_domain::time::Timestamp;
use proptest::prelude::*;

const CREATED: i64 = 1_770_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(CREATED + seconds).unwrap()
}

fn stamp(seconds: i64, event: &str) -> EventStamp {
    EventStamp { created: at(seconds), event: event.parse().unwrap() }
}

fn charge(event: u8, seconds: i64, amount: i64, status: ChargeStatus, captured: bool) -> Event {
    ChargeObserved {
        stamp: stamp(seconds, &format!("evt_{event}")),
        charge: ChargeSnapshot {
            id: "ch_1".parse().unwrap(),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount,
            amount_captured: amount,
            status,
            captured,
            payment_intent: None,
            invoice: None,
            balance_transaction: None,
            failure_balance_transaction: None,
            offer: Offer::Silent,
        },
    }
    .into()
}

fn refund(event: u8, refund: u8, seconds: i64, amount: i64, status: RefundStatus) -> Event {
    RefundObserved {
        stamp: stamp(seconds, &format!("evt_{event}")),
        refund: RefundSnapshot {
            id: format!("re_{refund}").parse().unwrap(),
            created: at(100),
            currency: "usd".parse().unwrap(),
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

fn dispute(event: u8, seconds: i64, amount: i64, status: DisputeStatus) -> Event {
    DisputeObserved {
        stamp: stamp(seconds, &format!("evt_{event}")),
        dispute: DisputeSnapshot {
            id: "dp_1".parse().unwrap(),
            created: at(200),
            currency: "usd".parse().unwrap(),
            amount,
            status,
            charge: Some("ch_1".parse().unwrap()),
            balance_transaction: None,
        },
    }
    .into()
}

fn transaction(id: u8, owner: &str, category: Category, seconds: i64, currency: &str, amount: i64) -> Event {
    BalanceTransactionObserved {
        owner: owner.parse().unwrap(),
        transaction: BalanceTransaction {
            id: format!("txn_{id}").parse().unwrap(),
            created: at(seconds),
            available_on: at(seconds),
            currency: currency.parse().unwrap(),
            amount,
            fee: 10,
            net: amount - 10,
            fee_details: Vec::new(),
            category,
            reported_as: category.as_str().to_owned(),
            source: Some(owner.parse().unwrap()),
        },
    }
    .into()
}

fn attribution(creator: &str) -> Attribution {
    Attribution {
        creator: creator.parse().unwrap(),
        fan: None,
        kind: None,
        share: None,
        tax_minor: None,
        tax_jurisdiction: None,
    }
}

fn attributed(seconds: i64, creator: &str) -> Event {
    attributed_as(seconds, creator, None)
}

fn attributed_as(seconds: i64, creator: &str, kind: Option<PaymentKind>) -> Event {
    let attribution = Attribution { kind, ..attribution(creator) };
    CreatorAttributed { at: at(seconds), by: None, attribution, reason: "asked".to_owned() }.into()
}

/// An invoice that says nothing, but that it is one: what it paid for is a subscription.
fn invoice(seconds: i64) -> Event {
    AttributionOffered {
        stamp: stamp(seconds, "evt_invoice"),
        from: "in_1".parse().unwrap(),
        offer: SourceOffer::new(OfferRank::Invoice, Offer::Silent),
    }
    .into()
}

fn any_fact() -> impl Strategy<Value = Event> {
    let charge_status =
        prop::sample::select(vec![ChargeStatus::Pending, ChargeStatus::Succeeded, ChargeStatus::Failed]);
    let refund_status = prop::sample::select(vec![
        RefundStatus::Pending,
        RefundStatus::RequiresAction,
        RefundStatus::Succeeded,
        RefundStatus::Canceled,
        RefundStatus::Failed,
    ]);
    let dispute_status = prop::sample::select(vec![
        DisputeStatus::WarningNeedsResponse,
        DisputeStatus::NeedsResponse,
        DisputeStatus::Won,
        DisputeStatus::Lost,
    ]);
    let kinds = prop::sample::select(vec![
        ("ch_1", Category::Charge, 1_i64),
        ("ch_1", Category::PartialCaptureReversal, -1),
        ("ch_1", Category::ChargeFailure, -1),
        ("re_1", Category::Refund, -1),
        ("re_1", Category::RefundFailure, 1),
        ("dp_1", Category::Dispute, -1),
        ("dp_1", Category::DisputeReversal, 1),
    ]);
    let paid_for = prop::sample::select(vec![None, Some(PaymentKind::Tip), Some(PaymentKind::Unlock)]);
    let (event, seconds, amount) = (0_u8..40, 0_i64..1000, 1_i64..5000);
    prop_oneof![
        (event.clone(), seconds.clone(), amount.clone(), charge_status, any::<bool>())
            .prop_map(|(event, seconds, amount, status, captured)| charge(event, seconds, amount, status, captured)),
        (event.clone(), 0_u8..3, seconds.clone(), amount.clone(), refund_status)
            .prop_map(|(event, id, seconds, amount, status)| refund(event, id, seconds, amount, status)),
        (event.clone(), seconds.clone(), amount.clone(), dispute_status)
            .prop_map(|(event, seconds, amount, status)| dispute(event, seconds, amount, status)),
        (event, kinds, seconds.clone(), prop::sample::select(vec!["usd", "eur"]), amount).prop_map(
            |(id, (owner, category, sign), seconds, currency, amount)| {
                transaction(id, owner, category, seconds, currency, sign * amount)
            }
        ),
        (seconds.clone(), prop::sample::select(vec!["crt_ada", "crt_bel"]), paid_for)
            .prop_map(|(seconds, creator, kind)| attributed_as(seconds, creator, kind)),
        seconds.prop_map(invoice),
    ]
}

fn learn(facts: Vec<Event>) -> LedgerCommand {
    LedgerCommand::Learn { facts, stripe_event: None }
}

/// Decides on one command after the other; the stream that this writes, and the aggregate.
fn play(commands: &[Vec<Event>]) -> Result<(Vec<Event>, Ledgered<Charge>), LedgerError> {
    let object = "ch_1".parse().unwrap();
    let (mut stream, mut aggregate) = (Vec::new(), Ledgered::<Charge>::default());
    for facts in commands {
        for event in aggregate.decide(&object, learn(facts.clone()), FirstOpen::default())? {
            aggregate.evolve(&event);
            stream.push(event);
        }
    }
    Ok((stream, aggregate))
}

proptest! {
    #[test]
    fn a_stream_replayed_is_the_aggregate_that_wrote_it(
        commands in prop::collection::vec(prop::collection::vec(any_fact(), 1..4), 1..8)
    ) {
        let (stream, aggregate) = play(&commands).unwrap();
        let mut replayed = Ledgered::<Charge>::default();
        stream.iter().for_each(|event| replayed.evolve(event));
        prop_assert_eq!(&replayed, &aggregate);
        // The same commands in the same order write the same bytes.
        let (again, _) = play(&commands).unwrap();
        prop_assert_eq!(&again, &stream);
        // What is known leads to nothing, and neither does a second look at the books.
        let object = "ch_1".parse().unwrap();
        let known: Vec<Event> = stream.iter().filter(|event| !matches!(event, Event::EntryPosted(_))).cloned().collect();
        prop_assert_eq!(replayed.decide(&object, learn(known), FirstOpen::default()).unwrap(), vec![]);
        prop_assert_eq!(replayed.decide(&object, LedgerCommand::Converge, FirstOpen::default()).unwrap(), vec![]);
        for event in &stream {
            if let Event::EntryPosted(entry) = event {
                prop_assert!(check_postings(&entry.postings).is_ok());
                let mut alone = Standing::default();
                alone.post(entry);
                prop_assert!(alone.unexplained().is_empty(), "{:?}", entry);
            }
        }
    }

    #[test]
    fn any_order_of_facts_stands_the_same(facts in prop::collection::vec(any_fact(), 1..10), seed in any::<u64>()) {
        // A balance transaction never changes: of those that share an id, the first that was drawn is meant.
        let mut drawn = std::collections::BTreeSet::new();
        let facts: Vec<Event> = facts
            .into_iter()
            .filter(|fact| match fact {
                Event::BalanceTransactionObserved(fact) => drawn.insert(fact.transaction.id.clone()),
                _ => true,
            })
            .collect();
        let mut other = facts.clone();
        other.rotate_left(usize::try_from(seed % facts.len() as u64).unwrap());
        if seed % 2 == 0 {
            other.reverse();
        }
        other.extend(facts.iter().take(2).cloned());
        let alone = |facts: &[Event]| play(&facts.iter().map(|fact| vec![fact.clone()]).collect::<Vec<_>>()).unwrap().1;
        let (one, another) = (alone(&facts), alone(&other));
        for seconds in 0..=1000 {
            prop_assert_eq!(one.posted_at(at(seconds)), another.posted_at(at(seconds)));
        }
    }
}

proptest! {
    /// R3 with closes in between: whatever is closed whenever, balances by occurrence are those of the set of facts, and nothing is
    /// booked into what is closed.
    #[test]
    fn closes_move_when_something_counts_and_not_what_stands_by_occurrence(
        facts in prop::collection::vec((any_fact(), 0_i64..1000), 1..10)
    ) {
        let object = "ch_1".parse().unwrap();
        let (mut open, mut closing) = (Ledgered::<Charge>::default(), Ledgered::<Charge>::default());
        let mut first_open = FirstOpen::default();
        for (fact, close_at) in facts {
            for event in open.decide(&object, learn(vec![fact.clone()]), FirstOpen::default()).unwrap() {
                open.evolve(&event);
            }
            let until = first_open.instant().map_or(at(close_at), |known| known.max(at(close_at)));
            first_open = FirstOpen::at(until);
            for event in closing.decide(&object, learn(vec![fact]), first_open).unwrap() {
                closing.evolve(&event);
                if let Event::EntryPosted(entry) = event {
                    prop_assert_eq!(entry.effective_at, entry.occurred_at.max(until));
                }
            }
        }
        for seconds in 0..=1000 {
            prop_assert_eq!(open.posted_at(at(seconds)), closing.posted_at(at(seconds)));
        }
        prop_assert_eq!(&open, &closing);
    }
}

fn posting(account: &str, side: Side, minor: i64) -> Posting {
    Posting { account: account.parse().unwrap(), side, money: Money::new(minor, "usd".parse().unwrap()) }
}

fn entry(sequence: u64, fact: &str, description: &str, seconds: i64, postings: Vec<Posting>) -> Event {
    EntryPosted {
        entry_id: format!("ch_1:{sequence}:{}", at(seconds).compact()).parse().unwrap(),
        cause: Cause {
            object: "ch_1".parse().unwrap(),
            facts: vec![FactReference { event_type: fact.to_owned(), sequence }],
            stripe_event: None,
            clears: None,
        },
        description: description.to_owned(),
        occurred_at: at(seconds),
        effective_at: at(seconds),
        postings,
        activity: Vec::new(),
    }
    .into()
}

/// The entry, with what it means to a creator who was tipped.
fn to_creator(mut entry: Event, creator: &str, lines: &[(StatementLine, i64)]) -> Event {
    if let Event::EntryPosted(posted) = &mut entry {
        posted.activity = lines
            .iter()
            .map(|(line, minor)| Activity {
                creator: creator.parse().unwrap(),
                line: *line,
                kind: Some(PaymentKind::Tip),
                minor: *minor,
                currency: "usd".parse().unwrap(),
            })
            .collect();
    }
    entry
}

fn tell(fact: Event) -> Addressed {
    Addressed { object: "ch_1".parse().unwrap(), command: learn(vec![fact]) }
}

fn seen_charge() -> Event {
    charge(1, 1, 1000, ChargeStatus::Succeeded, true)
}

fn charge_entry() -> Event {
    let postings = vec![
        posting("assets:stripe:unconfirmed", Side::Debit, 1000),
        posting("liabilities:suspense:unattributed", Side::Credit, 1000),
    ];
    entry(1, "ChargeObserved", "ch_1: charge succeeded", 0, postings)
}

fn seen_refund() -> Event {
    refund(2, 1, 100, 400, RefundStatus::Succeeded)
}

fn refund_entry() -> Event {
    let postings = vec![
        posting("assets:stripe:unconfirmed", Side::Credit, 400),
        posting("liabilities:suspense:unattributed", Side::Debit, 400),
    ];
    entry(3, "RefundObserved", "ch_1: refund re_1 succeeded", 100, postings)
}

type Aggregate = Ledgered<Charge>;

#[test]
fn a_charge_waits_in_suspense() {
    TestFramework::<Aggregate>::with(FirstOpen::default())
        .given_no_previous_events()
        .when(tell(seen_charge()))
        .then_expect_events(vec![seen_charge(), charge_entry()]);
}

#[test]
fn a_refund_comes_out_of_suspense() {
    TestFramework::<Aggregate>::with(FirstOpen::default())
        .given(vec![seen_charge(), charge_entry()])
        .when(tell(seen_refund()))
        .then_expect_events(vec![seen_refund(), refund_entry()]);
}

/// Both entries of one command count at the same instant; they are told apart by when they occurred.
#[test]
fn what_occurred_before_a_close_counts_from_the_first_open_instant() {
    let late = |event| {
        let Event::EntryPosted(entry) = event else { panic!("not an entry") };
        Event::from(EntryPosted { effective_at: at(1000), ..entry })
    };
    let told = attributed(5000, "crt_ada");
    TestFramework::<Aggregate>::with(FirstOpen::at(at(1000)))
        .given(vec![seen_charge(), charge_entry()])
        .when(tell(seen_refund()))
        .then_expect_events(vec![seen_refund(), late(refund_entry())]);
    let aggregate = play(&[vec![seen_charge()], vec![seen_refund()]]).unwrap().1;
    let events = aggregate.decide(&"ch_1".parse().unwrap(), learn(vec![told]), FirstOpen::at(at(1000))).unwrap();
    let dates: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::EntryPosted(entry) => Some((entry.entry_id.as_str(), entry.occurred_at, entry.effective_at)),
            _ => None,
        })
        .collect();
    let id = |seconds| format!("ch_1:5:{}", at(seconds).compact());
    assert_eq!(dates, [(&*id(0), at(0), at(1000)), (&*id(100), at(100), at(1000))]);
}

#[test]
fn an_attribution_moves_suspense_at_the_dates_of_charge_and_refund() {
    let told = attributed(5000, "crt_ada");
    let description = "ch_1: attributed to crt_ada by finance";
    let at_the_charge = vec![
        posting("income:platform-fees", Side::Credit, 200),
        posting("liabilities:creators:crt_ada:pending", Side::Credit, 800),
        posting("liabilities:suspense:unattributed", Side::Debit, 1000),
    ];
    let at_the_refund = vec![
        posting("income:refunds", Side::Debit, 80),
        posting("liabilities:creators:crt_ada:pending", Side::Debit, 320),
        posting("liabilities:suspense:unattributed", Side::Credit, 400),
    ];
    let sold = [(StatementLine::Sales, 1000), (StatementLine::PlatformFees, -200)];
    let refunded = [(StatementLine::Refunds, -320)];
    TestFramework::<Aggregate>::with(FirstOpen::default())
        .given(vec![seen_charge(), charge_entry(), seen_refund(), refund_entry()])
        .when(tell(told.clone()))
        .then_expect_events(vec![
            told,
            to_creator(entry(5, "CreatorAttributed", description, 0, at_the_charge), "crt_ada", &sold),
            to_creator(entry(5, "CreatorAttributed", description, 100, at_the_refund), "crt_ada", &refunded),
        ]);
}

/// An invoice speaks twice, by its own metadata and by its subscription's; whoever reads the entry is told once.
#[test]
fn the_same_news_is_named_once() {
    let said = |rank| -> Event {
        let offer = SourceOffer::new(rank, Offer::Valid(attribution("crt_a")));
        AttributionOffered { stamp: stamp(2, "evt_invoice"), from: "in_1".parse().unwrap(), offer }.into()
    };
    let facts = vec![seen_charge(), said(OfferRank::Invoice), said(OfferRank::InvoiceSubscription)];
    let events = Aggregate::default().decide(&"ch_1".parse().unwrap(), learn(facts), FirstOpen::default()).unwrap();
    let told = events.iter().find_map(|event| match event {
        Event::EntryPosted(entry) => Some(entry.description.as_str()),
        _ => None,
    });
    assert_eq!(told, Some("ch_1: charge succeeded, attribution by in_1"));
}
