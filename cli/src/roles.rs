//! The roles, put together from the other crates, alone or several in one process.
//!
//! A stop goes from the outside in: the gateway first, which answers what it accepted; then relay and runners, which lose
//! nothing by stopping anywhere; the writer last, which appends what it took from either.

mod background;
mod ports;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanledger_commands::Dependencies;
use fanledger_commands::executor::Executor;
use fanledger_commands::finance::Finance;
use fanledger_commands::stripe::api::{DEFAULT_BASE, HttpStripeApi, StripeApi};
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_gateway::config::GatewayConfig;
use fanledger_gateway::{
    Desks, FinanceOffice, GatewayState, JwtKey, Metrics, Operators, Parts, Payouts, Probe, WebhookIntake,
};
use fanledger_journal::database::{self, DatabaseError, MIGRATIONS};
use fanledger_journal::feed::Feed;
use fanledger_journal::reader::Reader;
use fanledger_journal::relay::{Relay, RelayOptions};
use fanledger_journal::runner::{self, Projections, RunnerContext};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Outcome, one_line};
use crate::roles::background::Background;
use crate::settings::{LISTEN_DEFAULT, METRICS_LISTEN_DEFAULT, Need, Secret, Settings};
use crate::skip::Skips;

/// What a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves HTTP.
    Gateway,
    /// Publishes the journal to NATS.
    Relay,
    /// Runs the projections.
    Projector,
    /// Runs the process managers.
    Manager,
}

/// Every role.
pub const ALL: &[Role] = &[Role::Gateway, Role::Relay, Role::Projector, Role::Manager];

/// How long Postgres may be away while a role starts; then a supervisor should see that it cannot start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long relay and runners may take to stop; they hold nothing that needs longer.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Query connections of one gateway: reads are short, and Postgres has a few cores.
const QUERY_CONNECTIONS: u32 = 16;
const COMMAND_CONNECTIONS: u32 = 16;
const PROJECTOR_CONNECTIONS: u32 = 8;

/// Why a role could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The address is taken.
    #[error("listen on {address} ({setting}); is it taken? set {setting} to another address")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database is older than this program.
    #[error("the database is at schema version {found} and this program needs {needed}: run `fanledger migrate`")]
    Schema {
        /// The database's.
        found: i64,
        /// This program's.
        needed: i64,
    },
    /// The database could not be asked.
    #[error("ask for the database's schema version; was it migrated? run `fanledger migrate`")]
    SchemaUnknown(#[source] sqlx::Error),
    /// A part ended by itself.
    #[error("{0} ended by itself; its last log lines say why")]
    Ended(&'static str),
    /// The background threads cannot be had.
    #[error("start threads for the relay and the runners")]
    Threads(#[source] std::io::Error),
    /// Signals cannot be received.
    #[error("wait for signals")]
    Signals(#[source] std::io::Error),
    /// A webhook secret cannot be used.
    #[error("FANLEDGER_STRIPE_WEBHOOK_SECRETS holds a blank secret")]
    BlankSecret,
}

/// Where the gateway and `/metrics` are to listen.
#[derive(Debug)]
pub struct Listeners {
    /// The gateway's; `None` where this process serves none.
    pub gateway: Option<TcpListener>,
    /// Of `/metrics`; `None` where its default address is taken by another role of this machine.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name. A default address of `/metrics` that is taken is done without.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn bind(settings: &Settings, roles: &[Role]) -> Result<Self, RoleError> {
        let gateway = if roles.contains(&Role::Gateway) {
            Some(bind(settings.listen.unwrap_or(LISTEN_DEFAULT), "FANLEDGER_LISTEN").await?)
        } else {
            None
        };
        let metrics = match settings.metrics_listen {
            Some(address) => Some(bind(address, "FANLEDGER_METRICS_LISTEN").await?),
            None => match TcpListener::bind(METRICS_LISTEN_DEFAULT).await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    tracing::warn!(%error, "no /metrics: {METRICS_LISTEN_DEFAULT} is taken; set FANLEDGER_METRICS_LISTEN");
                    None
                }
            },
        };
        Ok(Self { gateway, metrics })
    }
}

/// Binds an address, naming its setting when it cannot.
///
/// # Errors
/// When it cannot be had.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, RoleError> {
    TcpListener::bind(address).await.map_err(|source| RoleError::Listen { address, setting, source })
}

/// What is running in this process.
pub struct Running {
    tasks: JoinSet<&'static str>,
    gateway: Option<JoinHandle<()>>,
    gateway_stop: CancellationToken,
    rest_stop: CancellationToken,
    writer: Option<Writer>,
    background: Background,
}

/// Runs `roles` until SIGINT or SIGTERM.
///
/// # Errors
/// When they cannot start, or a part ends by itself.
pub async fn run(settings: &Settings, roles: &[Role]) -> Result<Outcome, Failure> {
    settings.require(&needs(roles))?;
    let mut signal = Signal::new()?;
    let listeners = Listeners::bind(settings, roles).await?;
    let metrics = Metrics::install()?;
    if let Some(address) = listeners.gateway.as_ref().and_then(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "serves HTTP");
    }
    if let Some(address) = listeners.metrics.as_ref().and_then(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "serves /metrics");
    }
    let mut running = tokio::select! {
        started = start(settings, roles, listeners, metrics) => started?,
        () = signal.received() => return Ok(Outcome::Fine),
    };
    let ended = tokio::select! {
        part = running.ended() => Some(part),
        () = signal.received() => None,
    };
    running.stop().await;
    match ended {
        Some(part) => Err(RoleError::Ended(part).into()),
        None => Ok(Outcome::Fine),
    }
}

fn needs(roles: &[Role]) -> Vec<Need> {
    use database::Role::{Command, Gateway, Projector};
    let mut needs = Vec::new();
    for role in roles {
        needs.extend_from_slice(match role {
            Role::Gateway => {
                &[Need::Database(Gateway), Need::Database(Command), Need::JwtKey, Need::VaultKey, Need::WebhookSecrets]
            }
            Role::Relay => &[Need::Database(Projector), Need::Nats],
            Role::Projector => &[Need::Database(Projector), Need::Nats],
            Role::Manager => {
                &[Need::Database(Projector), Need::Database(Command), Need::Nats, Need::VaultKey, Need::Livemode]
            }
        });
    }
    let mut once: Vec<Need> = Vec::new();
    for need in needs {
        if !once.contains(&need) {
            once.push(need);
        }
    }
    once
}

/// Starts `roles` in this process.
///
/// # Errors
/// When Postgres stays away for a minute, is not migrated, or a key is missing.
pub async fn start(
    settings: &Settings,
    roles: &[Role],
    listeners: Listeners,
    metrics: Metrics,
) -> Result<Running, Failure> {
    let mut running = Running {
        tasks: JoinSet::new(),
        gateway: None,
        gateway_stop: CancellationToken::new(),
        rest_stop: CancellationToken::new(),
        writer: None,
        background: Background::start(roles.contains(&Role::Gateway)).map_err(RoleError::Threads)?,
    };
    let commands = if roles.contains(&Role::Gateway) || roles.contains(&Role::Manager) {
        let commands = Commands::connect(settings).await?;
        running.writer = Some(commands.executor.writer().clone());
        Some(commands)
    } else {
        None
    };
    let mut probes: Vec<Arc<dyn Probe>> = Vec::new();
    if roles.iter().any(|role| matches!(role, Role::Relay | Role::Projector | Role::Manager)) {
        let pool = connect(&settings.database_url_for(database::Role::Projector)?, PROJECTOR_CONNECTIONS).await?;
        patiently(async || check_schema(&pool).await).await?;
        if roles.contains(&Role::Relay) {
            probes.push(running.start_relay(settings, pool.clone()));
        }
        if roles.contains(&Role::Projector) || roles.contains(&Role::Manager) {
            probes.push(running.start_runners(settings, pool, projections_of(settings, roles, commands.as_ref())));
        }
    }
    if let (Some(listener), Some(commands)) = (listeners.gateway, &commands) {
        let state = gateway_state(settings, commands, &listener, probes).await?;
        running.gateway = Some(tokio::spawn(fanledger_gateway::serve(listener, state, running.gateway_stop.clone())));
    }
    if let Some(listener) = listeners.metrics {
        let stop = running.rest_stop.clone();
        let served = metrics.clone();
        running.tasks.spawn(async move {
            fanledger_gateway::serve_metrics(listener, served, stop).await;
            "/metrics"
        });
    }
    let stop = running.rest_stop.clone();
    running.tasks.spawn(async move {
        metrics.upkeep(stop).await;
        "the upkeep of metrics"
    });
    Ok(running)
}

impl Running {
    fn start_relay(&mut self, settings: &Settings, pool: PgPool) -> Arc<dyn Probe> {
        let mut options = RelayOptions::new(settings.nats_url.as_ref().map_or("", Secret::reveal));
        options.wake = self.writer.as_ref().map(Writer::appended);
        let relay = Relay::new(pool, options);
        let probe = ports::RelayProbe::new(relay.status());
        let stop = self.rest_stop.clone();
        let running = async move {
            relay.run(stop).await;
            "the relay"
        };
        self.tasks.spawn_on(running, &self.background.handle());
        Arc::new(probe)
    }

    fn start_runners(&mut self, settings: &Settings, pool: PgPool, projections: Projections) -> Arc<dyn Probe> {
        let url = settings.nats_reader_url.as_ref().or(settings.nats_url.as_ref()).map_or("", Secret::reveal);
        let background = self.background.handle();
        let feed = {
            let _entered = background.enter();
            Feed::start(url, self.rest_stop.clone())
        };
        let probe = ports::FeedProbe::new(feed.connected());
        let context = RunnerContext::new(pool, feed);
        for projection in projections() {
            let (context, stop, name) = (context.clone(), self.rest_stop.clone(), projection.name());
            let running = async move {
                runner::run(context, projection, stop).await;
                name
            };
            self.tasks.spawn_on(running, &background);
        }
        let stop = self.rest_stop.clone();
        let supervising = async move {
            runner::supervise(context, projections, stop).await;
            "the supervisor of generations"
        };
        self.tasks.spawn_on(supervising, &background);
        Arc::new(probe)
    }

    /// Waits for a part that ends by itself, which none should.
    pub async fn ended(&mut self) -> &'static str {
        let gateway = async {
            match &mut self.gateway {
                // How it ended is in its log; that it ended is what counts.
                Some(gateway) => drop(gateway.await),
                None => std::future::pending().await,
            }
        };
        let part = tokio::select! {
            () = gateway => {
                self.gateway = None;
                return "the gateway";
            }
            part = self.tasks.join_next() => part,
        };
        match part {
            Some(Ok(part)) => part,
            Some(Err(error)) => {
                tracing::error!(%error, "a part of this process panicked");
                "a part of this process"
            }
            None => "everything",
        }
    }

    /// Stops from the outside in, each part bounded in time.
    pub async fn stop(mut self) {
        self.gateway_stop.cancel();
        // The gateway bounds its own drain.
        if let Some(gateway) = self.gateway.take() {
            gateway.await.ok();
        }
        self.rest_stop.cancel();
        if tokio::time::timeout(STOP_PATIENCE, async { while self.tasks.join_next().await.is_some() {} }).await.is_err()
        {
            tracing::warn!("some parts did not stop in time and are dropped; their transactions roll back");
        }
        if let Some(writer) = &self.writer
            && tokio::time::timeout(STOP_PATIENCE, writer.shutdown()).await.is_err()
        {
            tracing::warn!("the writer did not end in time; what it took and did not append was not acknowledged");
        }
    }
}

/// What the gateway's intake and the process managers share.
pub struct Commands {
    /// Sends commands.
    pub executor: Executor,
    /// Seals and opens raw events.
    pub vault: Vault,
    /// The command role's pool.
    pub pool: PgPool,
    /// Stripe's API, where there is a key.
    pub stripe: Option<Arc<dyn StripeApi>>,
}

impl Commands {
    /// Connects as the command role.
    ///
    /// # Errors
    /// When Postgres stays away, or a key is missing.
    pub async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let url = settings.database_url_for(database::Role::Command)?;
        let pool = connect(&url, COMMAND_CONNECTIONS).await?;
        patiently(async || check_schema(&pool).await).await?;
        let vault = Vault::new(VaultKey::new(settings.vault_key()?), pool.clone());
        patiently(async || vault.check().await).await?;
        let writer = patiently(async || Writer::start(WriterOptions::new(url.clone())).await).await?;
        Ok(Self { executor: Executor::new(pool.clone(), writer), vault, stripe: stripe_api(settings)?, pool })
    }

    /// What process managers need of it.
    pub fn dependencies(&self, settings: &Settings) -> Dependencies {
        Dependencies {
            executor: self.executor.clone(),
            vault: self.vault.clone(),
            stripe: self.stripe.clone(),
            livemode: settings.stripe_livemode,
        }
    }
}

/// Stripe's API, where there is a key.
///
/// # Errors
/// When its client cannot be made.
pub fn stripe_api(settings: &Settings) -> Result<Option<Arc<dyn StripeApi>>, Failure> {
    let Some(key) = &settings.stripe_api_key else { return Ok(None) };
    let base = settings.stripe_api_base.as_deref().unwrap_or(DEFAULT_BASE);
    Ok(Some(Arc::new(HttpStripeApi::new(base, key.reveal().to_owned())?)))
}

/// What these roles run; made anew for each generation that is fed.
fn projections_of(settings: &Settings, roles: &[Role], commands: Option<&Commands>) -> Projections {
    let projector = roles.contains(&Role::Projector);
    let manager = commands.filter(|_| roles.contains(&Role::Manager)).map(|commands| commands.dependencies(settings));
    Arc::new(move || {
        let mut projections = if projector { fanledger_projections::all() } else { Vec::new() };
        projections.extend(manager.iter().flat_map(fanledger_commands::managers));
        projections
    })
}

async fn gateway_state(
    settings: &Settings,
    commands: &Commands,
    listener: &TcpListener,
    probes: Vec<Arc<dyn Probe>>,
) -> Result<GatewayState, Failure> {
    let secrets = settings
        .webhook_secrets()?
        .iter()
        .map(|secret| signature::Secret::new(secret.reveal()).map_err(|_| RoleError::BlankSecret))
        .collect::<Result<Vec<_>, _>>()?;
    let intake = Intake::new(commands.executor.clone(), commands.vault.clone(), secrets);
    let jwt_key = JwtKey::new(settings.jwt_key()?.reveal().as_bytes())?;
    let listen = listener.local_addr().unwrap_or(LISTEN_DEFAULT);
    let mut config = GatewayConfig::new(listen, jwt_key);
    config.web_dir = settings.web_dir.clone();
    config.trusted_hops = settings.trusted_hops.unwrap_or(config.trusted_hops);
    config.rate_limit.per_second = settings.rate_limit_per_second.unwrap_or(config.rate_limit.per_second);
    config.rate_limit.burst = settings.rate_limit_burst.unwrap_or(config.rate_limit.burst);
    config.in_flight_max = settings.in_flight_max.unwrap_or(config.in_flight_max);
    let query_pool = connect(&settings.database_url_for(database::Role::Gateway)?, QUERY_CONNECTIONS).await?;
    let intake: Arc<dyn WebhookIntake> = Arc::new(intake);
    let mut runners = fanledger_projections::all();
    runners.extend(fanledger_commands::managers(&commands.dependencies(settings)));
    let skips = Skips::new(&runners, query_pool.clone(), commands.pool.clone(), commands.executor.writer().clone());
    let operators: Arc<dyn Operators> = Arc::new(skips);
    let reader = Reader::new(commands.pool.clone());
    let finance = Finance::new(commands.executor.clone(), reader, commands.vault.clone());
    let finance = FinanceOffice::new(finance, query_pool.clone());
    let payouts = Payouts::new(commands.executor.clone(), query_pool.clone());
    let desks =
        Desks { payouts: Arc::new(payouts), periods: Arc::new(commands.executor.clone()), finance: Arc::new(finance) };
    let parts = || Parts {
        config: config.clone(),
        query_pool: query_pool.clone(),
        command_pool: commands.pool.clone(),
        intake: Arc::clone(&intake),
        operators: Arc::clone(&operators),
        desks: desks.clone(),
        schema_version: schema_version_needed(),
        probes: probes.clone(),
    };
    Ok(patiently(async || GatewayState::new(parts()).await).await?)
}

/// This program's schema version.
pub fn schema_version_needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether the database is this program's or newer; migrations only add within a major version.
async fn check_schema(pool: &PgPool) -> Result<(), RoleError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT control.schema_version()")
        .fetch_one(pool)
        .await
        .map_err(RoleError::SchemaUnknown)?;
    let (found, needed) = (found.unwrap_or_default(), schema_version_needed());
    if found < needed { Err(RoleError::Schema { found, needed }) } else { Ok(()) }
}

async fn connect(url: &str, connections: u32) -> Result<PgPool, DatabaseError> {
    patiently(async || database::connect(url, connections).await).await
}

/// Tries again for a while if Postgres is away: servers that start together find each other, and what starts while Postgres
/// recovers need not be started again.
async fn patiently<T, E: Error + 'static>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match attempt().await {
            Err(error) if is_away(&error) && Instant::now() < deadline => {
                tracing::warn!(error = one_line(&error), "Postgres is away; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Away, starting up or going down; a wrong password will not get better by waiting.
fn is_away(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        // A postmaster in the middle of a recovery may answer the question for TLS with an error, which is none of the answers
        // that the protocol has for it.
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)) => true,
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| matches!(code.as_ref(), "57P01" | "57P02" | "57P03"))
        }
        Some(_) => false,
        None => error.source().is_some_and(is_away),
    }
}

/// SIGINT and SIGTERM, whichever comes first.
pub struct Signal {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signal {
    /// From now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> Result<Self, RoleError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(RoleError::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(RoleError::Signals)?,
        })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
