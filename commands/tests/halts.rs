//! What does not pass by itself halts a manager and says what to do; what concerns one object only holds up no other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use fanledger_commands::finance::{Finance, OpenError};
use fanledger_commands::stripe::api::{Created, HttpStripeApi, Page, StripeApi, StripeApiError, TransferRequest};
use fanledger_commands::stripe::fetcher::{self, Fetcher, Idle};
use fanledger_commands::stripe::translator::{self, Translator};
use fanledger_devkit::history;
use fanledger_devkit::stripe::Failure;
use fanledger_domain::event::{Event, NotTranslatedReason};
use fanledger_domain::facts::{BalanceTransaction, TransferSnapshot};
use fanledger_domain::id::StripeId;
use fanledger_domain::time::Timestamp;
use fanledger_journal::database::connect;
use fanledger_journal::event::Position;
use fanledger_journal::runner::{CatchUpError, Effects};
use support::{Pipeline, Trial};

/// Why a manager halted.
fn halted(outcome: Result<Position, CatchUpError>) -> String {
    match outcome {
        Err(CatchUpError::Halted { halt, .. }) => halt.to_string(),
        other => panic!("not halted: {other:?}"),
    }
}

/// The trial of a history that nothing happened to.
async fn undisturbed(events: &[serde_json::Value], known: Option<&[serde_json::Value]>) -> Trial {
    let mut pipeline = Pipeline::start(known).await;
    for event in events {
        pipeline.receive(event).await.unwrap();
    }
    pipeline.settle().await;
    pipeline.trial().await
}

/// The vault was restored to an earlier time: its keys are not destroyed, they are lost, and may be found again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_vault_lost_halts_the_translator_until_it_is_back() {
    let history = history::random(31, 6);
    let expected = undisturbed(&history.events, None).await;
    let mut pipeline = Pipeline::start(None).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    let superuser = connect(pipeline.database.url(), 1).await.unwrap();
    let lost: StripeId = history.events.last().unwrap()["id"].as_str().unwrap().parse().unwrap();
    sqlx::raw_sql("CREATE TABLE lost AS SELECT * FROM vault.keys; DELETE FROM vault.keys")
        .execute(&superuser)
        .await
        .unwrap();
    sqlx::query("INSERT INTO vault.keys SELECT * FROM lost WHERE stream_id <> $1")
        .bind(lost.as_str())
        .execute(&superuser)
        .await
        .unwrap();

    let mut translator = Translator::new(pipeline.executor.clone(), pipeline.vault.clone(), false);
    let why = halted(pipeline.catch_up(&mut translator).await);
    assert!(why.contains(lost.as_str()) && why.contains("estore the vault"), "{why}");
    assert!(why.contains("fanledger projections resume stripe_translator"), "{why}");
    let erased = |(_, event): &(_, Event)| matches!(event, Event::StripeEventNotTranslated(not) if not.reason == NotTranslatedReason::Erased);
    assert!(!pipeline.events().await.iter().any(erased), "nobody erased it");

    // Nor is a person told that it was.
    let finance = Finance::new(pipeline.executor.clone(), pipeline.reader.clone(), pipeline.vault.clone());
    let before = pipeline.events().await.len();
    let refused = finance.open("ada".parse().unwrap(), &lost, "a test".to_owned()).await.unwrap_err();
    assert!(matches!(refused, OpenError::KeyMissing(_)), "{refused}");
    assert!(refused.to_string().contains("restore it from its newest backup"), "{refused}");
    assert_eq!(pipeline.events().await.len(), before, "what was not shown was not opened");

    sqlx::query("INSERT INTO vault.keys SELECT * FROM lost WHERE stream_id = $1")
        .bind(lost.as_str())
        .execute(&superuser)
        .await
        .unwrap();
    pipeline.resume(translator::NAME).await;
    pipeline.settle().await;
    assert_eq!(pipeline.trial().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stripe_refuses_halts_the_fetcher_until_it_is_set() {
    let history = history::random(41, 6);
    let expected = undisturbed(&history.events, Some(&history.balance_transactions)).await;
    let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    let mut translator = Translator::new(pipeline.executor.clone(), pipeline.vault.clone(), false);
    pipeline.catch_up(&mut translator).await.unwrap();
    let base = pipeline.stand_in.as_ref().unwrap().base_url();
    let wrong: Arc<dyn StripeApi> = Arc::new(HttpStripeApi::new(&base, "sk_wrong".to_owned()).unwrap());
    let why = halted(pipeline.catch_up(&mut Fetcher::new(pipeline.executor.clone(), Some(wrong))).await);
    assert!(why.contains("401") && why.contains("FANLEDGER_STRIPE_API_KEY"), "{why}");
    assert!(why.contains("fanledger projections resume balance_transaction_fetcher"), "{why}");

    pipeline.resume(fetcher::NAME).await;
    pipeline.settle().await;
    assert_eq!(pipeline.trial().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_transaction_that_stripe_refuses_stays_awaited_and_holds_up_no_other() {
    let history = history::random(41, 6);
    let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
    let fetched = async |pipeline: &mut Pipeline| -> Vec<StripeId> {
        pipeline.settle().await;
        let seen = pipeline.events().await.into_iter().filter_map(|(_, event)| match event {
            Event::BalanceTransactionObserved(seen) => Some(seen.transaction.id),
            _ => None,
        });
        seen.collect()
    };
    // Which ones are asked for one by one, a run without failures tells.
    let mut plain = Pipeline::start(Some(&history.balance_transactions)).await;
    for event in &history.events {
        plain.receive(event).await.unwrap();
    }
    plain.settle().await;
    let asked: Vec<String> = plain.stand_in.as_ref().unwrap().calls().into_iter().map(|call| call.target).collect();
    let refused: StripeId = asked[0].rsplit('/').next().unwrap().parse().unwrap();
    assert!(asked.len() > 3, "{asked:?}");

    let stand_in = pipeline.stand_in.as_ref().unwrap();
    stand_in.fail_next_for(refused.as_str(), 100, Failure::Status(400));
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    let seen = fetched(&mut pipeline).await;
    assert!(!seen.contains(&refused), "{refused}");
    for target in &asked {
        let id: StripeId = target.rsplit('/').next().unwrap().parse().unwrap();
        assert!(id == refused || seen.contains(&id), "{id} waits behind {refused}");
    }
}

/// Counts what was asked since the last sign of life of the transaction that waits for it.
#[derive(Default)]
struct Asked {
    since: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

#[async_trait]
impl StripeApi for Asked {
    async fn balance_transaction(&self, _: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError> {
        self.all.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.since.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Ok(None)
    }

    async fn balance_transactions(&self, _: Option<Timestamp>, _: Option<&str>) -> Result<Page, StripeApiError> {
        unimplemented!("nobody lists here")
    }

    async fn create_transfer(&self, _: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        unimplemented!("nobody is paid here")
    }

    async fn transfers_of_group(&self, _: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        unimplemented!("nobody is paid here")
    }
}

struct Transaction(Arc<Asked>);

impl Idle for Transaction {
    async fn keep_awake(&mut self) -> Result<(), sqlx::Error> {
        self.0.since.store(0, Ordering::SeqCst);
        Ok(())
    }
}

/// Postgres takes a transaction back that idles for 30 s, and a batch has up to 2000 events: so there is a sign of life between
/// those requests that are made at once, which last as long as one.
#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_of_a_large_batch_is_kept_awake_while_stripe_is_asked() {
    let history = history::random(51, 80);
    let pipeline = Pipeline::start(None).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    let mut translator = Translator::new(pipeline.executor.clone(), pipeline.vault.clone(), false);
    pipeline.catch_up(&mut translator).await.unwrap();
    let asked = Arc::new(Asked::default());
    let api: Arc<dyn StripeApi> = Arc::clone(&asked) as _;
    let batch: Vec<_> = pipeline
        .events()
        .await
        .into_iter()
        .map(|(recorded, _)| recorded)
        .filter(|recorded| fetcher::wants(&recorded.event_type))
        .map(Arc::new)
        .collect();
    let fetcher = Fetcher::new(pipeline.executor.clone(), Some(api));
    fetcher.step(&batch, Effects::Live, &mut Transaction(Arc::clone(&asked))).await.unwrap();
    let (all, most) = (asked.all.load(Ordering::SeqCst), asked.most.load(Ordering::SeqCst));
    assert!(all > 2 * fetcher::CONCURRENCY, "a small batch: {all}");
    assert!(most <= fetcher::CONCURRENCY, "{most} of {all} with no sign of life between");
}
