//! What the tests of relay, runner and chaos share: a world of one database and one NATS, and a projection that counts.

#![allow(dead_code, reason = "each test program uses its part of this")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fanledger_devkit::TestDatabase;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database;
use fanledger_journal::event::{Metadata, NewEvent, Position, RecordedEvent, StreamId};
use fanledger_journal::reader::Reader;
use fanledger_journal::relay::{Relay, RelayOptions, RelayStatus};
use fanledger_journal::runner::{
    ApplyError, Effects, Projection, RunnerContext, RunnerState, RunnerStatus, Schema, status,
};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(10);

/// A journal with a writer, and the pools of the roles that matter here.
pub struct World {
    pub database: TestDatabase,
    pub writer: Writer,
    pub projector: PgPool,
    pub reader: Reader,
}

impl World {
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        let writer = Writer::start(WriterOptions::new(database.url_for("fanledger_command"))).await.unwrap();
        let projector = database::connect(&database.url_for("fanledger_projector"), 5).await.unwrap();
        Self { reader: Reader::new(projector.clone()), database, writer, projector }
    }

    pub async fn pool(&self, role: &str) -> PgPool {
        database::connect(&self.database.url_for(role), 2).await.unwrap()
    }

    pub async fn superuser(&self) -> PgPool {
        database::connect(self.database.url(), 2).await.unwrap()
    }

    pub fn context(&self) -> RunnerContext {
        RunnerContext::without_feed(self.projector.clone())
    }

    /// Appends events that alternate between two types, one stream each; returns the last position.
    pub async fn append(&self, count: usize) -> Position {
        let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(append_one(self.writer.clone(), n))).collect();
        let mut last = Position::START;
        for task in tasks {
            last = last.max(task.await.unwrap());
        }
        last
    }

    /// The status of one runner.
    pub async fn status_of(&self, name: &str) -> Option<RunnerStatus> {
        status(&self.projector).await.unwrap().into_iter().find(|status| status.name == name)
    }

    /// Waits until a runner is at `position` and not standing still.
    pub async fn reached(&self, name: &'static str, position: Position) {
        eventually(&format!("{name} reaches {position}"), || async {
            self.status_of(name)
                .await
                .is_some_and(|status| status.position >= position && status.state == RunnerState::Live)
        })
        .await;
    }

    /// Waits until a runner halts, and returns its status.
    pub async fn halted(&self, name: &'static str) -> RunnerStatus {
        eventually(&format!("{name} halts"), || async {
            self.status_of(name).await.is_some_and(|status| status.state == RunnerState::Halted)
        })
        .await;
        self.status_of(name).await.unwrap()
    }

    /// What the live generation of a tally shows, as anyone sees it in `read`.
    pub async fn tally(&self, name: &str) -> Tallied {
        tallied(&self.projector, name).await
    }

    /// Loses the journal's tail behind the triggers' back, as a failover to a standby that was behind does.
    pub async fn lose_tail(&self, keep: Position) {
        let superuser = self.superuser().await;
        sqlx::raw_sql(&format!(
            "ALTER TABLE journal.events DISABLE TRIGGER ALL; ALTER TABLE journal.batches DISABLE TRIGGER ALL;
             DELETE FROM journal.events WHERE position > {keep}; DELETE FROM journal.batches WHERE last_position > {keep};
             ALTER TABLE journal.events ENABLE ALWAYS TRIGGER guard; ALTER TABLE journal.batches ENABLE ALWAYS TRIGGER guard;"
        ))
        .execute(&superuser)
        .await
        .unwrap();
        superuser.close().await;
    }
}

pub async fn append_one(writer: Writer, n: usize) -> Position {
    let stream = StreamId::new("manual_entry", format!("test-{:016x}", rand::random::<u64>()));
    let event_type = if n.is_multiple_of(2) { "AmountNoted" } else { "RemarkMade" };
    append_event(&writer, stream, event_type, &format!("{{\"amount\": {n}}}"), Metadata::default()).await
}

pub async fn append_event(
    writer: &Writer,
    stream: StreamId,
    event_type: &str,
    payload: &str,
    metadata: Metadata,
) -> Position {
    let event =
        NewEvent { event_type: event_type.to_owned(), event_version: "1".to_owned(), payload: payload.to_owned() };
    match writer.append(Command::new(stream, 0, metadata, vec![event])).await.unwrap() {
        Outcome::Appended { last, .. } => last,
        other => panic!("not appended: {other:?}"),
    }
}

/// Waits for a condition, looking often; fails after [`DEADLINE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A task that ends with the test.
pub struct Running {
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Running {
    pub fn runner(context: RunnerContext, projection: impl Projection) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(fanledger_journal::runner::run(context, Box::new(projection), stop.clone()));
        Self { stop, task }
    }

    /// As a shutdown does.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// As kill -9 does: whatever it was doing, it does no more.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A relay in the background.
pub struct RunningRelay {
    pub running: Running,
    pub status: watch::Receiver<RelayStatus>,
}

impl RunningRelay {
    pub fn start(pool: &PgPool, options: RelayOptions) -> Self {
        let relay = Relay::new(pool.clone(), options);
        let (stop, status) = (CancellationToken::new(), relay.status());
        let task = tokio::spawn(relay.run(stop.clone()));
        Self { running: Running { stop, task }, status }
    }

    pub async fn until(&mut self, what: &str, condition: impl FnMut(&RelayStatus) -> bool) -> RelayStatus {
        match tokio::time::timeout(DEADLINE, self.status.wait_for(condition)).await {
            Ok(reached) => return reached.unwrap().clone(),
            Err(_elapsed) => {}
        }
        panic!("waited in vain until the relay {what}: {:?}", *self.status.borrow())
    }

    pub async fn reached(&mut self, position: Position) -> RelayStatus {
        self.until(&format!("reaches {position}"), |status| status.connected && status.position == position).await
    }
}

/// What a [`Tally`] has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallied {
    pub events: i64,
    pub amount: i64,
    /// Positions in order, joined.
    pub positions: String,
}

pub async fn tallied(pool: &PgPool, name: &str) -> Tallied {
    let row = sqlx::query(&format!(
        "SELECT t.events, t.amount, coalesce((SELECT string_agg(position::text, ',' ORDER BY position) FROM read.{name}_seen), '') AS positions \
         FROM read.{name} AS t"
    ))
    .fetch_one(pool)
    .await
    .unwrap();
    Tallied { events: row.get("events"), amount: row.get("amount"), positions: row.get("positions") }
}

/// Counts events of one type and sums their amounts, in a way that a second application of any event would spoil: the
/// sum is added to, and each position may be inserted only once.
pub struct Tally {
    pub name: &'static str,
    pub version: u32,
    pub create: &'static str,
    pub views: &'static [&'static str],
    /// Positions at which it fails for good, shared with the test.
    pub poison: Arc<Mutex<HashSet<Position>>>,
    /// Every position it was given, with the effects it was allowed: what a process manager would have sent.
    pub sent: Arc<Mutex<Vec<(Position, Effects)>>>,
}

#[allow(unused_macros, reason = "each test program uses its part of this")]
macro_rules! tally {
    ($name:literal) => {
        $crate::transport::Tally {
            name: $name,
            version: 1,
            create: concat!(
                "CREATE TABLE ",
                $name,
                " (events bigint NOT NULL, amount bigint NOT NULL); INSERT INTO ",
                $name,
                " VALUES (0, 0); CREATE TABLE ",
                $name,
                "_seen (position bigint PRIMARY KEY);"
            ),
            views: &[$name, concat!($name, "_seen")],
            poison: Default::default(),
            sent: Default::default(),
        }
    };
}
#[allow(unused_imports, reason = "each test program uses its part of this")]
pub(crate) use tally;

#[async_trait]
impl Projection for Tally {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn schema(&self) -> Schema {
        Schema { create: self.create, views: self.views }
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == "AmountNoted"
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut amount = 0_i64;
        for event in batch {
            assert_eq!(event.event_type, "AmountNoted", "only wanted events are given");
            if self.poison.lock().unwrap().contains(&event.position) {
                return Err(ApplyError::poison(event.position, format!("cannot digest position {}", event.position)));
            }
            let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
            amount += payload["amount"].as_i64().unwrap();
        }
        let positions: Vec<i64> = batch.iter().map(|event| event.position.as_i64()).collect();
        sqlx::query(&format!("INSERT INTO {}_seen SELECT unnest($1::bigint[])", self.name))
            .bind(&positions)
            .execute(&mut *connection)
            .await?;
        sqlx::query(&format!("UPDATE {} SET events = events + $1, amount = amount + $2", self.name))
            .bind(i64::try_from(batch.len()).unwrap())
            .bind(amount)
            .execute(connection)
            .await?;
        self.sent.lock().unwrap().extend(batch.iter().map(|event| (event.position, effects)));
        Ok(())
    }
}

/// What a tally over the whole journal must show, computed from the journal by SQL.
pub async fn expected(pool: &PgPool) -> Tallied {
    let row = sqlx::query(
        "SELECT count(*) AS events, coalesce(sum((payload ->> 'amount')::bigint), 0)::bigint AS amount, \
                coalesce(string_agg(position::text, ',' ORDER BY position), '') AS positions \
         FROM journal.events WHERE event_type = 'AmountNoted'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    Tallied { events: row.get("events"), amount: row.get("amount"), positions: row.get("positions") }
}
