//! The real router over a real database; only the way into the journal is played by a stand-in.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use fanledger_commands::executor::Executor;
use fanledger_commands::finance::Finance;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_devkit::TestDatabase;
use fanledger_gateway::problem::Kind;
use fanledger_gateway::{
    Desks, FinanceOffice, Finding, GatewayConfig, GatewayState, IntakeRefusal, JwtKey, Operators, Parts, Payouts,
    Probe, RateLimit, Receipt, Role, Skip, SkipReceipt, SkipRefusal, WebhookIntake, mint, openapi, router,
};
use fanledger_journal::database::{self, MIGRATIONS};
use fanledger_journal::reader::Reader;
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub const KEY: [u8; 32] = [42; 32];
pub const PROJECTIONS: &[&str] = &[
    "attributions",
    "awaited",
    "balance_transactions",
    "balances",
    "creator_activity",
    "entries",
    "manual_entries",
    "payouts",
    "periods",
    "postings",
    "stripe_inbox",
    "suspense",
];

/// What the stand-in for the intake does with the next webhooks.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    Accept,
    Conflict,
    RefuseSignature,
    NoEventId,
    Unavailable,
    Panic,
    Hang,
    /// Answers once it is told to.
    WaitForPermission,
}

pub struct FakeIntake {
    pub behaviour: Mutex<Behaviour>,
    pub seen: Mutex<Vec<(Option<Vec<u8>>, usize)>>,
    pub entered: Notify,
    pub permission: Notify,
}

#[async_trait]
impl WebhookIntake for FakeIntake {
    async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal> {
        self.seen.lock().unwrap().push((signature.map(<[u8]>::to_vec), body.len()));
        self.entered.notify_one();
        let behaviour = *self.behaviour.lock().unwrap();
        let accepted = Receipt { position: 17, duplicate: false, conflict: false };
        match behaviour {
            Behaviour::Accept => Ok(accepted),
            Behaviour::Conflict => Ok(Receipt { duplicate: true, conflict: true, ..accepted }),
            Behaviour::RefuseSignature => {
                Err(IntakeRefusal::Signature { reason: "the signature is too old".to_owned() })
            }
            Behaviour::NoEventId => Err(IntakeRefusal::NoEventId),
            Behaviour::Unavailable => Err(IntakeRefusal::Unavailable("postgres://secret@host is away".into())),
            Behaviour::Panic => panic!("as the test wants it"),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::WaitForPermission => {
                self.permission.notified().await;
                Ok(accepted)
            }
        }
    }
}

/// Answers skips as a runner at position 5 of a journal of 100 events would; what it was told is in `seen`.
#[derive(Default)]
pub struct FakeOperators {
    pub seen: Mutex<Vec<(String, u64, String, String)>>,
}

/// The position whose skip does not reach the journal.
pub const UNREACHABLE: u64 = 99;

#[async_trait]
impl Operators for FakeOperators {
    async fn skip(&self, skip: Skip<'_>) -> Result<SkipReceipt, SkipRefusal> {
        let seen = (skip.runner.to_owned(), skip.position, skip.reason.to_owned(), skip.by.to_owned());
        let known =
            self.seen.lock().unwrap().iter().any(|(runner, position, _, _)| (runner, *position) == (&seen.0, seen.1));
        self.seen.lock().unwrap().push(seen);
        match skip.position {
            _ if !PROJECTIONS.contains(&skip.runner) => Err(SkipRefusal::UnknownRunner),
            0..=5 => Err(SkipRefusal::Applied),
            UNREACHABLE => Err(SkipRefusal::Unavailable("postgres://secret@host is away".into())),
            6..=100 => Ok(SkipReceipt { version: 3, known, halted: true, head: 101 }),
            101.. => Err(SkipRefusal::Beyond { head: 100 }),
        }
    }
}

pub struct FakeProbe;

#[async_trait]
impl Probe for FakeProbe {
    fn name(&self) -> &'static str {
        "nats"
    }
    async fn look(&self) -> Finding {
        Finding { ready: true, detail: "Falling back to Postgres.".to_owned() }
    }
}

type Configure = Box<dyn FnOnce(&mut GatewayConfig)>;

#[derive(Default)]
pub struct TestAppBuilder {
    configure: Vec<Configure>,
    runners: bool,
    schema_version: Option<i64>,
}

impl TestAppBuilder {
    /// With other settings than the defaults.
    pub fn config(mut self, configure: impl FnOnce(&mut GatewayConfig) + 'static) -> Self {
        self.configure.push(Box::new(configure));
        self
    }

    /// With a row for each projection, at position 0, moved by hand.
    pub fn with_runners(mut self) -> Self {
        self.runners = true;
        self
    }

    /// As if this build needed another schema.
    pub fn schema_version(mut self, version: i64) -> Self {
        self.schema_version = Some(version);
        self
    }

    pub async fn build(self) -> TestApp {
        let database = TestDatabase::create().await;
        let superuser = PgPool::connect(database.url()).await.unwrap();
        let query_pool = database::connect(&database.url_for("fanledger_gateway"), 4).await.unwrap();
        let command_pool = database::connect(&database.url_for("fanledger_command"), 4).await.unwrap();
        let intake = Arc::new(FakeIntake {
            behaviour: Mutex::new(Behaviour::Accept),
            seen: Mutex::default(),
            entered: Notify::new(),
            permission: Notify::new(),
        });
        let operators = Arc::new(FakeOperators::default());
        let desks = desks(&database, &command_pool, &query_pool).await;
        let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into(), JwtKey::new(&KEY).unwrap());
        // Tests come faster than any client may.
        config.rate_limit = RateLimit { per_second: 100_000, burst: 100_000 };
        self.configure.into_iter().for_each(|configure| configure(&mut config));
        let migrated = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap();
        let parts = Parts {
            config,
            query_pool: query_pool.clone(),
            command_pool: command_pool.clone(),
            intake: intake.clone(),
            operators: operators.clone(),
            desks: desks.clone(),
            schema_version: self.schema_version.unwrap_or(migrated),
            probes: vec![Arc::new(FakeProbe)],
        };
        let state = GatewayState::new(parts).await.unwrap();
        let stop = CancellationToken::new();
        state.start(&stop);
        let router = router(&state);
        let app =
            TestApp { router, state, superuser, query_pool, command_pool, database, intake, operators, desks, stop };
        if self.runners {
            for name in PROJECTIONS {
                app.add_runner(name).await;
            }
        }
        app
    }
}

pub const VAULT_KEY: [u8; 32] = [43; 32];

/// The real ones: whatever is acted goes into the journal.
async fn desks(database: &TestDatabase, pool: &PgPool, queries: &PgPool) -> Desks {
    let writer = Writer::start(WriterOptions::new(database.url_for("fanledger_command"))).await.unwrap();
    let executor = Executor::new(pool.clone(), writer);
    let vault = Vault::new(VaultKey::new(VAULT_KEY), pool.clone());
    let payouts = Arc::new(Payouts::new(executor.clone(), queries.clone()));
    let periods = Arc::new(executor.clone());
    let finance = Finance::new(executor, Reader::new(pool.clone()), vault);
    Desks { payouts, periods, finance: Arc::new(FinanceOffice::new(finance, queries.clone())) }
}

pub struct TestApp {
    pub router: Router,
    pub state: GatewayState,
    pub superuser: PgPool,
    pub query_pool: PgPool,
    pub command_pool: PgPool,
    pub database: TestDatabase,
    pub intake: Arc<FakeIntake>,
    pub operators: Arc<FakeOperators>,
    pub desks: Desks,
    pub stop: CancellationToken,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestApp {
    pub fn with() -> TestAppBuilder {
        TestAppBuilder::default()
    }

    pub async fn new() -> TestApp {
        Self::with().build().await
    }

    pub async fn add_runner(&self, name: &str) {
        sqlx::query(
            "INSERT INTO control.runners (name, generation, version, live, views, journal_id, position, chain)
             VALUES ($1, 1, 1, true, '{}', (SELECT journal_id FROM journal.identity), 0, decode(repeat('00', 32), 'hex'))",
        )
        .bind(name)
        .execute(&self.superuser)
        .await
        .unwrap();
    }

    /// Puts runners at a position, as if they had applied events up to it.
    pub async fn move_runners(&self, names: &[&str], position: i64) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        sqlx::query("UPDATE control.runners SET position = $2 WHERE name = ANY ($1)")
            .bind(names)
            .bind(position)
            .execute(&self.superuser)
            .await
            .unwrap();
    }

    /// How many of the gateway's statements wait for a lock.
    pub async fn waiting_on_locks(&self) -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND usename LIKE 'fanledger%' AND wait_event_type = 'Lock'";
        sqlx::query_scalar(query).fetch_one(&self.superuser).await.unwrap()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.intake.behaviour.lock().unwrap() = behaviour;
    }

    pub fn get(&self, path: &str) -> Call {
        Call::new(self, Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call {
        Call::new(self, Method::POST, path)
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self, method, path)
    }
}

/// Waits for a condition, with a deadline.
pub async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let poll = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll).await.unwrap();
}

pub fn token(roles: &[Role]) -> String {
    token_of("tester", roles)
}

pub fn token_of(subject: &str, roles: &[Role]) -> String {
    mint(&JwtKey::new(&KEY).unwrap(), roles, subject, Duration::from_secs(60)).unwrap()
}

/// One request.
pub struct Call {
    router: Router,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call {
    fn new(app: &TestApp, method: Method, path: &str) -> Self {
        let peer: SocketAddr = ([192, 0, 2, 1], 40_000).into();
        let request = Request::builder().method(method).uri(path).extension(ConnectInfo(peer));
        Self { router: app.router.clone(), request, body: Body::empty() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn role(self, role: Role) -> Self {
        self.token(&token(&[role]))
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// The answer with its whole body. A problem must be one that the document names for the operation.
    pub async fn send(self) -> Answer {
        let method = self.request.method_ref().unwrap().as_str().to_ascii_lowercase();
        let path = self.request.uri_ref().unwrap().path().to_owned();
        let response = self.open().await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        if let (Some(operation), Some(slug)) = (operation(&method, &path), answer.slug()) {
            let named = problems(operation, answer.status.as_str());
            assert!(named.contains(&slug), "{method} {path} answers {slug}, and the document has only {named:?}");
        }
        answer
    }

    /// The answer with its body still to come.
    pub async fn open(self) -> axum::response::Response {
        let request = self.request.body(self.body).unwrap();
        self.router.oneshot(request).await.unwrap()
    }
}

/// The OpenAPI document.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(openapi()).unwrap());

/// The operation that answers at a path under `/api/v1`.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let is_at = |template: &str| {
        let (of, at): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let is_part = |(of, at): (&&str, &&str)| of == at || of.starts_with('{') && !at.is_empty();
        of.len() == at.len() && of.iter().zip(&at).all(is_part)
    };
    let mut known = DOCUMENT["paths"].as_object().unwrap().iter().filter(|_| path.starts_with("/api/v1/"));
    known.find(|(template, _)| is_at(template)).and_then(|(_, item)| item.get(method))
}

/// The kinds of problem that an operation is documented to answer with a status.
pub fn problems(operation: &'static Value, status: &str) -> Vec<&'static str> {
    let description = operation["responses"][status]["description"].as_str().unwrap_or_default();
    description.split('`').skip(1).step_by(2).collect()
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Which kind of problem this is, where it is one.
    fn slug(&self) -> Option<&'static str> {
        if self.header("content-type") != Some("application/problem+json") {
            return None;
        }
        let document = self.json();
        Kind::ALL.iter().find(|kind| document["type"] == *kind.uri()).map(|kind| kind.slug())
    }

    /// Asserts that this is a well-formed problem document of this kind, and answers it.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(
            (self.status.as_u16(), document["type"].as_str()),
            (status, Some(&*format!("urn:fanledger:problem:{slug}"))),
            "{document}"
        );
        assert_eq!(document["status"], status);
        assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()), "{document}");
        assert_eq!(document["request_id"].as_str(), self.header("x-request-id"), "{document}");
        document
    }

    /// The messages of a problem's field.
    pub fn errors(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_field: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for error in self.json()["errors"].as_array().into_iter().flatten() {
            let field = error["field"].as_str().unwrap().to_owned();
            by_field.entry(field).or_default().push(error["message"].as_str().unwrap().to_owned());
        }
        by_field
    }
}
