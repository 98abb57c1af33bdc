//! `/healthz`: the process answers. `/readyz`: it can do its work; each check with what to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fanledger_commands::with_causes;
use serde::Serialize;
use sqlx::{PgPool, Row};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::ports::{Finding, Probe};
use crate::problem::Plain;

/// A check that takes longer counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Answers are kept so long: anyone may ask, and the database should not feel it.
const KEEP: Duration = Duration::from_millis(250);
/// What this gateway answers from.
pub(crate) const PROJECTIONS: &[&str] = &[
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

/// What the checks look at.
#[derive(Clone)]
pub(crate) struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    query_pool: PgPool,
    command_pool: PgPool,
    schema_version: i64,
    lag_seconds_max: u32,
    probes: Vec<Arc<dyn Probe>>,
    stopping: CancellationToken,
    last: Mutex<Option<(Instant, Readiness)>>,
}

/// The process is up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Liveness {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the gateway can do its work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// All checks passed.
    ready: bool,
    /// Each check.
    checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    name: String,
    /// Whether it passed.
    ready: bool,
    /// What was found, and what to do where it did not pass.
    detail: String,
}

impl Health {
    pub(crate) fn new(
        query_pool: PgPool,
        command_pool: PgPool,
        schema_version: i64,
        lag_seconds_max: u32,
        probes: Vec<Arc<dyn Probe>>,
        stopping: CancellationToken,
    ) -> Self {
        let last = Mutex::new(None);
        Self {
            inner: Arc::new(Inner {
                query_pool,
                command_pool,
                schema_version,
                lag_seconds_max,
                probes,
                stopping,
                last,
            }),
        }
    }

    /// Looks, or repeats what was found a moment ago. Callers at the same moment share one look.
    async fn look(&self) -> Readiness {
        let mut last = self.inner.last.lock().await;
        if let Some((at, found)) = last.as_ref()
            && at.elapsed() < KEEP
        {
            return found.clone();
        }
        let inner = &self.inner;
        let ours = async {
            futures::join!(
                bounded("postgres", inner.postgres()),
                bounded("schema", inner.schema()),
                bounded("projections", inner.projections())
            )
        };
        let theirs = futures::future::join_all(inner.probes.iter().map(|probe| bounded(probe.name(), probe.look())));
        let ((postgres, schema, projections), others) = futures::join!(ours, theirs);
        let mut checks = vec![inner.running(), postgres, schema, projections];
        checks.extend(others);
        let found = Readiness { ready: checks.iter().all(|check| check.ready), checks };
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

async fn bounded(name: &str, look: impl Future<Output = Finding>) -> Check {
    let late = || Finding {
        ready: false,
        detail: "No answer within a second. Look whether it is up and reachable.".to_owned(),
    };
    let finding = tokio::time::timeout(CHECK_TIMEOUT, look).await.unwrap_or_else(|_| late());
    Check { name: name.to_owned(), ready: finding.ready, detail: finding.detail }
}

fn well(detail: impl Into<String>) -> Finding {
    Finding { ready: true, detail: detail.into() }
}

fn unwell(detail: impl Into<String>) -> Finding {
    Finding { ready: false, detail: detail.into() }
}

/// What failed is logged; the answer, which anyone may read, names only what to do.
fn unreachable(error: &sqlx::Error, what_to_do: &str) -> Finding {
    tracing::debug!(error = %with_causes(error), "a readiness check failed");
    unwell(what_to_do)
}

impl Inner {
    fn running(&self) -> Check {
        let ready = !self.stopping.is_cancelled();
        let detail =
            if ready { "Serving." } else { "Stopping: finishing what was accepted. Send new requests elsewhere." };
        Check { name: "process".to_owned(), ready, detail: detail.to_owned() }
    }

    async fn postgres(&self) -> Finding {
        match sqlx::query("SELECT 1").execute(&self.query_pool).await {
            Ok(_) => well("Reachable."),
            Err(error) => unreachable(&error, "Not reachable. Start Postgres, or set FANLEDGER_DATABASE_URL right."),
        }
    }

    async fn schema(&self) -> Finding {
        let version =
            sqlx::query_scalar::<_, Option<i64>>("SELECT control.schema_version()").fetch_one(&self.command_pool).await;
        let wanted = self.schema_version;
        match version {
            Ok(Some(version)) if version >= wanted => well(format!("At version {version}.")),
            Ok(version) => {
                unwell(format!("At version {}, and {wanted} is needed. Run `fanledger migrate`.", version.unwrap_or(0)))
            }
            Err(error) => unreachable(&error, "The version cannot be read. Run `fanledger migrate`."),
        }
    }

    async fn projections(&self) -> Finding {
        let names: Vec<&str> = PROJECTIONS.to_vec();
        let rows = sqlx::query(
            "SELECT wanted.name::text, runner.state::text, runner.lag_events::bigint,
                    runner.name IS NOT NULL AND runner.lag_seconds <= $2 AND runner.state <> 'halted' AS fresh
             FROM unnest($1::text[]) AS wanted (name) LEFT JOIN read.runners AS runner ON runner.name = wanted.name
             ORDER BY wanted.name",
        )
        .bind(names)
        .bind(f64::from(self.lag_seconds_max))
        .fetch_all(&self.query_pool)
        .await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return unreachable(&error, "Their positions cannot be read. Run `fanledger migrate`."),
        };
        let mut late = Vec::new();
        for row in &rows {
            let read = || -> Result<(String, Option<String>, Option<i64>, bool), sqlx::Error> {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
            };
            match read() {
                Ok((_, _, _, true)) => {}
                Ok((name, Some(state), Some(lag), false)) => {
                    late.push(format!("{name} ({state}, {lag} events behind)"))
                }
                Ok((name, _, _, false)) => late.push(format!("{name} (not begun)")),
                Err(error) => return unreachable(&error, "Their positions cannot be read. Run `fanledger migrate`."),
            }
        }
        if late.is_empty() {
            return well(format!("All {} run, within {} s of the head.", rows.len(), self.lag_seconds_max));
        }
        unwell(format!(
            "Behind: {}. See that `fanledger projector` runs; `fanledger projections status` says why one halted; `resume` ends a pause.",
            late.join(", ")
        ))
    }
}

/// Is the process up?
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "It is.", body = Liveness))
)]
pub(crate) async fn healthz() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// Can the gateway do its work?
///
/// Looks at Postgres, the schema's version, the projections' lag, and NATS or its fallback.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses(
        (status = 200, description = "It can.", body = Readiness),
        (status = 503, description = "It cannot; the checks say why and what to do.", body = Readiness)
    )
)]
pub(crate) async fn readyz(State(health): State<Health>) -> Response {
    let found = health.look().await;
    let status = if found.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(found)).into_response();
    response.extensions_mut().insert(Plain);
    response
}
