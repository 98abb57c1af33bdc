//! Private servers for one run, on the disk of the data directory, and gone afterwards.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fanledger_devkit::servers::{self, NatsUser, Servers, StartOptions, default_bin_dir};
use fanledger_journal::database::{self, DatabaseError};
use fanledger_journal::nats::permissions_config;
use sqlx::{Connection as _, PgConnection};
use tokio::process::{Child, Command};

use crate::bench::report::Machine;
use crate::settings::Settings;

/// How long a server of either side may take to answer for the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Files of 16 MiB.
const WAL_FILES: usize = 120;
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Why there was nothing to measure on.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroundError {
    #[error("start private servers for the bench")]
    Servers(#[source] servers::Error),
    #[error("prepare the bench's database")]
    Database(#[from] DatabaseError),
    #[error("find a free port")]
    Port(#[source] std::io::Error),
    #[error("start {what}")]
    Spawn {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} ended while it started ({status}); its output is in {}", log.display())]
    Ended { what: &'static str, status: std::process::ExitStatus, log: PathBuf },
    #[error("{what} was not ready within {} s; its output is in {}", START_PATIENCE.as_secs(), log.display())]
    NotReady { what: &'static str, log: PathBuf },
    #[error("make the files of Postgres' write-ahead log")]
    WarmUp(#[source] sqlx::Error),
    #[error("ask Postgres for its version")]
    Version(#[source] sqlx::Error),
    #[error("read what a process holds of memory in {}", path.display())]
    Memory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("read or write in the bench's directory {}", dir.display())]
    Directory {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Postgres and NATS of this run.
pub(super) struct Ground {
    servers: tokio::sync::Mutex<Servers>,
    dir: PathBuf,
    superuser_url: String,
    pub machine: Machine,
}

/// The secret that both sides verify with.
pub(super) const WEBHOOK_SECRET: &str = "whsec_bench_bench_bench_bench_bench";
/// The key that both the gateway and the bench's own tokens are signed with.
pub(super) const JWT_KEY: &str = "a key of the bench, of no use anywhere else";

impl Ground {
    pub(super) async fn start(settings: &Settings) -> Result<Self, GroundError> {
        let dir = settings.data_dir.join("bench").join(std::process::id().to_string());
        let servers = Servers::start(StartOptions {
            data_dir: dir.clone(),
            bin_dir: default_bin_dir(),
            nats_authorization: Some(|passwords| permissions_config(&passwords.relay, &passwords.reader)),
        })
        .await
        .map_err(GroundError::Servers)?;
        let superuser_url = servers.database_url();
        database::migrate(&superuser_url).await?;
        warm_wal(&superuser_url).await.map_err(GroundError::WarmUp)?;
        let machine = Machine::look(&superuser_url, &dir).await?;
        Ok(Self { servers: tokio::sync::Mutex::new(servers), dir, superuser_url, machine })
    }

    /// The migrated database.
    pub(super) fn superuser_url(&self) -> &str {
        &self.superuser_url
    }

    pub(super) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// An empty database for a baseline.
    pub(super) async fn create_database(&self, name: &str) -> Result<String, GroundError> {
        let mut servers = self.servers.lock().await;
        let postgres = servers.postgres();
        postgres.create_database(name).await.map_err(GroundError::Servers)?;
        Ok(postgres.url(name))
    }

    /// All roles in a process of their own, as they are deployed.
    pub(super) async fn start_all(&self) -> Result<Served, GroundError> {
        let program = std::env::current_exe().map_err(|source| GroundError::Spawn { what: "fanledger all", source })?;
        let (listen, metrics) = (free_address()?, free_address()?);
        let servers = self.servers.lock().await;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANLEDGER_")) {
            command.env_remove(name);
        }
        command
            .arg("all")
            .env("FANLEDGER_DATA_DIR", self.dir.join("all"))
            .env("FANLEDGER_DATABASE_URL", &self.superuser_url)
            .env("FANLEDGER_NATS_URL", servers.nats_url())
            .env("FANLEDGER_NATS_READER_URL", servers.nats_url_for(NatsUser::Reader))
            .env("FANLEDGER_LISTEN", listen.to_string())
            .env("FANLEDGER_METRICS_LISTEN", metrics.to_string())
            .env("FANLEDGER_STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET)
            .env("FANLEDGER_JWT_KEY", JWT_KEY)
            .env("FANLEDGER_LOG", "warn");
        drop(servers);
        Served::spawn("fanledger all", command, listen, "/readyz", &self.dir).await
    }

    pub(super) async fn stop(self) -> Result<(), GroundError> {
        let stopped = self.servers.into_inner().stop().await.map_err(GroundError::Servers);
        let removed = std::fs::remove_dir_all(&self.dir)
            .map_err(|source| GroundError::Directory { dir: self.dir.clone(), source });
        stopped.and(removed)
    }
}

/// Has Postgres make the files of its write-ahead log beforehand, and keep them. One that has run for a while writes over its
/// old files; a new one makes each when it is needed, which stalls every commit for some 30 ms, for either side.
async fn warm_wal(superuser_url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(superuser_url).await?;
    for statement in
        ["ALTER SYSTEM SET min_wal_size = '2GB'", "SELECT pg_reload_conf()", "CREATE TABLE public.warm_up (n int)"]
    {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    for _ in 0..WAL_FILES {
        // A switch of a file in which nothing was written does nothing.
        sqlx::query("INSERT INTO public.warm_up VALUES (1)").execute(&mut connection).await?;
        sqlx::query("SELECT pg_switch_wal()").execute(&mut connection).await?;
    }
    for statement in ["DROP TABLE public.warm_up", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    connection.close().await
}

/// An address on loopback that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr, GroundError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(GroundError::Port)?;
    listener.local_addr().map_err(GroundError::Port)
}

/// A server under measurement; it is killed when this is dropped, and asked first by [`Served::stop`].
pub(super) struct Served {
    child: Child,
    pub address: SocketAddr,
    /// From its start to its first good answer.
    pub ready_after: Duration,
}

impl Served {
    /// Starts it and waits until `path` answers 200.
    pub(super) async fn spawn(
        what: &'static str,
        mut command: Command,
        address: SocketAddr,
        path: &str,
        dir: &std::path::Path,
    ) -> Result<Self, GroundError> {
        let log = dir.join(format!("{}.log", what.replace(' ', "-")));
        let file = std::fs::File::create(&log).map_err(|source| GroundError::Spawn { what, source })?;
        let errors = file.try_clone().map_err(|source| GroundError::Spawn { what, source })?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors).kill_on_drop(true);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|source| GroundError::Spawn { what, source })?;
        let deadline = begun + START_PATIENCE;
        let url = format!("http://{address}{path}");
        loop {
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(Self { child, address, ready_after: begun.elapsed() });
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(GroundError::Ended { what, status, log });
            }
            if Instant::now() > deadline {
                return Err(GroundError::NotReady { what, log });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it holds of memory now, in KiB, as Linux counts it.
    pub(super) fn resident_kib(&self) -> Result<u64, GroundError> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id().unwrap_or_default()));
        let status = std::fs::read_to_string(&path).map_err(|source| GroundError::Memory { path, source })?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default())
    }

    /// Asks it to end; kills it when it does not.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // A process that has ended already needs no telling.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}
