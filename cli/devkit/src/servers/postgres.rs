//! A private Postgres cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use sqlx::Connection;

use super::binaries::{PostgresBinaries, remove_dir};
use super::process::{self, Server};
use super::user::{RunAs, dying_with_us};
use super::{Error, create_dir, kept_secret, new_password, ports, write_secret};

/// The superuser of a private cluster.
const SUPERUSER: &str = "postgres";
/// Recovery after a kill reads the log since the last checkpoint; on a slow disk that takes a while.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// A fast shutdown writes one checkpoint.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What a crash may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync`, `full_page_writes` and `synchronous_commit` on: nothing.
    Full,
    /// `fsync` off: a power cut may cost everything, killing Postgres costs nothing. For databases of tests, which
    /// then clone in a tenth of the time.
    ProcessCrashOnly,
}

/// How to start a private cluster.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Its directory. Its port and its superuser's password are kept there too.
    pub data_dir: PathBuf,
    /// The programs.
    pub programs: PostgresBinaries,
    /// What a crash may cost.
    pub durability: Durability,
    /// Goes on when this process ends (the cluster that test processes share). Else it dies with us where the
    /// kernel can do that.
    pub outlive_parent: bool,
}

/// A running private cluster. Dropped without [`Postgres::stop`], it is told to stop unless it outlives us.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    run_as: RunAs,
    home: PathBuf,
    password: String,
    port: u16,
    server: Option<Server>,
}

impl Postgres {
    /// Makes the cluster if absent, stops what an earlier run left, starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; the message carries the end of its log.
    pub async fn start(options: PostgresOptions) -> Result<Self, Error> {
        create_dir(&options.data_dir)?;
        let run_as = RunAs::for_postgres().await?;
        let password = kept_secret(&options.data_dir.join("password"), new_password)?;
        let (home, options) = reachable(&run_as, options, &password).await?;
        let mut postgres = Self { options, run_as, home, password, port: 0, server: None };
        match std::fs::read_to_string(postgres.cluster().join("PG_VERSION")) {
            Ok(version) if version.trim() == postgres.options.programs.major.to_string() => {}
            Ok(version) => {
                return Err(Error::OtherVersion {
                    data_dir: postgres.cluster(),
                    made_by: version.trim().to_owned(),
                    programs: postgres.options.programs.major,
                });
            }
            Err(_) => postgres.init().await?,
        }
        postgres.launch().await?;
        Ok(postgres)
    }

    /// The cluster of these options if it is running and answers, whoever started it.
    ///
    /// # Errors
    /// When it cannot be told whom Postgres runs as, or where its data lies.
    pub async fn attach(options: PostgresOptions) -> Result<Option<Self>, Error> {
        create_dir(&options.data_dir)?;
        let run_as = RunAs::for_postgres().await?;
        let read = |name: &str| std::fs::read_to_string(options.data_dir.join(name)).ok();
        let (Some(password), Some(port)) = (read("password"), read("port").and_then(|text| text.trim().parse().ok()))
        else {
            return Ok(None);
        };
        let password = password.trim().to_owned();
        let (home, options) = reachable(&run_as, options, &password).await?;
        let postgres = Self { home, run_as, password, port, server: None, options };
        if postgres.postmaster_pid().is_none() {
            return Ok(None);
        }
        let connection = sqlx::PgConnection::connect(&postgres.url("postgres")).await;
        Ok(connection.is_ok().then_some(postgres))
    }

    /// Removes a cluster that is not running, wherever it lies; what an earlier run left running is stopped first.
    ///
    /// # Errors
    /// When it is held by another process, or cannot be removed.
    pub async fn remove(options: PostgresOptions) -> Result<(), Error> {
        create_dir(&options.data_dir)?;
        let run_as = RunAs::for_postgres().await?;
        let password = kept_secret(&options.data_dir.join("password"), new_password)?;
        let (home, options) = reachable(&run_as, options, &password).await?;
        let mut postgres = Self { home, run_as, password, port: 0, server: None, options };
        postgres.stop().await?;
        remove_dir(&postgres.home)?;
        remove_dir(&postgres.options.data_dir)
    }

    /// The superuser's URL of the database named `database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port it listens on, on 127.0.0.1. It stays the same over restarts unless another program took it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a database if it is absent.
    ///
    /// # Errors
    /// When Postgres cannot be asked or refuses.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let failed = |source| Error::Database { what: format!("create the database {name}"), source };
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.map_err(failed)?;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        if !there {
            let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            sqlx::query(&statement).execute(&mut connection).await.map_err(failed)?;
        }
        connection.close().await.map_err(failed)
    }

    /// Waits until it ends without being stopped; for ever if it is not ours to wait for.
    pub(super) async fn until_died(&mut self) {
        match &mut self.server {
            Some(server) => server.until_ended().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it has ended without being stopped.
    pub fn has_died(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.ended().is_some())
    }

    /// Kills it as kill -9 does, the whole of it; committed transactions survive. Fine if it is not running.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn kill(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.postmaster_pid() {
            process::end_process("postgres", pid, Signal::KILL, STOP_PATIENCE).await?;
        }
        if let Some(mut server) = self.server.take() {
            server.wait(STOP_PATIENCE).await;
        }
        Ok(())
    }

    /// Starts it again, on the same port if that is free. Fine if it is running.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        if self.server.as_ref().is_some_and(|server| server.ended().is_none()) {
            return Ok(());
        }
        self.launch().await
    }

    /// A fast shutdown: sessions are ended, what was committed is kept. Killed if it takes longer than 30 s.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.postmaster_pid() {
            process::end_process("postgres", pid, Signal::INT, STOP_PATIENCE).await?;
        }
        if let Some(mut server) = self.server.take() {
            server.wait(STOP_PATIENCE).await;
        }
        Ok(())
    }

    fn cluster(&self) -> PathBuf {
        self.home.join("cluster")
    }

    fn log(&self) -> PathBuf {
        self.options.data_dir.join("log")
    }

    /// The process id of the postmaster that runs over our cluster, if one does.
    ///
    /// The file may be left from a kill, and its number may since be another program's.
    fn postmaster_pid(&self) -> Option<i32> {
        let cluster = self.cluster();
        let text = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok().filter(|pid| process::is_alive(*pid))?;
        // A postmaster works in its data directory. Where /proc does not tell, believe the file.
        match std::fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(directory) => (Some(directory) == cluster.canonicalize().ok()).then_some(pid),
            Err(_) => Some(pid),
        }
    }

    /// `initdb` beside, then a rename, so that a kill leaves no half cluster.
    async fn init(&self) -> Result<(), Error> {
        let fresh = self.home.join("cluster.part");
        remove_dir(&fresh)?;
        let password_file = self.home.join("password.part");
        write_secret(&password_file, &self.password)?;
        self.run_as.give(&password_file)?;
        let (directory, password) = (fresh.display().to_string(), format!("--pwfile={}", password_file.display()));
        let mut arguments = vec!["-D", &directory, "-U", SUPERUSER, &password, "--auth=scram-sha-256"];
        arguments.extend(["--encoding=UTF8", "--locale=C", "--data-checksums"]);
        if self.options.durability == Durability::ProcessCrashOnly {
            arguments.push("--no-sync");
        }
        let initdb = self.run_as.command(&self.options.programs.program("initdb"), &arguments);
        let made = process::run(initdb).await;
        std::fs::remove_file(&password_file)
            .map_err(|source| Error::MoveOrRemove { path: password_file.clone(), source })?;
        made?;
        std::fs::rename(&fresh, self.cluster()).map_err(|source| Error::MoveOrRemove { path: fresh, source })
    }

    async fn launch(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.postmaster_pid() {
            tracing::info!(pid, "stopping a Postgres that an earlier run left behind");
            process::end_process("postgres", pid, Signal::INT, STOP_PATIENCE).await?;
        }
        // What remains of it now names no postmaster of ours; Postgres would refuse if another program, of the same
        // user, had been given the number.
        let _ = std::fs::remove_file(self.cluster().join("postmaster.pid"));
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            match self.try_launch(deadline).await {
                Ok(()) => return Ok(()),
                // A port taken between the check and the bind, or backends of a killed postmaster that have not
                // noticed yet and hold its shared memory: both pass.
                Err(error @ Error::NotStarted { .. })
                    if self.is_passing() && tokio::time::Instant::now() < deadline =>
                {
                    tracing::debug!(%error, "Postgres did not start; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn is_passing(&self) -> bool {
        let log = process::log_tail(&self.log());
        ["Address already in use", "pre-existing shared memory block", "could not bind"].iter().any(|p| log.contains(p))
    }

    async fn try_launch(&mut self, deadline: tokio::time::Instant) -> Result<(), Error> {
        self.port = ports::kept_port(&self.options.data_dir.join("port"))?;
        let fsync = match self.options.durability {
            Durability::Full => "fsync=on",
            Durability::ProcessCrashOnly => "fsync=off",
        };
        let (directory, port) = (self.cluster().display().to_string(), format!("port={}", self.port));
        let mut arguments = vec!["-D", directory.as_str()];
        let settings = [
            &port,
            fsync,
            "full_page_writes=on",
            "synchronous_commit=on",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=300",
            "timezone=UTC",
            "log_timezone=UTC",
            "shared_buffers=128MB",
            "max_wal_size=2GB",
            "log_min_messages=warning",
        ];
        for setting in settings {
            arguments.extend(["-c", setting]);
        }
        let mut command = self.run_as.command(&self.options.programs.program("postgres"), &arguments);
        if !self.options.outlive_parent {
            command = dying_with_us(command, "INT").await;
        }
        let server = Server::start("postgres", command, &self.log()).await?;
        let started = self.until_ready(&server, deadline).await;
        self.server = Some(server);
        started
    }

    async fn until_ready(&self, server: &Server, deadline: tokio::time::Instant) -> Result<(), Error> {
        loop {
            let attempt = tokio::time::timeout_at(deadline, sqlx::PgConnection::connect(&self.url("postgres"))).await;
            let reason = match attempt {
                Ok(Ok(connection)) => {
                    // Ready is ready, whatever the goodbye says.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let reason = match server.ended() {
                Some(status) => format!("it ended ({status})"),
                None if tokio::time::Instant::now() >= deadline => {
                    format!("it did not answer within {} s: {reason}", START_PATIENCE.as_secs())
                }
                None => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let log = self.log();
            return Err(Error::NotStarted { server: "Postgres", reason, log_tail: process::log_tail(&log), log });
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.options.outlive_parent || self.server.is_none() {
            return;
        }
        if let Some(pid) = self.postmaster_pid().and_then(rustix::process::Pid::from_raw) {
            // Best effort: nobody is left to tell.
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
    }
}

/// Where the cluster lies, and programs that the user can run.
///
/// Under a folder that only root may enter (a clone in root's home) the other user reaches neither; both then go
/// under /var/tmp. The name there is of the directory that was asked for, and of its password: when somebody removes
/// that directory to start anew, the cluster under /var/tmp is not the one of the new password, and is removed.
async fn reachable(
    run_as: &RunAs,
    mut options: PostgresOptions,
    password: &str,
) -> Result<(PathBuf, PostgresOptions), Error> {
    if !run_as.reaches(&options.programs.program("postgres")).await {
        let Some(root) = options.programs.fetched_root.clone() else {
            return Err(Error::NoUnprivilegedUser {
                reason: format!("the user it would run as cannot reach {}", options.programs.dir.display()),
            });
        };
        options.programs.dir = copied_programs(&root, &options.programs.dir).await?;
    }
    run_as.give(&options.data_dir)?;
    if run_as.reaches(&options.data_dir).await {
        return Ok((options.data_dir.clone(), options));
    }
    let of_directory = format!("fanledger-{}-", short_digest(options.data_dir.as_os_str().as_encoded_bytes()));
    let home = Path::new("/var/tmp").join(format!("{of_directory}{}", short_digest(password.as_bytes())));
    if !home.exists() {
        tracing::info!("Postgres's user cannot enter {}; using {}", options.data_dir.display(), home.display());
        remove_earlier(&of_directory);
    }
    create_own_dir(&home, run_as)?;
    run_as.give(&home)?;
    Ok((home, options))
}

fn short_digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..6])
}

/// Removes what a directory's earlier clusters left under /var/tmp, as far as nothing runs there. Best effort: it is
/// room that is gained, no more.
fn remove_earlier(prefix: &str) {
    for entry in std::fs::read_dir("/var/tmp").into_iter().flatten().flatten() {
        let path = entry.path();
        let earlier = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if earlier && !path.join("cluster").join("postmaster.pid").exists() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// /var/tmp is everybody's: a directory or link that somebody else put there is not used, least of all by root.
fn create_own_dir(path: &Path, run_as: &RunAs) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    create_dir(path)?;
    let metadata =
        std::fs::symlink_metadata(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw() || run_as.uid() == Some(metadata.uid());
    if metadata.is_dir() && ours {
        return Ok(());
    }
    let source = std::io::Error::other("somebody else made it");
    Err(Error::CreateDirectory { path: path.to_owned(), source })
}

/// A copy of the fetched programs under /var/tmp, one for all clusters; returns the directory that corresponds to
/// `dir`. It stays ours, so that the user who runs them cannot change them.
async fn copied_programs(root: &Path, dir: &Path) -> Result<PathBuf, Error> {
    let home =
        Path::new("/var/tmp").join(format!("fanledger-programs-{}", short_digest(root.as_os_str().as_encoded_bytes())));
    create_own_dir(&home, &RunAs::Ourselves)?;
    // Whatever our umask is, the other user must get in.
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(|source| Error::WriteFile { path: home.clone(), source })?;
    let copy = home.join(root.file_name().unwrap_or_default());
    let copied_dir = copy.join(dir.strip_prefix(root).unwrap_or(Path::new("")));
    let _copying = super::lock_waiting(&home.join("lock")).await?;
    if !copy.exists() {
        tracing::info!("Postgres's user cannot reach {}; copying its programs to {}", root.display(), copy.display());
        let part = home.join("part");
        remove_dir(&part)?;
        let mut cp = std::process::Command::new("cp");
        cp.arg("-Rp").arg(root).arg(&part);
        process::run(cp).await?;
        std::fs::rename(&part, &copy).map_err(|source| Error::MoveOrRemove { path: part, source })?;
    }
    Ok(copied_dir)
}
