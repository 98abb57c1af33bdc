//! `fanledger dev`: everything on this machine, private to one data directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fanledger_devkit::servers::{NatsUser, Servers, StartOptions, default_bin_dir};
use fanledger_devkit::stripe::StandIn;
use fanledger_gateway::Metrics;
use fanledger_journal::database;
use fanledger_journal::nats::permissions_config;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::roles::{self, Listeners, RoleError, Running, Signal};
use crate::settings::{Environment, LISTEN_DEFAULT, METRICS_LISTEN_DEFAULT, Secret, Settings};
use crate::state::{Claim, DevState};

/// Start a private Postgres and NATS, and all roles.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanledger dev\n  FANLEDGER_DATA_DIR=/tmp/other FANLEDGER_LISTEN=127.0.0.1:8090 fanledger dev\n  \
    fanledger dev env --json      # in another terminal\n\n\
    Without FANLEDGER_STRIPE_API_BASE a stand-in for Stripe's API runs beside it. It migrates and never seeds."
)]
pub struct DevArgs {
    /// Ask about a running `dev` instead.
    #[command(subcommand)]
    pub command: Option<DevCommand>,
}

/// Questions to a running `dev`.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Print where its servers are
    Env,
    /// Stop it, and wait until it has stopped; nothing to do where none runs
    Stop,
}

/// Why `dev` cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Development defaults have no place in production.
    #[error("`fanledger dev` makes up keys and passwords and is refused with FANLEDGER_ENV=production: run the roles")]
    Production,
    /// There is none to ask.
    #[error("no `fanledger dev` is running with data directory {}", data_dir.display())]
    NotRunning {
        /// Which.
        data_dir: PathBuf,
    },
    /// It could not be told to stop.
    #[error("tell `fanledger dev` (process {pid}) to stop")]
    Signal {
        /// Its process.
        pid: u32,
        /// What the system said.
        #[source]
        source: rustix::io::Errno,
    },
    /// It was told to stop and did not.
    #[error("`fanledger dev` (process {pid}) was told to stop and has not within {} s", STOP_PATIENCE.as_secs())]
    NotStopped {
        /// Its process.
        pid: u32,
    },
    /// It did not become ready.
    #[error("not ready within {} s: {detail}", READY_PATIENCE.as_secs())]
    NotReady {
        /// What `/readyz` said last.
        detail: String,
    },
    /// A listener has no address, which the system should give.
    #[error("ask for the address of a listener")]
    Address(#[source] std::io::Error),
}

/// From start to ready; includes fetching Postgres and NATS the first time only as far as the network allows.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// What it takes to answer what was accepted, to let go of everything, and to stop Postgres.
const STOP_PATIENCE: Duration = Duration::from_secs(90);
/// How often the private servers are looked at, to start again what was killed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The stand-in's key; it protects nothing.
const STAND_IN_KEY: &str = "sk_test_stand_in";

#[derive(Serialize)]
struct Env<'a> {
    database_url: &'a str,
    superuser_url: &'a str,
    nats_url: &'a str,
    gateway_url: &'a str,
    metrics_url: &'a str,
}

/// Runs it, or asks the running one.
///
/// # Errors
/// When the data directory is in use, a program is missing, or something does not start.
pub async fn run(args: DevArgs, settings: Settings, output: Output) -> Result<Outcome, Failure> {
    match args.command {
        Some(DevCommand::Env) => env(&settings, output),
        Some(DevCommand::Stop) => stop(&settings, output).await,
        None if settings.environment == Environment::Production => Err(Failure::usage(DevError::Production)),
        None => up(settings, output).await,
    }
}

fn env(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let Some(dev) = &settings.dev else {
        return Err(DevError::NotRunning { data_dir: settings.data_dir.clone() }.into());
    };
    let env = Env {
        database_url: &dev.database_url,
        superuser_url: &dev.superuser_url,
        nats_url: &dev.nats_url,
        gateway_url: &dev.gateway_url,
        metrics_url: &dev.metrics_url,
    };
    if output.is_json() {
        output.json(&env)?;
    } else {
        output.line(format_args!("export FANLEDGER_DATABASE_URL={}", env.database_url))?;
        output.line(format_args!("export FANLEDGER_NATS_URL={}", env.nats_url))?;
        output.line(format_args!("# superuser {}", env.superuser_url))?;
        output.line(format_args!("# gateway   {}", env.gateway_url))?;
        output.line(format_args!("# metrics   {}/metrics", env.metrics_url))?;
    }
    Ok(Outcome::Fine)
}

/// The state of a `dev` counts only while that holds its lock, so the process that it names is no other's.
async fn stop(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let running = settings.dev.as_ref().map(|dev| dev.pid);
    if let Some(pid) = running {
        if let Some(process) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            rustix::process::kill_process(process, rustix::process::Signal::TERM)
                .map_err(|source| DevError::Signal { pid, source })?;
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while DevState::of_running(&settings.data_dir).is_some_and(|dev| dev.pid == pid) {
            if Instant::now() > deadline {
                return Err(DevError::NotStopped { pid }.into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    if output.is_json() {
        output.json(&serde_json::json!({ "stopped": running.is_some() }))?;
    } else if running.is_some() {
        output.line("Stopped.")?;
    } else {
        output.line(format_args!("No `fanledger dev` is running with {}.", settings.data_dir.display()))?;
    }
    Ok(Outcome::Fine)
}

async fn up(settings: Settings, output: Output) -> Result<Outcome, Failure> {
    let claim = Claim::take(&settings.data_dir)?;
    let mut signal = Signal::new()?;
    // A signal before everything is up drops what has started; the servers end with their handles.
    let mut dev = tokio::select! {
        started = Dev::start(settings, &claim) => started?,
        () = signal.received() => return Ok(Outcome::Fine),
    };
    let result = tokio::select! {
        announced = dev.announce(&claim, output) => announced,
        () = signal.received() => Ok(()),
    };
    let result = match result {
        Ok(()) => tokio::select! {
            error = dev.watch() => Err(error),
            () = signal.received() => Ok(()),
        },
        failed => failed,
    };
    tracing::info!("stops");
    dev.stop().await?;
    drop(claim);
    result.map(|()| Outcome::Fine)
}

struct Dev {
    servers: Servers,
    running: Running,
    state: DevState,
    // Stops when dropped.
    _stand_in: Option<StandIn>,
}

impl Dev {
    async fn start(mut settings: Settings, _claim: &Claim) -> Result<Self, Failure> {
        let gateway = bind(settings.listen, LISTEN_DEFAULT, "FANLEDGER_LISTEN").await?;
        let metrics = bind(settings.metrics_listen, METRICS_LISTEN_DEFAULT, "FANLEDGER_METRICS_LISTEN").await?;
        let servers = Servers::start(StartOptions {
            data_dir: settings.data_dir.clone(),
            bin_dir: default_bin_dir(),
            nats_authorization: Some(|passwords| permissions_config(&passwords.relay, &passwords.reader)),
        })
        .await?;
        let database_url = servers.database_url();
        database::migrate(&database_url).await?;
        let stand_in = match settings.stripe_api_base {
            None => Some(StandIn::start(STAND_IN_KEY).await?),
            Some(_) => None,
        };
        if let Some(stand_in) = &stand_in {
            settings.stripe_api_base = Some(stand_in.base_url());
            settings.stripe_api_key = Some(Secret::new(STAND_IN_KEY.to_owned()));
        }
        let state = DevState {
            pid: std::process::id(),
            superuser_url: database_url.clone(),
            nats_url: servers.nats_url(),
            nats_reader_url: servers.nats_url_for(NatsUser::Reader),
            gateway_url: format!("http://{}", address(&gateway)?),
            metrics_url: format!("http://{}", address(&metrics)?),
            stripe_api_base: settings.stripe_api_base.clone().unwrap_or_default(),
            stripe_api_key: stand_in.as_ref().map(|_| STAND_IN_KEY.to_owned()),
            stand_in: stand_in.is_some(),
            database_url,
        };
        settings.web_dir.get_or_insert_with(web_dir);
        settings.database_url = Some(Secret::new(state.database_url.clone()));
        settings.nats_url = Some(Secret::new(state.nats_url.clone()));
        settings.nats_reader_url = Some(Secret::new(state.nats_reader_url.clone()));
        let listeners = Listeners { gateway: Some(gateway), metrics: Some(metrics) };
        let running = roles::start(&settings, roles::ALL, listeners, Metrics::install()?).await?;
        Ok(Self { servers, running, state, _stand_in: stand_in })
    }

    /// Waits until it is ready, tells other commands, tells the user.
    async fn announce(&self, claim: &Claim, output: Output) -> Result<(), Failure> {
        wait_until_ready(&self.state.gateway_url).await?;
        claim.publish(&self.state)?;
        let DevState { gateway_url, metrics_url, .. } = &self.state;
        if output.is_json() {
            return Ok(output.json_line(&serde_json::json!({"gateway_url": gateway_url, "metrics_url": metrics_url}))?);
        }
        output.line("")?;
        output.line(format_args!("  Fanledger is up at   {gateway_url}"))?;
        output.line(format_args!("  Web app              {gateway_url}/"))?;
        output.line(format_args!("  API documentation    {gateway_url}/docs"))?;
        output.line(format_args!("  Metrics              {metrics_url}/metrics"))?;
        output.line("")?;
        output.line("  Sign in with a token, as finance for instance (in the web app, paste it):")?;
        output.line("    TOKEN=$(fanledger token mint --role finance)")?;
        output.line(format_args!(
            "    curl -H \"authorization: Bearer $TOKEN\" {gateway_url}/api/v1/ledger/trial-balance"
        ))?;
        output.line("  Or ask the command line, in another terminal:")?;
        output.line("    fanledger ledger trial-balance")?;
        output.line("")?;
        output.line("  Ctrl-C stops everything.")?;
        Ok(())
    }

    /// Starts again what was killed; returns when something cannot be.
    async fn watch(&mut self) -> Failure {
        loop {
            tokio::select! {
                part = self.running.ended() => return RoleError::Ended(part).into(),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if self.servers.postgres().has_died() {
                tracing::warn!("Postgres died; starting it again");
                if let Err(error) = self.servers.postgres().restart().await {
                    return error.into();
                }
            }
            if self.servers.nats().has_died() {
                tracing::warn!("NATS died; starting it again");
                if let Err(error) = self.servers.nats().restart().await {
                    return error.into();
                }
            }
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        self.running.stop().await;
        Ok(self.servers.stop().await?)
    }
}

/// Where `cargo xtask web` puts the web app, beside the programs that are fetched.
fn web_dir() -> PathBuf {
    let fetched = default_bin_dir();
    fetched.ancestors().nth(2).unwrap_or(Path::new(".")).join("web-yew").join("dist")
}

/// An address that was set must be had; the default gives way to any free port when it is taken.
async fn bind(set: Option<SocketAddr>, default: SocketAddr, setting: &'static str) -> Result<TcpListener, RoleError> {
    if let Some(address) = set {
        return roles::bind(address, setting).await;
    }
    match TcpListener::bind(default).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            let free = roles::bind(SocketAddr::new(default.ip(), 0), setting).await?;
            tracing::warn!("{default} is taken, so another port is used; set {setting} to choose");
            Ok(free)
        }
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr, DevError> {
    listener.local_addr().map_err(DevError::Address)
}

async fn wait_until_ready(gateway_url: &str) -> Result<(), DevError> {
    let deadline = Instant::now() + READY_PATIENCE;
    let url = format!("{gateway_url}/readyz");
    loop {
        let detail = match reqwest::get(&url).await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(DevError::NotReady { detail });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
