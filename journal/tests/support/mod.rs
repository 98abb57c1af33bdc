//! What the tests of the journal share: a migrated database with a writer and a reader over it.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod ledger;

use fanledger_devkit::TestDatabase;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::{Role, connect, role_url};
use fanledger_journal::event::{Metadata, NewEvent, Position, StreamId};
use fanledger_journal::reader::Reader;
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::PgPool;

/// A database of the test's own. `admin` is the superuser; writer and reader log in as the command role.
pub struct Journal {
    pub admin: PgPool,
    pub writer: Writer,
    pub reader: Reader,
    pub database: TestDatabase,
}

impl Journal {
    pub async fn start() -> Self {
        let database = TestDatabase::create().await;
        let url = role_url(database.url(), Role::Command).unwrap();
        let admin = connect(database.url(), 2).await.unwrap();
        let reader = Reader::new(connect(&url, 4).await.unwrap());
        let writer = Writer::start(WriterOptions::new(url)).await.unwrap();
        Self { admin, writer, reader, database }
    }

    pub async fn pool(&self, role: Role) -> PgPool {
        connect(&role_url(self.database.url(), role).unwrap(), 1).await.unwrap()
    }

    pub async fn writer(&self) -> Writer {
        Writer::start(WriterOptions::new(role_url(self.database.url(), Role::Command).unwrap())).await.unwrap()
    }

    /// Appends `count` streams of one event each, one call each.
    pub async fn fill(&self, count: usize) {
        for n in 0..count {
            appended(self.writer.append(command(&format!("evt_{n}"), 0, 1)).await.unwrap());
        }
    }

    /// Changes what nobody may change: as the superuser, with the guards taken off and put back.
    pub async fn tamper(&self, statements: &str) {
        let sql = format!(
            "ALTER TABLE journal.events DISABLE TRIGGER ALL; ALTER TABLE journal.batches DISABLE TRIGGER ALL; {statements}; \
             ALTER TABLE journal.events ENABLE ALWAYS TRIGGER guard; ALTER TABLE journal.batches ENABLE ALWAYS TRIGGER guard"
        );
        sqlx::raw_sql(&sql).execute(&self.admin).await.unwrap();
    }
}

pub fn event(payload: impl Into<String>) -> NewEvent {
    NewEvent { event_type: "StripeEventReceived".into(), event_version: "1".into(), payload: payload.into() }
}

pub fn stream(id: &str) -> StreamId {
    StreamId::new("stripe_event", id)
}

/// A command for stream `stripe_event/<id>` with so many events.
pub fn command(id: &str, expected: u64, events: usize) -> Command {
    let metadata = Metadata { actor: Some("system:test".into()), ..Metadata::default() };
    let events = (0..events).map(|n| event(format!(r#"{{"id": "{id}",  "n":{n}}}"#))).collect();
    Command::new(stream(id), expected, metadata, events)
}

pub fn appended(outcome: Outcome) -> (u64, u64) {
    match outcome {
        Outcome::Appended { first, last } => (first.get(), last.get()),
        other => panic!("not appended: {other:?}"),
    }
}

pub fn at(first: u64, last: u64) -> Outcome {
    Outcome::Appended { first: Position::new(first), last: Position::new(last) }
}

/// The SQLSTATE of a refusal.
pub fn code<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Err(sqlx::Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        other => panic!("not refused by the database: {other:?}"),
    }
}
