//! Entries with what led to them, and the lists: webhooks, what waits, runners.

use std::sync::Arc;

use chrono::Utc;
use fanledger_domain::entry::{FactReference, Side};
use fanledger_domain::event::{
    Event, NotTranslatedReason, StripeEventNotTranslated, StripeEventReceived, StripeObjectsLinked,
};
use fanledger_domain::manual_entry::{ManualEntryApproved, ManualEntryProposed};
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, Asked, By, InboxFilter, ReadError};
use fanledger_gateway_api::{AwaitedPart, InboxStatus, ManualEntryState, Minor, MinorNumber};
use fanledger_journal::event::RecordedEvent;

use crate::made::{ALL_BY, Books, Dice, Made, charge, history, recorded};

const NOW: Asked = Asked::AsOf(AsOf::Latest, By::Effective);

#[tokio::test]
async fn an_entry_is_told_with_what_led_to_it() {
    let books = Books::empty().await;
    let mut made = history(&mut Dice(5), 1).remove(0);
    made.position = 20;
    made.entry.cause.stripe_event = Some("evt_1".parse().unwrap());
    made.entry.cause.facts = vec![FactReference { event_type: "ChargeObserved".to_owned(), sequence: 19 }];
    let webhook = received(12, "evt_1");
    books.apply(&[webhook, made.event()], |_| true).await;
    let entry = |as_of, by| read::entry::<MinorNumber>(&books.pool, &made.entry.entry_id, as_of, by);
    let read = entry(AsOf::Latest, By::Effective).await.unwrap();
    // As of the instant or position that it is of it is there, and not as of the one before.
    let position = read.value.position;
    let occurred = made.entry.occurred_at;
    let before = Timestamp::from_unix_micros(occurred.as_unix_micros() - 1).unwrap();
    for (as_of, is_there) in [
        (AsOf::Position(position), true),
        (AsOf::Position(position - 1), false),
        (AsOf::Instant(occurred), true),
        (AsOf::Instant(before), false),
    ] {
        assert_eq!(entry(as_of, By::Occurred).await.is_ok(), is_there, "{as_of:?}");
    }
    let entry = read.value;
    assert_eq!((read.position, entry.position, entry.stream.as_str()), (20, 20, "stripe_charge/ch_1"));
    assert_eq!(entry.recorded_at, made.recorded_at.to_string());
    assert_eq!(entry.cause.object, "ch_1");
    let fact = &entry.cause.facts[0];
    assert_eq!((fact.fact.as_str(), fact.sequence, fact.position), ("ChargeObserved", 19, 19));
    let webhook = &entry.cause.stripe_events[0];
    assert_eq!((webhook.id.as_str(), webhook.position), ("evt_1", Some(12)));
    assert_eq!(entry.postings.len(), made.entry.postings.len());
}

/// A reversal of an entry by hand, of which each time is another.
struct Reversal {
    proposed_at: u64,
    posted_at: u64,
    proposed: Timestamp,
    occurred: Timestamp,
    effective: Timestamp,
    events: [Arc<RecordedEvent>; 3],
}

impl Reversal {
    fn of(reversed: &Made) -> Self {
        let at = |days: i64| {
            Timestamp::from_unix_micros(reversed.entry.effective_at.as_unix_micros() + days * 86_400_000_000).unwrap()
        };
        let (occurred, effective, proposed, approved) = (at(1), at(2), at(900), at(901));
        let (proposed_at, posted_at) = (reversed.position + 5, reversed.position + 9);
        let proposal = ManualEntryProposed {
            id: "mne_1".parse().unwrap(),
            description: "taken back".to_owned(),
            reason: "booked twice".to_owned(),
            occurred_at: occurred,
            reverses: Some(reversed.entry.entry_id.clone()),
            clears: None,
            postings: reversed.entry.postings.clone(),
            at: proposed,
            by: "ada".parse().unwrap(),
            needs_approval: true,
        };
        let approval = ManualEntryApproved { id: proposal.id.clone(), at: approved, by: "grace".parse().unwrap() };
        let mut entry = reversed.entry.clone();
        entry.cause.object = proposal.id.clone();
        // The id that the projection works out from the approval, with which the entry is one command.
        entry.entry_id = fanledger_domain::manual_entry::entry_id(&proposal.id, posted_at - 1, occurred).unwrap();
        (entry.occurred_at, entry.effective_at) = (occurred, effective);
        let by_hand = |position: u64, at: Timestamp, event: &Event| {
            recorded(position, at.to_chrono(), "manual_entry", "mne_1", None, event)
        };
        let events = [
            by_hand(proposed_at, proposed, &Event::ManualEntryProposed(proposal)),
            by_hand(posted_at - 1, approved, &Event::ManualEntryApproved(approval)),
            by_hand(posted_at, approved, &Event::EntryPosted(entry)),
        ];
        Self { proposed_at, posted_at, proposed, occurred, effective, events }
    }
}

/// Whoever asks as of a month's end is not told of what came after it.
#[tokio::test]
async fn an_entry_as_of_then_is_not_told_with_what_came_later() {
    let books = Books::empty().await;
    let made = history(&mut Dice(6), 1).remove(0);
    let reversal = Reversal::of(&made);
    books.apply(&[made.event()], |_| true).await;
    books.apply(&reversal.events, |_| true).await;
    let before = |at: Timestamp| AsOf::Instant(Timestamp::from_unix_micros(at.as_unix_micros() - 1).unwrap());
    let (posted, waits) = (Some(ManualEntryState::Posted), Some(ManualEntryState::Proposed));
    let cases = [
        (AsOf::Latest, By::Effective, posted),
        (AsOf::Position(reversal.posted_at), By::Effective, posted),
        (AsOf::Position(reversal.posted_at - 1), By::Effective, waits),
        (AsOf::Position(reversal.proposed_at), By::Effective, waits),
        (AsOf::Position(reversal.proposed_at - 1), By::Effective, None),
        (AsOf::Instant(reversal.occurred), By::Occurred, posted),
        (before(reversal.occurred), By::Occurred, None),
        (AsOf::Instant(reversal.effective), By::Effective, posted),
        (before(reversal.effective), By::Effective, None),
        (AsOf::Instant(reversal.proposed), By::Recorded, waits),
        (before(reversal.proposed), By::Recorded, None),
    ];
    for (as_of, by, state) in cases {
        let entry = read::entry::<Minor>(&books.pool, &made.entry.entry_id, as_of, by).await.unwrap().value;
        assert_eq!(entry.reversed_by.as_deref(), state.map(|_| "mne_1"), "{as_of:?} {by:?}");
        assert_eq!(entry.reversal_state, state, "{as_of:?} {by:?}");
    }
    // Who agreed is of the same command as the entry: where the one is told, so is the other.
    let id =
        fanledger_domain::manual_entry::entry_id(&"mne_1".parse().unwrap(), reversal.posted_at - 1, reversal.occurred)
            .unwrap();
    for as_of in [AsOf::Position(reversal.posted_at), AsOf::Instant(reversal.effective)] {
        let entry = read::entry::<Minor>(&books.pool, &id, as_of, By::Effective).await.unwrap().value;
        assert_eq!(entry.cause.act.unwrap().approved_by.as_deref(), Some("grace"), "{as_of:?}");
    }
    let unposted = AsOf::Position(reversal.posted_at - 1);
    let refused = read::entry::<Minor>(&books.pool, &id, unposted, By::Effective).await;
    assert!(matches!(refused, Err(ReadError::UnknownEntry(_))), "{refused:?}");
}

#[tokio::test]
async fn an_entry_as_of_a_time_that_the_books_do_not_reach_is_refused() {
    let books = Books::empty().await;
    let made = history(&mut Dice(8), 5);
    let id = &made[2].entry.entry_id;
    let ask = async |as_of, by| read::entry::<Minor>(&books.pool, id, as_of, by).await;
    let empty = ask(AsOf::Position(0), By::Effective).await;
    assert!(matches!(empty, Err(ReadError::BeforeFirstEntry { first: None, .. })), "{empty:?}");

    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |_| true).await;
    let (first, last) = (made[0].position, made[4].position);
    let early = ask(AsOf::Position(first - 1), By::Effective).await;
    assert!(
        matches!(early, Err(ReadError::BeforeFirstEntry { first: Some(AsOf::Position(told)), .. }) if told == first),
        "{early:?}"
    );
    let late = ask(AsOf::Position(last + 1), By::Effective).await;
    assert!(matches!(late, Err(ReadError::AsOfPositionAhead { .. })), "{late:?}");
    assert!(ask(AsOf::Position(last), By::Effective).await.is_ok());
    for by in ALL_BY {
        let first = made.iter().map(|made| made.at(by)).min().unwrap();
        let before = AsOf::Instant(Timestamp::from_unix_micros(first.as_unix_micros() - 1).unwrap());
        let early = ask(before, by).await;
        assert!(
            matches!(early, Err(ReadError::BeforeFirstEntry { first: Some(AsOf::Instant(told)), .. }) if told == first),
            "{by:?} {early:?}"
        );
    }
}

fn received(position: u64, id: &str) -> Arc<RecordedEvent> {
    let event = Event::StripeEventReceived(StripeEventReceived {
        id: id.parse().unwrap(),
        event_type: Some("charge.succeeded".to_owned()),
        api_version: None,
        created: None,
        livemode: Some(true),
        account: None,
        object: Some("ch_1".parse().unwrap()),
        body_digest: "00".to_owned(),
        sealed_body: String::new(),
        flag: None,
    });
    recorded(position, Utc::now(), "stripe_event", id, None, &event)
}

#[tokio::test]
async fn the_inbox_tells_what_became_of_each_webhook() {
    let books = Books::empty().await;
    let not_translated = |position, id: &str, reason| {
        let event = StripeEventNotTranslated {
            id: id.parse().unwrap(),
            reason,
            detail: "why".to_owned(),
            translator_version: 3,
        };
        recorded(position, Utc::now(), "stripe_event", id, None, &Event::StripeEventNotTranslated(event))
    };
    let fact = |position, because: &str| {
        let made = history(&mut Dice(position), 1).remove(0);
        let linked = StripeObjectsLinked { from: "ch_1".parse().unwrap(), to: "pi_1".parse().unwrap() };
        recorded(
            position,
            made.recorded_at.to_chrono(),
            "stripe_charge",
            "ch_1",
            Some(because),
            &Event::StripeObjectsLinked(linked),
        )
    };
    let mut events: Vec<_> = (1..=5).map(|at| received(at, &format!("evt_{at}"))).collect();
    events.push(fact(6, "evt_1"));
    events.push(not_translated(7, "evt_2", NotTranslatedReason::Untranslatable));
    events.push(not_translated(8, "evt_3", NotTranslatedReason::UnusedType));
    events.push(fact(9, "evt_3"));
    books.apply(&events, |name| name == "stripe_inbox").await;

    let statuses = async |filter: InboxFilter| -> Vec<(String, InboxStatus)> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = read::inbox(&books.pool, &filter, after, 2).await.unwrap().value;
            found.extend(page.items.into_iter().map(|item| (item.id, item.status)));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let of = |at: u64, status| (format!("evt_{at}"), status);
    use InboxStatus::{Known, NotTranslated, Pending, Translated};
    let before = [of(5, Pending), of(4, Pending), of(3, Translated), of(2, NotTranslated), of(1, Translated)];
    assert_eq!(statuses(InboxFilter::default()).await, before);

    // The translator has been past the fourth, and nothing came of it.
    sqlx::query(
        "INSERT INTO control.runners (name, generation, version, live, views, journal_id, position, chain)
         SELECT 'stripe_translator', 1, 1, true, '{}', journal_id, 4, chain FROM control.runners WHERE name = 'stripe_inbox'",
    )
    .execute(&books.superuser)
    .await
    .unwrap();
    let after = [of(5, Pending), of(4, Known), of(3, Translated), of(2, NotTranslated), of(1, Translated)];
    assert_eq!(statuses(InboxFilter::default()).await, after);
    assert_eq!(statuses(InboxFilter { status: Some(Known), ..InboxFilter::default() }).await, [of(4, Known)]);
    assert_eq!(statuses(InboxFilter { raised: Some(true), ..InboxFilter::default() }).await, [of(2, NotTranslated)]);
    assert_eq!(statuses(InboxFilter { event_type: Some("other".to_owned()), ..InboxFilter::default() }).await, []);

    let item = read::inbox_item(&books.pool, &"evt_2".parse().unwrap()).await.unwrap();
    assert_eq!((item.position, item.value.position), (9, 2));
    assert_eq!(
        (item.value.reason.as_deref(), item.value.translator_version, item.value.raised),
        (Some("untranslatable"), Some(3), true)
    );
}

#[tokio::test]
async fn what_waits_is_listed_oldest_first_in_pages() {
    let books = Books::empty().await;
    let mut events = Vec::new();
    for (number, made) in history(&mut Dice(9), 7).into_iter().enumerate() {
        let mut entry = made.entry;
        entry.cause.object = format!("ch_{number}").parse().unwrap();
        entry.entry_id = format!("ch_{number}:1:x").parse().unwrap();
        for posting in entry.postings.iter_mut().filter(|posting| posting.side == Side::Credit) {
            posting.account = "liabilities:suspense:unattributed".parse().unwrap();
        }
        events.push(Made { entry, ..made }.event());
    }
    books.apply(&events, |name| matches!(name, "suspense" | "awaited")).await;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = read::suspense::<Minor>(&books.pool, NOW, after.as_ref(), 2).await.unwrap().value;
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 7);
    assert!(found.is_sorted_by_key(|item| item.since.parse::<Timestamp>().unwrap()));
    assert!(found.iter().all(|item| item.balance_minor.0 < 0));
    let none = read::awaited::<Minor>(&books.pool, None, 2).await.unwrap();
    assert_eq!(
        (none.position, none.value.items.len(), none.value.next),
        (events.last().unwrap().position.get(), 0, None)
    );
}

#[tokio::test]
async fn what_is_awaited_is_listed_oldest_first_in_pages() {
    let books = Books::empty().await;
    // Two are of one instant, so that a page ends between them.
    let events = [
        charge(4, "ch_b", "2024-02-02T00:00:00Z", 250, Some("txn_b")),
        charge(5, "ch_c", "2024-02-02T00:00:00Z", 75, None),
        charge(6, "ch_a", "2024-02-01T00:00:00Z", 1000, None),
    ];
    books.apply(&events, |name| name == "awaited").await;
    let whole = read::awaited::<MinorNumber>(&books.pool, None, 500).await.unwrap();
    assert_eq!((whole.position, &whole.value.next), (6, &None));
    let told: Vec<_> = whole
        .value
        .items
        .iter()
        .map(|item| {
            let named = item.balance_transaction.as_deref();
            (item.object.as_str(), item.part, item.amount_minor.0, item.since.as_str(), named)
        })
        .collect();
    use AwaitedPart::Movement;
    assert_eq!(
        told,
        [
            ("ch_a", Movement, 1000, "2024-02-01T00:00:00Z", None),
            ("ch_b", Movement, 250, "2024-02-02T00:00:00Z", Some("txn_b")),
            ("ch_c", Movement, 75, "2024-02-02T00:00:00Z", None),
        ]
    );
    let first = &whole.value.items[0];
    assert_eq!((first.stream.as_str(), first.currency.as_str()), ("stripe_charge/ch_a", "usd"));
    for limit in 1..=3 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = read::awaited::<MinorNumber>(&books.pool, after.as_ref(), limit).await.unwrap().value;
            assert!(page.items.len() <= limit as usize);
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, whole.value.items, "limit {limit}");
    }
}

#[tokio::test]
async fn runners_and_positions_are_told() {
    let books = Books::empty().await;
    let runners = read::runners(&books.pool).await.unwrap().value;
    let names: Vec<_> = runners.iter().map(|runner| runner.name.as_str()).collect();
    let mut expected: Vec<_> = fanledger_projections::all().iter().map(|projection| projection.name()).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(read::journal(&books.pool).await.unwrap().value.journal_id.is_some());
    books.apply(&[history(&mut Dice(1), 1)[0].event()], |name| name == "postings").await;
    assert!(read::position_of(&books.pool, "postings").await.unwrap() > 0);
    assert_eq!(read::position_of(&books.pool, "nothing").await.unwrap(), 0);
}
