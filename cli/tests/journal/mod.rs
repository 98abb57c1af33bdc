//! A journal that a test appends to as it likes, and the settings with which the program finds it.

#![allow(dead_code, reason = "each test program uses its part of this")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use fanledger_devkit::TestDatabase;
use fanledger_domain::event::Event;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::{self, Role};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::runner::{RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};

use crate::e2e::Directory;

pub struct Journal {
    database: TestDatabase,
    writer: Writer,
    context: RunnerContext,
    sequences: HashMap<StreamId, u64>,
    directory: Directory,
}

impl Journal {
    pub async fn create() -> Self {
        let database = TestDatabase::create().await;
        let writer_url = database::role_url(database.url(), Role::Command).unwrap();
        let projector_url = database::role_url(database.url(), Role::Projector).unwrap();
        let pool = database::connect(&projector_url, 2).await.unwrap();
        Self {
            writer: Writer::start(WriterOptions::new(writer_url)).await.unwrap(),
            context: RunnerContext::without_feed(pool),
            database,
            sequences: HashMap::new(),
            directory: Directory::new("journal"),
        }
    }

    /// A folder of the test's own, where the program is run.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// As the superuser.
    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        let data_dir = self.directory.path().join("data").to_str().unwrap().to_owned();
        BTreeMap::from([("DATABASE_URL", self.database.url().to_owned()), ("DATA_DIR", data_dir)])
    }

    /// Appends one command, because of a webhook where one is named.
    pub async fn append(&mut self, kind: &str, id: &str, because: Option<&str>, events: Vec<Event>) {
        let stream = StreamId::new(kind, id);
        let last = self.sequences.entry(stream.clone()).or_default();
        let metadata = Metadata { causation_id: because.map(str::to_owned), ..Metadata::default() };
        let new: Vec<NewEvent> = events
            .iter()
            .map(|event| NewEvent {
                event_type: event.type_name().to_owned(),
                event_version: event.version().to_owned(),
                payload: event.to_payload().unwrap(),
            })
            .collect();
        let appended = new.len() as u64;
        let outcome = self.writer.append(Command::new(stream, *last, metadata, new)).await.unwrap();
        assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
        *last += appended;
    }

    /// Brings every projection to the head.
    pub async fn catch_up(&self) {
        for mut projection in fanledger_projections::all() {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }
}
