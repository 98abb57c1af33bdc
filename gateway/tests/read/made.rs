//! Made-up entries, applied by the projections, and plain sums over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use fanledger_devkit::TestDatabase;
use fanledger_domain::entry::{Cause, EntryPosted, Posting, Side};
use fanledger_domain::event::{ChargeObserved, Event};
use fanledger_domain::facts::{ChargeSnapshot, ChargeStatus, EventStamp, Offer};
use fanledger_domain::money::Money;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{AsOf, By};
use fanledger_journal::database::{self, Role};
use fanledger_journal::event::{ChainDigest, Position, RecordedEvent, StreamId};
use fanledger_journal::runner::{Effects, Projection, RunnerContext, catch_up};
use sqlx::PgPool;
use uuid::Uuid;

pub struct Books {
    _database: TestDatabase,
    pub superuser: PgPool,
    /// The gateway's own role, so that every question here is one that it may ask.
    pub pool: PgPool,
}

impl Books {
    pub async fn empty() -> Self {
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
    pub async fn apply(&self, events: &[Arc<RecordedEvent>], to: impl Fn(&str) -> bool) {
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

pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64, by Sebastiano Vigna; in the public domain.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }
}

/// Each edge with the microsecond on either side.
pub fn edges() -> Vec<Timestamp> {
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

pub const ACCOUNTS: &[&str] = &[
    "assets:stripe:clearing",
    "income:platform-fees",
    "liabilities:creators:crt_1:pending",
    "liabilities:creators:crt_2:pending",
];

#[derive(Clone)]
pub struct Made {
    pub position: u64,
    pub recorded_at: Timestamp,
    pub entry: EntryPosted,
}

impl Made {
    pub fn at(&self, by: By) -> Timestamp {
        match by {
            By::Occurred => self.entry.occurred_at,
            By::Effective => self.entry.effective_at,
            By::Recorded => self.recorded_at,
        }
    }

    pub fn within(&self, as_of: AsOf, by: By) -> bool {
        match as_of {
            AsOf::Latest => true,
            AsOf::Instant(instant) => self.at(by) <= instant,
            AsOf::Position(position) => self.position <= position,
            AsOf::Known { instant, position } => self.at(by) <= instant && self.position <= position,
        }
    }

    pub fn event(&self) -> Arc<RecordedEvent> {
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

pub fn recorded(
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

/// A charge in usd that took its money at `created`, and whose balance transaction was not seen; it may be named.
pub fn charge(position: u64, id: &str, created: &str, minor: i64, named: Option<&str>) -> Arc<RecordedEvent> {
    let created: Timestamp = created.parse().unwrap();
    let charge = ChargeSnapshot {
        id: id.parse().unwrap(),
        created,
        currency: "usd".parse().unwrap(),
        amount: minor,
        amount_captured: minor,
        status: ChargeStatus::Succeeded,
        captured: true,
        payment_intent: None,
        invoice: None,
        balance_transaction: named.map(|named| named.parse().unwrap()),
        failure_balance_transaction: None,
        offer: Offer::Silent,
    };
    let stamp = EventStamp { created, event: "evt_1".parse().unwrap() };
    let event = Event::ChargeObserved(ChargeObserved { stamp, charge });
    recorded(position, created.to_chrono(), "stripe_charge", id, None, &event)
}

/// Entries at the edges, recorded in order, at positions with gaps between them (other events).
pub fn history(dice: &mut Dice, entries: usize) -> Vec<Made> {
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
                cause: Cause { object: "ch_1".parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
                description: "made up".to_owned(),
                occurred_at,
                effective_at,
                postings,
                activity: Vec::new(),
            };
            Made { position, recorded_at, entry }
        })
        .collect()
}

/// (currency, account) to (debits, credits), by plain sums.
pub fn plain(made: &[Made], as_of: AsOf, by: By) -> BTreeMap<(String, String), (i128, i128)> {
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

pub const ALL_BY: [By; 3] = [By::Effective, By::Occurred, By::Recorded];

/// Every question that is worth asking of a history: at and between its instants and positions.
pub fn questions(made: &[Made]) -> Vec<(AsOf, By)> {
    let last = made.last().unwrap().position;
    let mut questions: Vec<_> =
        (made[0].position..=last).map(|position| (AsOf::Position(position), By::Effective)).collect();
    for by in ALL_BY {
        // Every edge as it was known at some position: a few entries into the history, halfway, near its end.
        for (at, instant) in edges().into_iter().enumerate() {
            let position = made[at * 7 % made.len()].position;
            let known = AsOf::Known { instant, position };
            if made.iter().any(|made| made.within(known, by)) {
                questions.push((known, by));
            }
        }
        questions.push((AsOf::Latest, by));
        let first = made.iter().map(|made| made.at(by)).min().unwrap();
        questions.extend(edges().into_iter().filter(|at| *at >= first).map(|at| (AsOf::Instant(at), by)));
        questions.push((AsOf::Instant("9999-12-31T23:59:59.999999Z".parse().unwrap()), by));
    }
    questions
}
