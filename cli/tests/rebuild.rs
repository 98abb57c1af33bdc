//! Rebuilds of the running system: under load, killed at random moments, asked for wrongly, and with a column more.
//!
//! Short here; `FANLEDGER_FULL_COUNTS=1` kills ten times. `FANLEDGER_SEED` repeats a run's choices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use e2e::load::Load;
use e2e::{Finished, Process, Site, eventually, finish, gateway_url};
use fanledger_devkit::history;
use fanledger_journal::database::Role;
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::generation::{self, RebuildOptions};
use fanledger_journal::runner::{
    self, ApplyError, Effects, Projection, Projections, RunnerContext, RunnerState, RunnerStatus, Schema,
};
use fanledger_projections::postings::Postings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

fn of_length(short: usize, full: usize) -> usize {
    if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { full } else { short }
}

fn seed() -> u64 {
    let seed = std::env::var("FANLEDGER_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("seed {seed}");
    seed
}

/// The JSON lines of an answer, progress apart.
fn answers(finished: &Finished) -> Vec<Value> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line.get("outcome").is_some()).collect()
}

async fn statuses(pool: &PgPool) -> BTreeMap<String, RunnerStatus> {
    let statuses = runner::status(pool).await.unwrap();
    statuses.into_iter().map(|status| (status.name.clone(), status)).collect()
}

/// What clients read, each from other projections.
const READS: &[&str] = &[
    "ledger/trial-balance",
    "ledger/accounts",
    "ledger/accounts/assets:stripe:unconfirmed/postings?currency=usd",
    "ledger/suspense",
    "ledger/awaited",
    "ledger/stripe-events",
    "ops/projections",
];

/// Reads over and over: no read may fail, and none may show an earlier position than one before it.
struct Readers {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Readers {
    fn start(url: &str, token: &str) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (url, token) = (url.to_owned(), token.to_owned());
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&reads));
        let task = tokio::spawn(async move {
            let http = reqwest::Client::new();
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            while !stopping.load(Ordering::Relaxed) {
                for &path in READS {
                    let answer = http.get(format!("{url}/api/v1/{path}")).bearer_auth(&token).send().await.unwrap();
                    let (status, headers) = (answer.status(), answer.headers().clone());
                    let body = answer.text().await.unwrap();
                    assert_eq!(status, 200, "{path}: {body}");
                    let position = headers["journal-position"].to_str().unwrap().parse().unwrap();
                    let before = last.insert(path, position).unwrap_or_default();
                    assert!(position >= before, "{path}: position {position} was read after {before}");
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Not a wait: readers in haste would take the machine from what they watch.
                    tokio::time::sleep(Duration::from_millis(8)).await;
                }
            }
        });
        Self { stop, reads, task }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.reads.load(Ordering::Relaxed)
    }
}

/// Webhooks, a few at a time, for as long as it is wanted or there are any.
struct Writers {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Writers {
    fn start(events: Vec<Value>, url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, gateways) = (Arc::clone(&stop), Arc::new(Mutex::new(vec![url.to_owned()])));
        let task = tokio::spawn(async move {
            let mut position = 0;
            for few in events.chunks(4) {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let acknowledged = Load::start(few, Arc::clone(&gateways)).finish().await;
                position = position.max(acknowledged.positions.values().max().copied().unwrap());
                // Not a wait: the load's pace, so that there are webhooks for as long as the rebuild takes.
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            position
        });
        Self { stop, task }
    }

    /// The last position that was acknowledged.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// `postings` as a next version of this program might have it: with a column more.
struct WithChannel(Postings);

#[async_trait]
impl Projection for WithChannel {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version() + 1
    }

    fn schema(&self) -> Schema {
        let create =
            format!("{} ALTER TABLE postings ADD COLUMN channel text NOT NULL DEFAULT 'web';", self.0.schema().create);
        // A test's few bytes; a projection's SQL is a constant.
        Schema { create: create.leak(), ..self.0.schema() }
    }

    fn indexes(&self) -> &'static str {
        self.0.indexes()
    }

    fn wants(&self, event_type: &str) -> bool {
        self.0.wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        self.0.apply(batch, effects, connection).await
    }
}

async fn token(site: &Site) -> String {
    let minted = finish(site.command(["token", "mint", "--role", "finance", "--role", "operator"])).await;
    assert_eq!(minted.code, 0, "{}", minted.stderr);
    minted.stdout.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_everything_is_rebuilt_and_a_column_comes_and_goes_and_nobody_notices() {
    let history::History { events, balance_transactions } = history::random(seed(), 3000);
    let site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let mut all = site.role("all");
    let url = gateway_url(&mut all).await;
    let token = token(&site).await;
    let (first, rest) = events.split_at(200);
    let acknowledged = Load::start(first, Arc::new(Mutex::new(vec![url.clone()]))).finish().await;
    site.read(acknowledged.positions.values().max().copied().unwrap()).await;

    let (readers, writers) = (Readers::start(&url, &token), Writers::start(rest.to_vec(), &url));
    let began = Instant::now();
    let rebuilt = site.run("projections rebuild --all --read-age 1").await;
    let took = began.elapsed();
    assert_eq!(rebuilt.code, 0, "{}{}", rebuilt.stdout, rebuilt.stderr);
    let proved = answers(&rebuilt);
    let operators = site.pool(Role::Operator).await;
    let runners = statuses(&operators).await;
    assert_eq!(proved.len(), runners.len(), "every projection and process manager");
    let mut rows = 0;
    for answer in &proved {
        assert_eq!(answer["outcome"], "switched", "{answer}");
        for table in answer["proof"]["tables"].as_array().unwrap() {
            assert_eq!((&table["changed"], &table["only_live"], &table["only_new"]), (&json!(0), &json!(0), &json!(0)));
            rows += table["equal"].as_u64().unwrap();
        }
    }
    assert!(rebuilt.stdout.lines().any(|line| line.contains("\"phase\":\"waiting\"")), "it told how far it was");
    assert!(runners.values().all(|runner| runner.generation == 2), "{runners:?}");

    // The next version's process beside this one's; then its column, and back.
    let context = RunnerContext::without_feed(site.pool(Role::Projector).await).with_read_age(Duration::from_secs(1));
    let stop = CancellationToken::new();
    let make: Projections = Arc::new(|| vec![Box::new(WithChannel(Postings)) as Box<dyn Projection>]);
    let beside = [
        tokio::spawn(runner::run(context.clone(), Box::new(WithChannel(Postings)), stop.clone())),
        tokio::spawn(runner::supervise(context.clone(), make, stop.clone())),
    ];
    let options = RebuildOptions { confirmed: true, read_age: Duration::from_secs(1), ..RebuildOptions::default() };
    let changed = generation::rebuild(&context, &mut WithChannel(Postings), &options).await.unwrap();
    let proof = changed.proof.unwrap();
    assert_eq!((proof.tables[0].columns_added.as_slice(), proof.differing_rows()), (&["channel".to_owned()][..], 0));
    let channels = async || {
        let asked = "SELECT count(*) FROM read.postings WHERE channel = 'web'";
        sqlx::query_scalar::<_, i64>(asked).persistent(false).fetch_one(&operators).await
    };
    assert!(channels().await.unwrap() > 0);
    let fed = async |what: &str| {
        let at = i64::try_from(site.head().await).unwrap();
        eventually(what, async || {
            let postings = statuses(&operators).await.remove("postings").unwrap();
            postings.generations.iter().filter(|other| other.position.as_i64() >= at).count() == 2
        })
        .await;
    };
    fed("both versions are fed, the new one live").await;
    let back = site.run("projections rollback postings").await.json(0);
    assert_eq!((&back["version"], &back["generation"]), (&json!(Postings.version()), &json!(2)));
    assert!(channels().await.is_err(), "the column is gone again");
    fed("both versions are fed, the old one live").await;

    let position = writers.stop().await;
    let reads = readers.stop().await;
    site.read(position).await;
    let retired = site.run("projections retire postings").await.json(0);
    assert_eq!(retired["retired"], json!([3]));
    stop.cancel();
    for task in beside {
        task.await.unwrap();
    }
    // What is live after all this is what a build from nothing makes.
    let verified = site.run("projections verify --all").await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(answers(&verified).iter().all(|answer| answer["outcome"] == "verified"));
    println!(
        "{} runners rebuilt in {took:?} and proved equal over {rows} rows; {reads} reads, none failed, none went back; {} events",
        proved.len(),
        site.head().await
    );
    assert!(reads > 300, "{reads} reads");
    assert!(all.terminate().await.success());
}

/// Every row of what `read` shows of a projection.
async fn shown(pool: &PgPool, views: &[&str]) -> Vec<String> {
    let mut rows = Vec::new();
    for view in views {
        let asked = format!("SELECT '{view}' || t::text FROM read.{view} AS t ORDER BY 1");
        rows.extend(sqlx::query_scalar::<_, String>(&asked).persistent(false).fetch_all(pool).await.unwrap());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_killed_at_random_moments_leaves_what_is_live_alone_and_comes_to_its_end() {
    let mut random = StdRng::seed_from_u64(seed());
    let history::History { events, balance_transactions } = history::random(random.random(), 300);
    let site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let mut all = site.role("all");
    let url = gateway_url(&mut all).await;
    let acknowledged = Load::start(&events, Arc::new(Mutex::new(vec![url]))).finish().await;
    site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    assert!(all.terminate().await.success());

    let operators = site.pool(Role::Operator).await;
    let views = fanledger_projections::all().iter().find(|one| one.name() == "balances").unwrap().schema().views;
    let before = shown(&operators, views).await;
    assert!(!before.is_empty());
    let line = || "projections rebuild balances --read-age 0 --json".split_whitespace();
    let began = Instant::now();
    assert_eq!(finish(site.command(line())).await.code, 0);
    let whole = began.elapsed();

    let (mut gone_on, mut switched) = (0, 0);
    for _ in 0..of_length(3, 10) {
        let generation = statuses(&operators).await["balances"].generation;
        let rebuild = Process::spawn("projections rebuild", site.command(line()));
        // Not a wait: the moment of the kill, which is to be any.
        tokio::time::sleep(whole.mul_f64(random.random())).await;
        rebuild.kill_if_running().await;
        let after = &statuses(&operators).await["balances"];
        let left = after.generations.iter().any(|one| one.generation > after.generation);
        if after.generation == generation {
            gone_on += u32::from(left)
        } else {
            switched += 1
        }
        assert_eq!(shown(&operators, views).await, before, "what is live is untouched");
    }
    // The killed one's connections end when Postgres has noticed.
    let mut last = None;
    eventually("a rebuild comes to its end", async || {
        let finished = finish(site.command(line())).await;
        let is_free = !finished.stderr.contains("already") && !finished.stderr.contains("another process");
        last = Some(finished);
        is_free
    })
    .await;
    let last = last.unwrap();
    assert_eq!(last.code, 0, "{}", last.stderr);
    assert_eq!(answers(&last)[0]["outcome"], "switched");
    assert_eq!(shown(&operators, views).await, before);
    let status = &statuses(&operators).await["balances"];
    assert_eq!(status.generations.len(), 2, "{status:?}");
    println!(
        "{} kills within {whole:?}: {gone_on} left a generation to go on with, {switched} came after the switch; live tables untouched",
        of_length(3, 10)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_the_api_has_a_projector_do_the_rest() {
    let history::History { events, balance_transactions } = history::random(seed(), 30);
    let site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let mut all = site.role("all");
    let url = gateway_url(&mut all).await;
    let acknowledged = Load::start(&events, Arc::new(Mutex::new(vec![url.clone()]))).finish().await;
    let head = site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    let refused = async |line: &str, code: i32, text: &str| {
        let finished = site.run(line).await;
        assert_eq!(finished.code, code, "{line}: {}", finished.stderr);
        assert!(finished.stderr.contains(text), "{line}: {}", finished.stderr);
    };
    for line in ["rebuild", "verify", "rollback", "retire", "pause", "resume"] {
        refused(&format!("projections {line} nobody"), 2, "there is no projection or process manager called nobody")
            .await;
    }
    refused("projections skip nobody --position 1 --reason x", 2, "called nobody").await;
    refused("projections rebuild", 2, "--all").await;
    refused("projections rebuild balances --all", 2, "cannot be used with").await;
    refused("projections rollback balances", 3, "has nothing to go back to").await;
    refused("projections skip balances --position 1 --reason x", 2, "has applied position 1 already").await;
    refused(&format!("projections skip balances --position {} --reason x", head + 1000), 2, "there is nothing at")
        .await;
    assert_eq!(site.run("projections retire balances").await.json(0)["retired"], json!([]));

    // A second one is refused at once, while the first waits for a reader of the view.
    let operators = site.pool(Role::Operator).await;
    let mut reader = operators.begin().await.unwrap();
    sqlx::query("SELECT * FROM read.suspense").fetch_all(&mut *reader).await.unwrap();
    let first = Process::spawn("rebuild", site.command("projections rebuild suspense --read-age 0".split_whitespace()));
    eventually("the first is at the switch", async || {
        let phase = "SELECT phase FROM read.operations WHERE runner = 'suspense'";
        sqlx::query_scalar::<_, String>(phase).fetch_optional(&operators).await.unwrap().as_deref() == Some("switching")
    })
    .await;
    refused("projections rebuild suspense", 3, "already").await;
    reader.rollback().await.unwrap();
    first.ended().await;

    // The same over the API.
    let (http, token) = (reqwest::Client::new(), token(&site).await);
    let call = async |method: reqwest::Method, path: &str| {
        let answer =
            http.request(method, format!("{url}/api/v1/ops/projections/{path}")).bearer_auth(&token).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let ended = async |name: &str| {
        let mut last = Value::Null;
        eventually("the operation ends", async || {
            last = call(reqwest::Method::GET, &format!("{name}/operation")).await.1;
            !last["finished_at"].is_null()
        })
        .await;
        last
    };
    assert_eq!(call(reqwest::Method::GET, "entries/operation").await.0, 404);
    assert_eq!(call(reqwest::Method::POST, "nobody/rebuild").await.0, 404);
    assert_eq!(call(reqwest::Method::POST, "entries/rollback").await.0, 409);
    let (status, asked) = call(reqwest::Method::POST, "entries/rebuild").await;
    assert_eq!((status, &asked["kind"]), (202, &json!("rebuild")), "{asked}");
    let (status, second) = call(reqwest::Method::POST, "entries/rebuild").await;
    assert_eq!((status, &second["type"]), (409, &json!("urn:fanledger:problem:operation-under-way")));
    let rebuilt = ended("entries").await;
    assert_eq!((&rebuilt["phase"], &rebuilt["operation"]), (&json!("succeeded"), &asked["operation"]), "{rebuilt}");
    assert_eq!(rebuilt["outcome"]["generation"], 2);
    assert_eq!(call(reqwest::Method::POST, "entries/rollback").await.0, 202);
    assert_eq!(ended("entries").await["outcome"]["generation"], 1);
    let live = statuses(&operators).await;
    assert_eq!(live["entries"].generation, 1);
    skipped_over_http(&site, &url, &token, &events[0]).await;
    assert!(all.terminate().await.success());
}

/// Lets `awaited` pass over an event that it has not read yet, which needs it to stand still before that.
async fn skipped_over_http(site: &Site, url: &str, token: &str, again: &Value) {
    let http = reqwest::Client::new();
    let call = async |what: &str, body: Option<Value>| {
        let request = http.post(format!("{url}/api/v1/ops/projections/awaited/{what}")).bearer_auth(token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(call("pause", None).await.0, 200);
    let operators = site.pool(Role::Operator).await;
    eventually("it stands still", async || statuses(&operators).await["awaited"].state == RunnerState::Paused).await;
    let mut event = again.clone();
    event["id"] = json!("evt_after_the_pause");
    let sent = Load::start(&[event], Arc::new(Mutex::new(vec![url.to_owned()]))).finish().await;
    let position = sent.positions["evt_after_the_pause"];

    let (status, problem) = call("skip", Some(json!({"position": 1, "reason": "late"}))).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:fanledger:problem:already-applied")));
    let skip = json!({"position": position, "reason": "to see it skipped"});
    let (status, skipped) = call("skip", Some(skip.clone())).await;
    assert_eq!((status, &skipped["position"], &skipped["known"]), (200, &json!(position), &json!(false)), "{skipped}");
    assert_eq!(call("skip", Some(skip)).await.1["known"], json!(true));
    let recorded: (String, String) = sqlx::query_as(
        "SELECT payload ->> 'reason', metadata ->> 'actor' FROM journal.events WHERE aggregate_type = 'projection_skip'",
    )
    .fetch_one(&operators)
    .await
    .unwrap();
    assert_eq!(recorded.0, "to see it skipped");
    assert!(recorded.1.starts_with("operator:"), "{}", recorded.1);
    assert_eq!(call("resume", None).await.0, 200);
    site.read(position).await;
    operators.close().await;
}
