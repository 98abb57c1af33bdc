//! The running system, for tests: the built program as processes of the operating system, over a Postgres, a NATS and a
//! stand-in for Stripe's API of the test's own.
//!
//! Read [`Site`] first, then [`Process`], [`load`] (webhooks, sent as Stripe sends them) and [`books`] (what must be equal);
//! [`volume`] is a disk whose power can be cut.

#![allow(dead_code, reason = "each test program uses its part of this")]

pub mod books;
pub mod load;
pub mod platform;
pub mod volume;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fanledger_cli::commands::seed::wait_until_read;
use fanledger_cli::output::Output;
use fanledger_cli::settings::Settings;
use fanledger_devkit::servers::{NatsUser, Servers, StartOptions};
use fanledger_devkit::stripe::StandIn;
use fanledger_journal::database::{self, Role};
use fanledger_journal::nats::permissions_config;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use volume::Volume;

/// What webhooks are signed with.
pub const SECRET: &str = "whsec_end_to_end_end_to_end";
/// How long anything may take on a busy machine before a test says that it does not come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take to stop when it is asked to.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);
const STAND_IN_KEY: &str = "sk_test_end_to_end";

/// A temporary directory, removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanledger-{name}-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Servers that were told to end just now may still write their last files.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && std::fs::remove_dir_all(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits for a condition, looking often.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process of ours, killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    /// What it has printed so far, on either stream.
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    pub fn spawn(name: impl Into<String>, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (sender, lines) = watch::channel(Vec::new());
        collect(child.stdout.take().unwrap(), sender.clone());
        collect(child.stderr.take().unwrap(), sender);
        Self { name: name.into(), child, lines }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().unwrap().cast_signed()
    }

    /// The first line that `wanted` finds something in, once it is there.
    pub async fn printed<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        let look = self.lines.wait_for(|lines| {
            found = lines.iter().find_map(|line| wanted(line));
            found.is_some()
        });
        // An error says that it closed both streams, or that time is up; either way it has not said it.
        let _ = tokio::time::timeout(PATIENCE, look).await.map(drop);
        found.unwrap_or_else(|| panic!("{} did not say what was waited for:\n{}", self.name, self.log()))
    }

    /// Everything that it printed.
    pub fn log(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Fails when it has ended by itself.
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{} ended by itself:\n{}", self.name, self.log());
    }

    /// kill -9.
    pub async fn kill(mut self) {
        self.assert_running();
        self.child.kill().await.unwrap();
    }

    /// kill -9, unless it has come to its end.
    pub async fn kill_if_running(mut self) {
        // An error says that it has ended meanwhile.
        self.child.kill().await.ok();
    }

    /// Waits until it has come to its end, which must be a good one.
    pub async fn ended(mut self) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(matches!(&status, Ok(Ok(status)) if status.success()), "{status:?}:\n{}", self.log());
    }

    /// Asks it to stop and says how it ended.
    pub async fn terminate(mut self) -> ExitStatus {
        self.assert_running();
        kill_process(Pid::from_raw(self.pid()).unwrap(), Signal::TERM).unwrap();
        match tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_elapsed) => panic!("{} did not stop within {STOP_PATIENCE:?}:\n{}", self.name, self.log()),
        }
    }
}

impl Drop for Process {
    /// What it said last, where the test fails while it runs: most often the reason.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.borrow();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("{}, the last {} lines that it printed:\n{}\n", self.name, last.len(), last.join("\n"));
        }
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, lines: watch::Sender<Vec<String>>) {
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.send_modify(|lines| lines.push(line));
        }
    });
}

/// How a command that was run to its end ended.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Its answer, which must be JSON, after this exit code.
    pub fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The built program, with nothing of this process's environment but what names Postgres's and NATS's programs.
pub fn program(environment: impl IntoIterator<Item = (&'static str, String)>, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanledger"));
    command.env_clear().current_dir(directory);
    for name in ["PATH", "HOME", "TMPDIR", "FANLEDGER_POSTGRES_BIN", "FANLEDGER_NATS_BIN"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in environment {
        command.env(format!("FANLEDGER_{name}"), value);
    }
    command
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Finished {
    let output = command.kill_on_drop(true).output().await.unwrap();
    Finished {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Everything around the roles, and the roles' settings.
pub struct Site {
    pub servers: Servers,
    pub stand_in: StandIn,
    settings: BTreeMap<&'static str, String>,
    /// What Postgres's files lie on, where a test wants to cut its power.
    pub volume: Option<Volume>,
    // Dropped last: the servers write into it.
    directory: Directory,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_in(Directory::new("e2e"), None).await
    }

    /// With Postgres's files on a disk of their own, whose power can be cut; or what this machine lacks for that.
    pub async fn start_on_a_volume() -> Result<Self, String> {
        let directory = Directory::new("e2e");
        let volume = Volume::mount(directory.path(), "postgres")?;
        Ok(Self::start_in(directory, Some(volume)).await)
    }

    async fn start_in(directory: Directory, volume: Option<Volume>) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut options = StartOptions::new(directory.path());
        options.nats_authorization = Some(|passwords| permissions_config(&passwords.relay, &passwords.reader));
        let servers = Servers::start(options).await.unwrap();
        let stand_in = StandIn::start(STAND_IN_KEY).await.unwrap();
        let settings = BTreeMap::from([
            ("DATABASE_URL", servers.database_url()),
            ("NATS_URL", servers.nats_url()),
            ("NATS_READER_URL", servers.nats_url_for(NatsUser::Reader)),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("STRIPE_API_BASE", stand_in.base_url()),
            ("STRIPE_API_KEY", STAND_IN_KEY.to_owned()),
            ("VAULT_KEY", "11".repeat(32)),
            ("JWT_KEY", "22".repeat(32)),
            ("DATA_DIR", directory.path().join("cli").to_str().unwrap().to_owned()),
            ("LOG", "warn,fanledger_cli=info,fanledger_journal=info,async_nats=error".to_owned()),
        ]);
        let site = Self { servers, stand_in, settings, volume, directory };
        site.run("migrate").await.json(0);
        site
    }

    /// The program with this site's settings.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = program(self.settings.clone(), self.directory.path());
        command.args(arguments);
        command
    }

    /// Runs a tool, with `--json`.
    pub async fn run(&self, line: &str) -> Finished {
        finish(self.command(line.split_whitespace().chain(["--json"]))).await
    }

    /// Starts a role.
    pub fn role(&self, role: &'static str) -> Process {
        Process::spawn(role, self.command([role]))
    }

    /// This site's settings, as its roles read them.
    pub fn settings(&self) -> Settings {
        Settings::parse("", self.settings.clone()).unwrap()
    }

    pub async fn pool(&self, role: Role) -> PgPool {
        database::connect(&self.settings().database_url_for(role).unwrap(), 4).await.unwrap()
    }

    pub async fn superuser(&self) -> PgPool {
        database::connect(&self.settings["DATABASE_URL"], 2).await.unwrap()
    }

    /// Waits until every runner has read everything from `position` on, and returns the head.
    pub async fn read(&self, position: u64) -> u64 {
        let pool = self.pool(Role::Operator).await;
        let head = wait_until_read(&pool, position, Output::new(true)).await.unwrap();
        pool.close().await;
        head
    }

    /// The journal's head.
    pub async fn head(&self) -> u64 {
        let pool = self.pool(Role::Operator).await;
        let head: i64 =
            sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM journal.events").fetch_one(&pool).await.unwrap();
        pool.close().await;
        head.cast_unsigned()
    }

    /// Another empty, migrated database in the same Postgres, served without NATS.
    pub async fn beside(&mut self, name: &str) -> (BTreeMap<&'static str, String>, Process) {
        self.servers.postgres().create_database(name).await.unwrap();
        let mut settings = self.settings.clone();
        settings.insert("DATABASE_URL", self.servers.postgres().url(name));
        // Nobody listens there: projections live on Postgres alone.
        settings.insert("NATS_URL", "nats://127.0.0.1:1".to_owned());
        settings.remove("NATS_READER_URL");
        let directory = self.directory.path();
        let mut migrate = program(settings.clone(), directory);
        migrate.arg("migrate");
        assert_eq!(finish(migrate).await.code, 0);
        let mut all = program(settings.clone(), directory);
        all.arg("all");
        (settings, Process::spawn("all", all))
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The gateway's address, once it serves.
pub async fn gateway_url(gateway: &mut Process) -> String {
    let address = |line: &str| {
        let (_, address) = line.split_once("serves HTTP address=")?;
        Some(format!("http://{address}"))
    };
    gateway.printed(address).await
}
