//! The read queries against plain sums over the same postings, at every edge of an hour, a day, a month and a leap day.
//!
//! The events are made up and applied by the projections themselves, straight into their live tables: only so can they be
//! recorded at times of the test's choosing. How rows get there through the journal is the projections' own tests.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use fanledger_devkit::TestDatabase;
use fanledger_domain::entry::{Cause, EntryPosted, FactReference, Posting, Side};
use fanledger_domain::event::{
    Event, NotTranslatedReason, StripeEventNotTranslated, StripeEventReceived, StripeObjectsLinked,
};
use fanledger_domain::money::Money;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, By, InboxFilter, ReadError};
use fanledger_gateway_api::{AccountBalance, InboxStatus, Minor, MinorNumber, PostingLine, Side as WireSide};
use fanledger_journal::database::{self, Role};
use fanledger_journal::event::{ChainDigest, Position, RecordedEvent, StreamId};
use fanledger_journal::runner::{Effects, Projection, RunnerContext, catch_up};
use sqlx::PgPool;
use uuid::Uuid;

struct Books {
    _database: TestDatabase,
    superuser: PgPool,
    /// The gateway's own role, so that every question here is one that it may ask.
    pool: PgPool,
}

impl Books {
    async fn empty() -> Self {
        let database = TestDatabase::create().await;
        let projector = database::role_url(database.url(), Role::Projector).unwrap();
        let context = RunnerContext::without_feed(database::connect(&projector, 1).await.unwrap());
        for mut projection in fanledger_projections::all() {
            catch_up(&context, projection.as_mut()).await.unwrap();
        }
        let gateway = database::role_url(database.url(), Role::Gateway).unwrap();
        Self {
            superuser: database::connect(database.url(), 1).await.unwrap(),
            pool: database::connect(&gateway, 2).await.unwrap(),
            _database: database,
        }
    }

    /// Applies events to the projections for which `to` holds, and moves their checkpoints.
    async fn apply(&self, events: &[Arc<RecordedEvent>], to: impl Fn(&str) -> bool) {
        for mut projection in fanledger_projections::all() {
            if to(projection.name()) {
                self.apply_to(projection.as_mut(), events).await;
            }
        }
    }

    async fn apply_to(&self, projection: &mut dyn Projection, events: &[Arc<RecordedEvent>]) {
        let Some(last) = events.last() else { return };
        let mut transaction = self.superuser.begin().await.unwrap();
        let path = format!("SET LOCAL search_path = {}_g1", projection.name());
        sqlx::query(&path).execute(&mut *transaction).await.unwrap();
        let wanted: Vec<_> = events.iter().filter(|event| projection.wants(&event.event_type)).cloned().collect();
        if !wanted.is_empty() {
            projection.apply(&wanted, Effects::Live, &mut transaction).await.unwrap();
        }
        self.move_runner(&mut transaction, projection.name(), last.position).await;
        transaction.commit().await.unwrap();
    }

    async fn move_runner(&self, connection: &mut sqlx::PgConnection, name: &str, position: Position) {
        sqlx::query("UPDATE control.runners SET position = $2 WHERE name = $1")
            .bind(name)
            .bind(position.as_i64())
            .execute(connection)
            .await
            .unwrap();
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64, by Sebastiano Vigna; in the public domain.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }
}

/// Each edge with the microsecond on either side.
fn edges() -> Vec<Timestamp> {
    let mut instants = BTreeSet::new();
    for edge in [
        "2023-12-31T23:00:00Z",
        "2024-01-01T00:00:00Z",
        "2024-02-28T00:00:00Z",
        "2024-02-29T00:00:00Z",
        "2024-02-29T12:00:00Z",
        "2024-02-29T23:00:00Z",
        "2024-03-01T00:00:00Z",
        "2024-03-01T01:00:00Z",
        "2024-03-31T22:00:00Z",
        "2025-03-01T00:00:00Z",
    ] {
        let micros = edge.parse::<Timestamp>().unwrap().as_unix_micros();
        for step in [-1, 0, 1, 1_800_000_000] {
            instants.insert(Timestamp::from_unix_micros(micros + step).unwrap());
        }
    }
    instants.into_iter().collect()
}

const ACCOUNTS: &[&str] = &[
    "assets:stripe:clearing",
    "income:platform-fees",
    "liabilities:creators:crt_1:pending",
    "liabilities:creators:crt_2:pending",
];

#[derive(Clone)]
struct Made {
    position: u64,
    recorded_at: Timestamp,
    entry: EntryPosted,
}

impl Made {
    fn at(&self, by: By) -> Timestamp {
        match by {
            By::Occurred => self.entry.occurred_at,
            By::Effective => self.entry.effective_at,
            By::Recorded => self.recorded_at,
        }
    }

    fn within(&self, as_of: AsOf, by: By) -> bool {
        match as_of {
            AsOf::Latest => true,
            AsOf::Instant(instant) => self.at(by) <= instant,
            AsOf::Position(position) => self.position <= position,
        }
    }

    fn event(&self) -> Arc<RecordedEvent> {
        recorded(
            self.position,
            self.recorded_at.to_chrono(),
            "stripe_charge",
            "ch_1",
            None,
            &Event::EntryPosted(self.entry.clone()),
        )
    }
}

fn recorded(
    position: u64,
    at: DateTime<Utc>,
    kind: &str,
    id: &str,
    because: Option<&str>,
    event: &Event,
) -> Arc<RecordedEvent> {
    let metadata = because.map_or_else(|| "{}".to_owned(), |cause| format!(r#"{{"causation_id":"{cause}"}}"#));
    Arc::new(RecordedEvent {
        position: Position::new(position),
        event_id: Uuid::now_v7(),
        recorded_at: at,
        stream: StreamId::new(kind, id),
        sequence: position,
        event_type: event.type_name().to_owned(),
        event_version: event.version().to_owned(),
        payload: event.to_payload().unwrap().into(),
        metadata: metadata.into(),
        chain: ChainDigest::START,
        previous_chain: ChainDigest::START,
    })
}

/// Entries at the edges, recorded in order, at positions with gaps between them (other events).
fn history(dice: &mut Dice, entries: usize) -> Vec<Made> {
    let edges = edges();
    let mut recorded: Vec<Timestamp> = (0..entries).map(|_| *dice.pick(&edges)).collect();
    recorded.sort_unstable();
    let mut position = 3;
    recorded
        .into_iter()
        .map(|recorded_at| {
            position += 1 + dice.roll(3) as u64;
            let occurred_at = *dice.pick(&edges);
            let effective_at = if dice.roll(3) == 0 { *dice.pick(&edges) } else { occurred_at };
            let currency = ["usd", "jpy"][usize::from(dice.roll(4) == 0)].parse().unwrap();
            let mut postings = Vec::new();
            for _ in 0..=dice.roll(2) {
                let money = Money::new(1 + i64::try_from(dice.roll(1000)).unwrap(), currency);
                for side in [Side::Debit, Side::Credit] {
                    postings.push(Posting { account: dice.pick(ACCOUNTS).parse().unwrap(), side, money });
                }
            }
            let entry = EntryPosted {
                entry_id: format!("ch_1:{position}:{}", occurred_at.compact()).parse().unwrap(),
                cause: Cause { object: "ch_1".parse().unwrap(), facts: Vec::new(), stripe_event: None },
                description: "made up".to_owned(),
                occurred_at,
                effective_at,
                postings,
            };
            Made { position, recorded_at, entry }
        })
        .collect()
}

/// (currency, account) to (debits, credits), by plain sums.
fn plain(made: &[Made], as_of: AsOf, by: By) -> BTreeMap<(String, String), (i128, i128)> {
    let mut sums: BTreeMap<_, (i128, i128)> = BTreeMap::new();
    for posting in made.iter().filter(|made| made.within(as_of, by)).flat_map(|made| &made.entry.postings) {
        let sum = sums.entry((posting.money.currency().to_string(), posting.account.to_string())).or_default();
        match posting.side {
            Side::Debit => sum.0 += i128::from(posting.money.minor()),
            Side::Credit => sum.1 += i128::from(posting.money.minor()),
        }
    }
    sums
}

const ALL_BY: [By; 3] = [By::Effective, By::Occurred, By::Recorded];

/// Every question that is worth asking of a history: at and between its instants and positions.
fn questions(made: &[Made]) -> Vec<(AsOf, By)> {
    let last = made.last().unwrap().position;
    let mut questions: Vec<_> =
        (made[0].position..=last).map(|position| (AsOf::Position(position), By::Effective)).collect();
    for by in ALL_BY {
        questions.push((AsOf::Latest, by));
        let first = made.iter().map(|made| made.at(by)).min().unwrap();
        questions.extend(edges().into_iter().filter(|at| *at >= first).map(|at| (AsOf::Instant(at), by)));
        questions.push((AsOf::Instant("9999-12-31T23:59:59.999999Z".parse().unwrap()), by));
    }
    questions
}

#[tokio::test]
async fn balances_equal_plain_sums_as_of_every_instant_and_position() {
    for seed in 0..2 {
        let books = Books::empty().await;
        let mut dice = Dice(seed);
        let made = history(&mut dice, 40);
        let events: Vec<_> = made.iter().map(Made::event).collect();
        for batch in events.chunks(7) {
            books.apply(batch, |name| name == "balances").await;
        }
        let end = made.last().unwrap().position;
        for (as_of, by) in questions(&made) {
            let label = format!("seed {seed}, as of {as_of:?} by {by:?}");
            let expected = plain(&made, as_of, by);
            let trial = read::trial_balance::<Minor>(&books.pool, as_of, by, None).await.unwrap();
            assert_eq!(trial.position, end, "{label}");
            let mut found = BTreeMap::new();
            let mut order = Vec::new();
            for currency in &trial.value.currencies {
                let (debits, credits) = (currency.debits_minor.0, currency.credits_minor.0);
                assert_eq!(debits, credits, "{label}");
                assert_eq!(
                    debits,
                    currency.accounts.iter().map(|account| account.debits_minor.0).sum::<i128>(),
                    "{label}"
                );
                for account in &currency.accounts {
                    assert_eq!(account.balance_minor.0, account.debits_minor.0 - account.credits_minor.0, "{label}");
                    let key = (currency.currency.clone(), account.account.clone());
                    order.push(key.clone());
                    found.insert(key, (account.debits_minor.0, account.credits_minor.0));
                }
            }
            assert_eq!(found, expected, "{label}");
            assert!(order.is_sorted(), "{label}: {order:?}");

            // The other way to the same figures: account by account, by probes.
            if dice.roll(4) == 0 {
                assert_eq!(accounts_in_pages(&books.pool, as_of, by).await, expected, "{label}");
            }
        }
        let usd = read::trial_balance::<Minor>(&books.pool, AsOf::Latest, By::Effective, Some("usd".parse().unwrap()))
            .await
            .unwrap();
        assert_eq!(usd.value.currencies.iter().map(|currency| currency.currency.as_str()).collect::<Vec<_>>(), ["usd"]);
    }
}

/// What is asked for may be far from any entry, and one event with a mistaken date may be: neither makes the other slow.
#[tokio::test]
async fn months_without_entries_cost_nothing() {
    let books = Books::empty().await;
    let mut made = history(&mut Dice(11), 40);
    let far = "0000-01-01T00:00:00Z".parse().unwrap();
    (made[0].entry.occurred_at, made[0].entry.effective_at) = (far, far);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| name == "balances").await;
    for as_of in ["2027-01-01T00:00:00Z", "9999-12-31T23:59:59Z"].map(|at| AsOf::Instant(at.parse().unwrap())) {
        for by in ALL_BY {
            // The gateway's statements are cut after 5 s; these few rows take milliseconds.
            let pages = accounts_in_pages(&books.pool, as_of, by);
            let found = tokio::time::timeout(std::time::Duration::from_secs(1), pages).await.expect("in time");
            assert_eq!(found, plain(&made, as_of, by), "as of {as_of:?} by {by:?}");
        }
    }
}

async fn accounts_in_pages(pool: &PgPool, as_of: AsOf, by: By) -> BTreeMap<(String, String), (i128, i128)> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = read::accounts::<Minor>(pool, as_of, by, after.as_ref(), 3).await.unwrap().value;
        assert!(page.items.len() <= 3);
        for AccountBalance { account, currency, debits_minor, credits_minor, balance_minor } in page.items {
            assert_eq!(balance_minor.0, debits_minor.0 - credits_minor.0);
            assert!(found.insert((currency, account), (debits_minor.0, credits_minor.0)).is_none());
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// What a statement must show, newest first: (position, line, currency, signed amount, balance after it).
fn plain_statement(made: &[Made], account: &str, as_of: AsOf, by: By) -> Vec<(u64, String, i128, i128)> {
    let by = if matches!(as_of, AsOf::Position(_)) { By::Recorded } else { by };
    let mut lines = Vec::new();
    for made in made.iter().filter(|made| made.within(as_of, by)) {
        for (line, posting) in
            made.entry.postings.iter().enumerate().filter(|(_, posting)| posting.account.to_string() == account)
        {
            lines.push((
                (made.at(by), made.position, line),
                posting.money.currency().to_string(),
                i128::from(posting.signed_minor()),
            ));
        }
    }
    lines.sort();
    let mut running: BTreeMap<String, i128> = BTreeMap::new();
    let mut statement: Vec<_> = lines
        .into_iter()
        .map(|((_, position, _), currency, amount)| {
            let balance = running.entry(currency.clone()).or_default();
            *balance += amount;
            (position, currency, amount, *balance)
        })
        .collect();
    statement.reverse();
    statement
}

fn shown(line: &PostingLine) -> (u64, String, i128, i128) {
    let amount = match line.side {
        WireSide::Debit => line.amount_minor.0,
        WireSide::Credit => -line.amount_minor.0,
    };
    (line.position, line.currency.clone(), amount, line.balance_minor.0)
}

#[tokio::test]
async fn every_page_of_a_statement_carries_the_balance_after_each_line() {
    let books = Books::empty().await;
    let made = history(&mut Dice(7), 30);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| matches!(name, "balances" | "postings")).await;
    for (at, (as_of, by)) in questions(&made).into_iter().enumerate() {
        let account = ACCOUNTS[at % ACCOUNTS.len()];
        let label = format!("{account} as of {as_of:?} by {by:?}");
        let expected = plain_statement(&made, account, as_of, by);
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page =
                read::postings::<Minor>(&books.pool, &account.parse().unwrap(), None, as_of, by, after.as_ref(), 4)
                    .await
                    .unwrap();
            found.extend(page.value.items.iter().map(shown));
            after = page.value.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{label}");
    }
    let account = ACCOUNTS[0].parse().unwrap();
    let statement =
        read::statement::<MinorNumber>(&books.pool, &account, None, AsOf::Latest, By::Occurred).await.unwrap().value;
    let expected = plain(&made, AsOf::Latest, By::Occurred);
    for part in &statement {
        let (debits, credits) = expected[&(part.currency.clone(), part.account.clone())];
        assert_eq!(part.balance_minor.0, debits - credits);
        assert_eq!(part.postings.last().unwrap().balance_minor, part.balance_minor);
        assert!(part.postings.is_sorted_by_key(|line| line.occurred_at.parse::<Timestamp>().unwrap()));
    }
    assert_eq!(statement.len(), 2);
}

#[tokio::test]
async fn a_statement_is_exact_while_its_projections_are_apart() {
    let made = history(&mut Dice(11), 40);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    let (early, late) = (25, 40);
    let early_end = AsOf::Position(made[early - 1].position);
    for (balances, postings) in [(early, late), (late, early)] {
        let books = Books::empty().await;
        books.apply(&events[..balances], |name| name == "balances").await;
        books.apply(&events[..postings], |name| name == "postings").await;
        for by in ALL_BY {
            let account = ACCOUNTS[2];
            let of_both: Vec<_> = made[..early].to_vec();
            let first =
                read::postings::<Minor>(&books.pool, &account.parse().unwrap(), None, AsOf::Latest, by, None, 3)
                    .await
                    .unwrap();
            assert_eq!(AsOf::Position(first.position), early_end);
            let mut found: Vec<_> = first.value.items.iter().map(shown).collect();
            // While the pages are read, the one behind catches up: the pages that follow stay at their position.
            if by == By::Recorded {
                books.apply(&events[balances..], |name| name == "balances").await;
                books.apply(&events[postings..], |name| name == "postings").await;
            }
            let mut after = first.value.next;
            while let Some(key) = after {
                let page = read::postings::<Minor>(
                    &books.pool,
                    &account.parse().unwrap(),
                    None,
                    AsOf::Latest,
                    by,
                    Some(&key),
                    3,
                )
                .await
                .unwrap();
                assert_eq!(AsOf::Position(page.position), early_end);
                found.extend(page.value.items.iter().map(shown));
                after = page.value.next;
            }
            assert_eq!(found, plain_statement(&of_both, account, AsOf::Latest, by), "{by:?}");
        }
    }
}

#[tokio::test]
async fn a_question_without_an_answer_is_refused_by_name() {
    let books = Books::empty().await;
    let instant = |text: &str| AsOf::Instant(text.parse().unwrap());
    let trial = async |as_of, by| read::trial_balance::<Minor>(&books.pool, as_of, by, None).await;
    let account: fanledger_domain::account::Account = ACCOUNTS[0].parse().unwrap();

    let empty = trial(AsOf::Latest, By::Effective).await.unwrap();
    assert_eq!((empty.position, empty.value.currencies.len()), (0, 0));
    assert!(matches!(
        trial(instant("2024-01-01T00:00:00Z"), By::Effective).await,
        Err(ReadError::BeforeFirstEntry { first: None, .. })
    ));
    assert!(matches!(
        trial(AsOf::Position(0), By::Effective).await,
        Err(ReadError::BeforeFirstEntry { first: None, .. })
    ));
    assert!(matches!(
        trial(AsOf::Position(1), By::Effective).await,
        Err(ReadError::AsOfPositionAhead { asked: 1, position: 0 })
    ));
    let unknown = read::account::<Minor>(&books.pool, &account, AsOf::Latest, By::Effective).await;
    assert!(matches!(unknown, Err(ReadError::UnknownAccount(_))));

    let made = history(&mut Dice(3), 10);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| name != "stripe_inbox").await;
    for by in ALL_BY {
        let first = made.iter().map(|made| made.at(by)).min().unwrap();
        let before = Timestamp::from_unix_micros(first.as_unix_micros() - 1).unwrap();
        match trial(AsOf::Instant(before), by).await {
            Err(ReadError::BeforeFirstEntry { first: Some(AsOf::Instant(told)), .. }) => {
                assert_eq!(told, first, "{by:?}")
            }
            other => panic!("{other:?}"),
        }
        assert!(trial(AsOf::Instant(first), by).await.is_ok());
        let lines = read::postings::<Minor>(&books.pool, &account, None, AsOf::Instant(before), by, None, 1).await;
        assert!(matches!(lines, Err(ReadError::BeforeFirstEntry { .. })));
    }
    let (first, last) = (made[0].position, made[9].position);
    match trial(AsOf::Position(first - 1), By::Effective).await {
        Err(error @ ReadError::BeforeFirstEntry { first: Some(AsOf::Position(told)), .. }) => {
            assert_eq!(told, first);
            assert_eq!(
                error.to_string(),
                format!("position {} is before the first entry, which is at position {first}", first - 1)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(trial(AsOf::Position(last + 1), By::Effective).await, Err(ReadError::AsOfPositionAhead { .. })));
    assert!(matches!(trial(AsOf::Position(u64::MAX), By::Effective).await, Err(ReadError::AsOfPositionAhead { .. })));
    let entry = read::entry::<Minor>(&books.pool, &"ch_1:none".parse().unwrap(), AsOf::Latest, By::Effective).await;
    assert!(matches!(entry, Err(ReadError::UnknownEntry(_))));
    let item = read::inbox_item(&books.pool, &"evt_none".parse().unwrap()).await;
    assert!(matches!(item, Err(ReadError::UnknownStripeEvent(_))));
}

#[tokio::test]
async fn sums_pass_sixty_four_bits_exactly() {
    let books = Books::empty().await;
    let most = Money::new(fanledger_domain::entry::POSTING_MINOR_MAX, "usd".parse().unwrap());
    let mut made = history(&mut Dice(5), 1);
    made[0].entry.postings = (0..1500)
        .flat_map(|_| {
            [(ACCOUNTS[0], Side::Debit), (ACCOUNTS[1], Side::Credit)].map(|(account, side)| Posting {
                account: account.parse().unwrap(),
                side,
                money: most,
            })
        })
        .collect();
    books.apply(&[made[0].event()], |name| matches!(name, "balances" | "postings")).await;
    let exact = i128::from(most.minor()) * 1500;
    assert!(exact > i128::from(i64::MAX));
    let read =
        read::account::<Minor>(&books.pool, &ACCOUNTS[0].parse().unwrap(), AsOf::Latest, By::Effective).await.unwrap();
    assert_eq!(read.value.currencies[0].balance_minor.0, exact);
    let page = read::postings::<Minor>(
        &books.pool,
        &ACCOUNTS[1].parse().unwrap(),
        None,
        AsOf::Latest,
        By::Effective,
        None,
        10,
    )
    .await
    .unwrap();
    assert_eq!(page.value.items[0].balance_minor.0, -exact);
    assert_eq!(page.value.items[9].balance_minor.0, -exact + i128::from(most.minor()) * 9);
}

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
        let page = read::suspense::<Minor>(&books.pool, after.as_ref(), 2).await.unwrap().value;
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
    assert_eq!(names, ["awaited", "balances", "entries", "postings", "stripe_inbox", "suspense"]);
    assert!(read::journal(&books.pool).await.unwrap().value.journal_id.is_some());
    books.apply(&[history(&mut Dice(1), 1)[0].event()], |name| name == "postings").await;
    assert!(read::position_of(&books.pool, "postings").await.unwrap() > 0);
    assert_eq!(read::position_of(&books.pool, "nothing").await.unwrap(), 0);
}
