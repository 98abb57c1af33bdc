//! Entries with what led to them, and the lists: webhooks, what waits, runners.

use std::sync::Arc;

use chrono::Utc;
use fanledger_domain::entry::{FactReference, Side};
use fanledger_domain::event::{
    Event, NotTranslatedReason, StripeEventNotTranslated, StripeEventReceived, StripeObjectsLinked,
};
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, Asked, By, InboxFilter};
use fanledger_gateway_api::{InboxStatus, Minor, MinorNumber};
use fanledger_journal::event::RecordedEvent;

use crate::made::{Books, Dice, Made, history, recorded};

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
