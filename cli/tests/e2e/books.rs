//! What must be equal whatever happened on the way: the journal's promises, the read tables, the books.

use std::collections::BTreeMap;

use fanledger_cli::roles::Commands;
use fanledger_journal::database::{self, Role};
use fanledger_journal::generation::{RebuildOptions, rebuild, schema_name};
use fanledger_journal::reader::Reader;
use fanledger_journal::runner::{Projection, RunnerContext};
use serde_json::Value;
use sqlx::PgPool;

use super::load::{Acknowledged, Gateways, Load};
use super::{Site, eventually, gateway_url};

/// What moved on each account at each instant of occurrence, without what came back to zero at that instant: the books at
/// every instant, in a form that does not depend on the order of arrival.
pub type Books = BTreeMap<(String, String, String), String>;

pub async fn books(pool: &PgPool) -> Books {
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT account, currency, occurred_at::text, sum(CASE side WHEN 'debit' THEN amount ELSE -amount END)::text \
         FROM read.postings GROUP BY account, currency, occurred_at \
         HAVING sum(CASE side WHEN 'debit' THEN amount ELSE -amount END) <> 0",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().map(|(account, currency, at, minor)| ((account, currency, at), minor)).collect()
}

/// The books that the same events end in when nothing happens on the way.
pub async fn undisturbed(site: &mut Site, events: &[Value]) -> Books {
    let (settings, mut all) = site.beside("undisturbed").await;
    let url = gateway_url(&mut all).await;
    let acknowledged = Load::start(events, Gateways::new(vec![url].into())).finish().await;
    let settings = fanledger_cli::settings::Settings::parse("", settings).unwrap();
    let pool = database::connect(&settings.database_url_for(Role::Operator).unwrap(), 2).await.unwrap();
    let position = acknowledged.positions.values().max().copied().unwrap_or_default();
    let output = fanledger_cli::output::Output::new(true);
    fanledger_cli::commands::seed::wait_until_read(&pool, position, output).await.unwrap();
    let books = books(&pool).await;
    pool.close().await;
    assert!(all.terminate().await.success());
    books
}

/// Positions are dense, and every acknowledged event is at the position that was answered, and nowhere else.
pub async fn every_acknowledged_event_is_there_once(pool: &PgPool, acknowledged: &Acknowledged) {
    let (count, first, last): (i64, i64, i64) =
        sqlx::query_as("SELECT count(*), min(position), max(position) FROM journal.events")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!((first, last), (1, count), "positions are dense");
    let stored: Vec<(String, i64)> = sqlx::query_as(
        "SELECT aggregate_id, position FROM journal.events WHERE event_type = 'StripeEventReceived' ORDER BY 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let expected: Vec<(String, i64)> =
        acknowledged.positions.iter().map(|(id, position)| (id.clone(), position.cast_signed())).collect();
    assert_eq!(stored, expected);
}

/// Positions are dense, and every acknowledged event is at the position that was answered. Others may be there too: they were
/// committed, and nobody heard of it.
pub async fn every_acknowledged_event_is_there(pool: &PgPool, acknowledged: &Acknowledged) {
    let (count, last): (i64, i64) =
        sqlx::query_as("SELECT count(*), max(position) FROM journal.events").fetch_one(pool).await.unwrap();
    assert_eq!(last, count, "positions are dense");
    for (id, position) in &acknowledged.positions {
        let there: Option<i64> = sqlx::query_scalar(
            "SELECT position FROM journal.events WHERE aggregate_type = 'stripe_event' AND aggregate_id = $1 AND sequence = 1",
        )
        .bind(id)
        .fetch_optional(pool)
        .await
        .unwrap();
        assert_eq!(there, Some(position.cast_signed()), "{id} was acknowledged at {position}");
    }
}

/// Builds every projection and process manager anew and compares each of its tables, row by row, with what was there.
/// Returns how many rows were compared. Nothing may be appended by that.
pub async fn equal_a_fresh_rebuild(site: &Site) -> i64 {
    let (mut builder, head) = (Builder::new(site).await, site.head().await);
    let projector = builder.projector.clone();
    let mut compared = 0;
    for projection in &mut builder.projections {
        let name = projection.name();
        let live: i32 = sqlx::query_scalar("SELECT generation FROM control.runners WHERE name = $1 AND live")
            .bind(name)
            .fetch_one(&projector)
            .await
            .unwrap();
        let rebuilt = rebuild(
            &RunnerContext::without_feed(projector.clone()),
            projection.as_mut(),
            &RebuildOptions::unattended(),
        )
        .await
        .unwrap();
        let (old, new) = (schema_name(name, live), schema_name(name, rebuilt.generation.cast_signed()));
        compared += compare(&projector, &old, &new).await;
    }
    assert_eq!(site.head().await, head, "rebuilding appends nothing");
    builder.close().await;
    compared
}

/// Builds every projection and process manager anew, beside what runs.
pub async fn build_all_anew(site: &Site) {
    let mut builder = Builder::new(site).await;
    for projection in &mut builder.projections {
        let context = RunnerContext::without_feed(builder.projector.clone());
        rebuild(&context, projection.as_mut(), &RebuildOptions::unattended()).await.unwrap();
    }
    builder.close().await;
}

/// What a rebuild needs.
struct Builder {
    projector: PgPool,
    commands: Commands,
    projections: Vec<Box<dyn Projection>>,
}

impl Builder {
    async fn new(site: &Site) -> Self {
        let (settings, projector) = (site.settings(), site.pool(Role::Projector).await);
        let commands = Commands::connect(&settings).await.map_err(|failure| failure.error().to_string()).unwrap();
        let mut projections = fanledger_projections::all();
        let managers = fanledger_commands::managers(&commands.dependencies(&settings));
        let names: Vec<&str> = managers.iter().map(|manager| manager.name()).collect();
        assert_eq!(names, fanledger_commands::MANAGERS);
        projections.extend(managers);
        Self { projector, commands, projections }
    }

    async fn close(self) {
        self.commands.executor.writer().shutdown().await;
        self.commands.pool.close().await;
        self.projector.close().await;
    }
}

/// Rows as text, since columns of type json have no equality.
async fn compare(pool: &PgPool, old: &str, new: &str) -> i64 {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = $1 ORDER BY 1")
            .bind(new)
            .fetch_all(pool)
            .await
            .unwrap();
    let mut rows = 0;
    for table in tables {
        let differing: Vec<String> = sqlx::query_scalar(&format!(
            "(SELECT 'before: ' || t::text FROM {old}.{table} AS t EXCEPT ALL SELECT 'before: ' || t::text FROM {new}.{table} AS t) \
             UNION ALL \
             (SELECT 'anew: ' || t::text FROM {new}.{table} AS t EXCEPT ALL SELECT 'anew: ' || t::text FROM {old}.{table} AS t) \
             LIMIT 10"
        ))
        .fetch_all(pool)
        .await
        .unwrap();
        assert!(differing.is_empty(), "{new}.{table} is not what was there: {differing:#?}");
        rows +=
            sqlx::query_scalar::<_, i64>(&format!("SELECT count(*) FROM {new}.{table}")).fetch_one(pool).await.unwrap();
    }
    rows
}

/// `journal verify` finds nothing.
pub async fn verified(site: &Site) {
    assert_eq!(site.run("journal verify").await.json(0)["ok"], true);
}

/// Waits until NATS holds the journal's end, and checks every message that it holds against the journal. Returns how many.
pub async fn nats_mirrors(site: &Site, head: u64) -> u64 {
    let nats = fanledger_journal::nats::connect(&site.servers.nats_url(), "test").await.unwrap();
    let ask = async |subject: &'static str, body: String| -> Value {
        let answer = nats.request(subject, body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let state = async || ask("$JS.API.STREAM.INFO.JOURNAL", String::new()).await["state"].clone();
    eventually("NATS holds the journal's end", async || state().await["last_seq"] == head).await;
    let first = state().await["first_seq"].as_u64().unwrap();
    let pool = site.pool(Role::Operator).await;
    let reader = Reader::new(pool.clone());
    for position in first..=head {
        let answer = ask("$JS.API.STREAM.MSG.GET.JOURNAL", format!("{{\"seq\": {position}}}")).await;
        let headers = base64_text(answer["message"]["hdrs"].as_str().unwrap());
        let event = reader.at(fanledger_journal::event::Position::new(position)).await.unwrap().unwrap();
        let chain = format!("Fanledger-Chain: {}", hex::encode(event.chain.0));
        assert!(headers.contains(&chain), "position {position}: {headers}");
    }
    pool.close().await;
    head + 1 - first
}

fn base64_text(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}
