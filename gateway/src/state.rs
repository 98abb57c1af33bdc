//! What handlers hold.
//!
//! **Architecture Invariant:** a handler is given either [`Queries`] or [`Commands`], never both. `Queries` holds the one
//! pool that may read `read` and nothing else; `Commands` holds the way into the journal and reads nothing for a client: where a
//! command is decided on what projections say, it only waits for them. The router is put together from routers over the one and
//! routers over the other, so the compiler holds the line.

use std::sync::Arc;
use std::time::Duration;

use fanledger_gateway_api::OperationKind;
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::config::GatewayConfig;
use crate::cursor::Cursors;
use crate::health::Health;
use crate::idempotency::Idempotency;
use crate::limits::{Bounds, RateLimiter};
use crate::ports::{ActRefusal, Desks, IntakeRefusal, Operators, Probe, Receipt, WebhookIntake};
use crate::problem::{Kind, Problem};
use crate::progress::{Progress, Wait};
use crate::read::{Read, ReadError};
use crate::sampler;

/// Why a pool was refused at start-up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database did not answer.
    #[error("ask Postgres which rights the query pool has")]
    Rights(#[source] sqlx::Error),
    /// The pool may do more than read `read`.
    #[error(
        "the query pool logs in as {role}, which may do more than read `read`: give the gateway the URL of the role fanledger_gateway"
    )]
    TooMuch {
        /// Who it logs in as.
        role: String,
    },
}

/// For handlers that answer questions.
#[derive(Clone)]
pub struct Queries {
    pool: PgPool,
    pub(crate) progress: Progress,
    pub(crate) cursors: Cursors,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
    min_position_wait: Duration,
}

impl Queries {
    /// The pool of the query role, for the functions of [`crate::read`].
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Answers a question from the projections `of`: waits for the position that the client has seen, asks, and makes sure
    /// that the answer is no older.
    pub(crate) async fn answer<T>(
        &self,
        min_position: Option<u64>,
        of: &[&'static str],
        question: impl Future<Output = Result<Read<T>, ReadError>>,
    ) -> Result<Read<T>, Problem> {
        if let Some(wanted) = min_position
            && let Wait::Missed { name, position } = self.progress.reach(of, wanted, self.min_position_wait).await
        {
            return Err(behind(name, position, wanted));
        }
        let read = question.await.map_err(crate::params::problem_of_read)?;
        match min_position {
            // A switch of generations may have taken the view back between the wait and the question.
            Some(wanted) if read.position < wanted => {
                Err(behind(of.first().copied().unwrap_or("The journal"), read.position, wanted))
            }
            _ => Ok(read),
        }
    }
}

fn behind(name: &str, position: u64, wanted: u64) -> Problem {
    Problem::new(Kind::PositionNotReached, format!("{name} is at position {position}, not yet at {wanted}."))
        .retry_after_seconds(1)
}

/// For handlers that change something.
#[derive(Clone)]
pub struct Commands {
    pool: PgPool,
    intake: Arc<dyn WebhookIntake>,
    pub(crate) operators: Arc<dyn Operators>,
    pub(crate) desks: Desks,
    pub(crate) webhooks: Arc<Semaphore>,
    pub(crate) body_read_timeout: Duration,
    pub(crate) request_timeout: Duration,
    progress: Progress,
    min_position_wait: Duration,
}

impl Commands {
    /// The journal's head as it is now, once the projections `of` have come to it; as long is waited for them as for a client that
    /// has seen a position. Whatever is decided on what they say is decided on no less than that.
    pub(crate) async fn caught_up(&self, of: &[&'static str]) -> Result<u64, ActRefusal> {
        let head = sqlx::query_scalar::<_, i64>("SELECT coalesce(max(last_position), 0)::bigint FROM journal.batches");
        let head = head.fetch_one(&self.pool).await.map_err(|error| ActRefusal::Unavailable(Box::new(error)))?;
        let head = u64::try_from(head).unwrap_or(0);
        if self.progress.reach(of, head, self.min_position_wait).await == Wait::Reached {
            return Ok(head);
        }
        let behind = self.progress.behind(of, head).await.map_err(|error| ActRefusal::Unavailable(Box::new(error)))?;
        if behind.is_empty() {
            return Ok(head);
        }
        Err(ActRefusal::Behind(format!("the journal is at position {head}, and {}", behind.join("; "))))
    }

    pub(crate) async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal> {
        self.intake.receive(signature, body).await
    }

    /// Pauses or resumes a runner. Answers whether there is one of that name, and the journal's head.
    pub(crate) async fn control(&self, runner: &str, pause: bool) -> Result<(bool, u64), sqlx::Error> {
        let statement = if pause {
            "SELECT control.pause($1), (SELECT coalesce(max(last_position), 0)::bigint FROM journal.batches)"
        } else {
            "SELECT control.resume($1), (SELECT coalesce(max(last_position), 0)::bigint FROM journal.batches)"
        };
        let row = sqlx::query(statement).bind(runner).fetch_one(&self.pool).await?;
        let head: i64 = row.try_get(1)?;
        Ok((row.try_get(0)?, u64::try_from(head).unwrap_or(0)))
    }

    /// Asks for what takes longer than a request; a projector works on it. With the journal's head.
    pub(crate) async fn ask(
        &self,
        runner: &str,
        kind: OperationKind,
        confirmed: bool,
    ) -> Result<(Asked, u64), sqlx::Error> {
        let row = sqlx::query(
            "SELECT verdict, coalesce(id, 0)::bigint, (SELECT coalesce(max(last_position), 0)::bigint FROM journal.batches)
             FROM control.request_operation($1, $2, $3)",
        )
        .bind(runner)
        .bind(kind.as_str())
        .bind(confirmed)
        .fetch_one(&self.pool)
        .await?;
        let (id, head): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let asked = match row.try_get(0)? {
            "queued" => Asked::Queued(id.cast_unsigned()),
            "under_way" => Asked::UnderWay(id.cast_unsigned()),
            "nothing_kept" => Asked::NothingKept,
            _ => Asked::UnknownRunner,
        };
        Ok((asked, u64::try_from(head).unwrap_or(0)))
    }
}

/// What became of an operator's request for an operation.
pub(crate) enum Asked {
    /// It is taken in, under this number.
    Queued(u64),
    /// Another one is under way, under this number.
    UnderWay(u64),
    /// No generation is kept to go back to.
    NothingKept,
    /// There is no such runner.
    UnknownRunner,
}

/// What a gateway is made of.
pub struct Parts {
    /// The settings.
    pub config: GatewayConfig,
    /// A pool that logs in as `fanledger_gateway`.
    pub query_pool: PgPool,
    /// A pool that logs in as `fanledger_command`.
    pub command_pool: PgPool,
    /// Where webhooks go in.
    pub intake: Arc<dyn WebhookIntake>,
    /// What operators do by it.
    pub operators: Arc<dyn Operators>,
    /// Where people act.
    pub desks: Desks,
    /// The schema version that this build knows: `/readyz` fails below it.
    pub schema_version: i64,
    /// What else `/readyz` looks at: NATS or its fallback.
    pub probes: Vec<Arc<dyn Probe>>,
}

/// Everything behind the router. Cheap to clone.
#[derive(Clone)]
pub struct GatewayState {
    config: Arc<GatewayConfig>,
    pub(crate) queries: Queries,
    pub(crate) commands: Commands,
    pub(crate) health: Health,
    pub(crate) idempotency: Idempotency,
    pub(crate) verifier: Verifier,
    bounds: Bounds,
}

impl GatewayState {
    /// Puts a gateway together, and refuses a query pool that may do more than it should.
    ///
    /// # Errors
    /// When Postgres cannot be asked, or the query pool's role is not the one it must be.
    pub async fn new(parts: Parts) -> Result<Self, StateError> {
        check_query_role(&parts.query_pool).await?;
        let config = parts.config;
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let progress = Progress::new(parts.query_pool.clone());
        let queries = Queries {
            progress: progress.clone(),
            cursors: Cursors::new(&config.jwt_key),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            stopping: stopping.clone(),
            min_position_wait: config.min_position_wait,
            pool: parts.query_pool.clone(),
        };
        let commands = Commands {
            pool: parts.command_pool.clone(),
            intake: parts.intake,
            operators: parts.operators,
            desks: parts.desks,
            webhooks: Arc::new(Semaphore::new(config.webhooks_in_flight_max)),
            body_read_timeout: config.body_read_timeout,
            request_timeout: config.request_timeout,
            progress,
            min_position_wait: config.min_position_wait,
        };
        let health = Health::new(
            parts.query_pool,
            parts.command_pool.clone(),
            parts.schema_version,
            config.lag_seconds_max,
            parts.probes,
            stopping,
        );
        Ok(Self {
            verifier: Verifier::new(&config.jwt_key),
            bounds: Bounds {
                rate: Arc::new(RateLimiter::new(config.rate_limit)),
                trusted_hops: config.trusted_hops,
                in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
                timeout: Some(config.request_timeout),
            },
            idempotency: Idempotency { pool: parts.command_pool, tasks, body_read_timeout: config.body_read_timeout },
            config: Arc::new(config),
            queries,
            commands,
            health,
        })
    }

    /// The settings.
    pub fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// The bounds in front of a route; a stream has none in time.
    pub(crate) fn bounds(&self, timed: bool) -> Bounds {
        Bounds { timeout: self.bounds.timeout.filter(|_| timed), ..self.bounds.clone() }
    }

    /// Starts what runs beside the requests, until `shutdown`.
    pub fn start(&self, shutdown: &CancellationToken) {
        tokio::spawn(self.queries.progress.clone().run(shutdown.clone()));
        tokio::spawn(self.idempotency.clone().forget(shutdown.clone()));
        tokio::spawn(sampler::run(self.queries.pool.clone(), shutdown.clone()));
        let (stopping, shutdown) = (self.queries.stopping.clone(), shutdown.clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            stopping.cancel();
        });
    }

    /// The commands under way, which outlive their connections.
    pub(crate) fn commands_under_way(&self) -> &TaskTracker {
        &self.idempotency.tasks
    }
}

/// One loud failure at start-up instead of a gateway that could read the journal.
async fn check_query_role(pool: &PgPool) -> Result<(), StateError> {
    let row = sqlx::query(
        "SELECT current_user::text, rolsuper OR pg_has_role(current_user, 'fanledger_command', 'USAGE')
             OR has_schema_privilege('journal', 'USAGE') OR has_schema_privilege('control', 'USAGE') OR has_schema_privilege('vault', 'USAGE')
         FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(pool)
    .await
    .map_err(StateError::Rights)?;
    let role = row.try_get(0).map_err(StateError::Rights)?;
    if row.try_get(1).map_err(StateError::Rights)? { Err(StateError::TooMuch { role }) } else { Ok(()) }
}
