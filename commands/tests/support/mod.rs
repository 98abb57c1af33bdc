//! The way from a signed webhook to balances, without HTTP: intake, translator and fetcher over a database of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a test fails by panicking; each test file uses a part"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fanledger_commands::executor::Executor;
use fanledger_commands::stripe::api::{HttpStripeApi, StripeApi};
use fanledger_commands::stripe::intake::{Intake, IntakeError, Receipt};
use fanledger_commands::stripe::signature::Secret;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_commands::{Dependencies, managers};
use fanledger_devkit::TestDatabase;
use fanledger_devkit::stripe::{StandIn, sign};
use fanledger_domain::event::Event;
use fanledger_domain::tie_out::TieOut;
use fanledger_journal::database::connect;
use fanledger_journal::event::Position;
use fanledger_journal::reader::Reader;
use fanledger_journal::runner::{CatchUpError, Projection, RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};

pub const SECRET: &str = "whsec_test";
pub const KEY: &str = "sk_test_standin";

/// Balances by account and currency, zeros left out.
pub type Trial = BTreeMap<(String, String), i128>;

pub struct Pipeline {
    pub database: TestDatabase,
    pub reader: Reader,
    pub executor: Executor,
    pub vault: Vault,
    pub intake: Intake,
    pub stand_in: Option<StandIn>,
    pub api: Option<Arc<dyn StripeApi>>,
    context: RunnerContext,
    managers: Vec<Box<dyn Projection>>,
}

impl Pipeline {
    /// With a stand-in for Stripe's API that knows these balance transactions; without one, nothing is fetched.
    pub async fn start(balance_transactions: Option<&[serde_json::Value]>) -> Self {
        let database = TestDatabase::create().await;
        let command_url = database.url_for("fanledger_command");
        let pool = connect(&command_url, 16).await.unwrap();
        let writer = Writer::start(WriterOptions::new(command_url)).await.unwrap();
        let executor = Executor::new(pool.clone(), writer);
        let vault = Vault::new(VaultKey::new([3; 32]), pool.clone());
        let intake = Intake::new(executor.clone(), vault.clone(), vec![Secret::new(SECRET).unwrap()]);
        let (stand_in, api) = match balance_transactions {
            None => (None, None),
            Some(transactions) => {
                let stand_in = StandIn::start(KEY).await.unwrap();
                stand_in.put_all(transactions.iter().cloned());
                let api: Arc<dyn StripeApi> =
                    Arc::new(HttpStripeApi::new(&stand_in.base_url(), KEY.to_owned()).unwrap());
                (Some(stand_in), Some(api))
            }
        };
        let projector = connect(&database.url_for("fanledger_projector"), 8).await.unwrap();
        let managers = managers(&Dependencies {
            executor: executor.clone(),
            vault: vault.clone(),
            stripe: api.clone(),
            livemode: false,
        });
        Self {
            reader: Reader::new(pool),
            context: RunnerContext::without_feed(projector),
            database,
            executor,
            vault,
            intake,
            stand_in,
            api,
            managers,
        }
    }

    /// Signs and receives one event.
    pub async fn receive(&self, event: &serde_json::Value) -> Result<Receipt, IntakeError> {
        self.receive_bytes(&serde_json::to_vec(event).unwrap()).await
    }

    /// Signs and receives a body.
    pub async fn receive_bytes(&self, body: &[u8]) -> Result<Receipt, IntakeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let header = sign(SECRET, now, body);
        self.intake.receive(Some(header.as_bytes()), body).await
    }

    /// Runs the managers until nothing more comes of it.
    pub async fn settle(&mut self) -> Position {
        loop {
            let before = self.reader.head().await.unwrap().position;
            for manager in &mut self.managers {
                catch_up(&self.context, manager.as_mut()).await.unwrap();
            }
            let after = self.reader.head().await.unwrap().position;
            if before == after {
                return after;
            }
        }
    }

    /// Runs one manager of the test's own up to the head.
    pub async fn catch_up(&self, manager: &mut dyn Projection) -> Result<Position, CatchUpError> {
        catch_up(&self.context, manager).await
    }

    /// As an operator resumes a runner that has halted.
    pub async fn resume(&self, name: &str) {
        let operator = connect(&self.database.url_for("fanledger_operator"), 1).await.unwrap();
        assert!(fanledger_journal::runner::resume(&operator, name).await.unwrap());
    }

    /// Every event of the journal.
    pub async fn events(&self) -> Vec<(fanledger_journal::event::RecordedEvent, Event)> {
        let mut all = Vec::new();
        let mut position = Position::START;
        loop {
            let page = self.reader.after(position, 1000, 8 << 20).await.unwrap();
            let Some(last) = page.last() else { return all };
            position = last.position;
            for recorded in page {
                let event = Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload).unwrap();
                all.push((recorded, event));
            }
        }
    }

    /// The trial balance by plain addition, after checking that the books tie out.
    pub async fn trial(&self) -> Trial {
        let mut tie_out = TieOut::default();
        let mut trial = Trial::new();
        for (recorded, event) in self.events().await {
            tie_out.event(&recorded.stream.to_string(), &event, recorded.position.get()).unwrap();
            if let Event::EntryPosted(entry) = event {
                for posting in entry.postings {
                    let key = (posting.account.to_string(), posting.money.currency().to_string());
                    *trial.entry(key).or_default() += i128::from(posting.signed_minor());
                }
            }
        }
        tie_out.end().unwrap();
        trial.retain(|_, minor| *minor != 0);
        trial
    }
}
