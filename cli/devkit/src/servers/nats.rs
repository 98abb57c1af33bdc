//! A private nats-server with JetStream.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::binaries::{NatsBinaries, remove_dir};
use super::process::{self, Server};
use super::user::dying_with_us;
use super::{Error, create_dir, kept_secret, new_password, ports, write_secret};

/// A large JetStream store is read on start.
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Eight times NATS's default, so that nearly every event travels whole; larger ones are read from Postgres.
const MAX_PAYLOAD: u32 = 8 * 1024 * 1024;

/// A user of NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatsUser {
    /// Publishes the journal.
    Relay,
    /// Subscribes to it.
    Reader,
}

impl NatsUser {
    /// The name that NATS knows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reader => "reader",
        }
    }
}

/// The users' passwords, from which the authorization block is rendered.
#[derive(Clone)]
pub struct NatsPasswords {
    /// The password of the user `relay`.
    pub relay: String,
    /// The password of the user `reader`.
    pub reader: String,
}

impl std::fmt::Debug for NatsPasswords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NatsPasswords(…)")
    }
}

/// How to start a private NATS.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Its directory. Its port and its users' passwords are kept there too.
    pub data_dir: PathBuf,
    /// The program.
    pub programs: NatsBinaries,
    /// Renders the `authorization { … }` block. `None`: no authorization.
    pub authorization: Option<fn(&NatsPasswords) -> String>,
}

/// A running private NATS. Dropped without [`Nats::stop`], it is killed: it holds nothing that is not elsewhere.
#[derive(Debug)]
pub struct Nats {
    options: NatsOptions,
    passwords: NatsPasswords,
    port: u16,
    server: Option<Server>,
}

impl Nats {
    /// Stops what an earlier run left, starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; the message carries the end of its log.
    pub async fn start(options: NatsOptions) -> Result<Self, Error> {
        create_dir(&options.data_dir)?;
        let passwords = NatsPasswords {
            relay: kept_secret(&options.data_dir.join("relay-password"), new_password)?,
            reader: kept_secret(&options.data_dir.join("reader-password"), new_password)?,
        };
        let mut nats = Self { options, passwords, port: 0, server: None };
        nats.launch().await?;
        Ok(nats)
    }

    /// Its URL, with the name and password of `user` where NATS has users.
    pub fn url_for(&self, user: NatsUser) -> String {
        let password = match user {
            NatsUser::Relay => &self.passwords.relay,
            NatsUser::Reader => &self.passwords.reader,
        };
        match self.options.authorization {
            Some(_) => format!("nats://{}:{password}@127.0.0.1:{}", user.name(), self.port),
            None => format!("nats://127.0.0.1:{}", self.port),
        }
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

    /// A clean stop, within 10 s or by a kill. Fine if it is not running.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop(&mut self) -> Result<(), Error> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::TERM, STOP_PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Kills it as kill -9 does. Fine if it is not running.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::KILL, STOP_PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Deletes all its streams' data; it is killed first if it is running.
    ///
    /// # Errors
    /// When the data cannot be removed.
    pub async fn wipe(&mut self) -> Result<(), Error> {
        self.kill().await?;
        remove_dir(&self.store())
    }

    /// Where JetStream keeps its files, for tests that damage them while it is stopped.
    pub fn store(&self) -> PathBuf {
        self.options.data_dir.join("jetstream")
    }

    /// Starts it again, on the same port if that is free. Fine if it is running.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        if self.server.as_ref().is_some_and(|server| server.ended().is_none()) {
            return Ok(());
        }
        self.launch().await
    }

    fn pid_file(&self) -> PathBuf {
        self.options.data_dir.join("pid")
    }

    fn config_file(&self) -> PathBuf {
        self.options.data_dir.join("nats.conf")
    }

    /// The process id of a nats-server that an earlier run left over our directory: the file alone could name
    /// another program by now, so its command line must name our configuration.
    fn orphan(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        if !process::is_alive(pid) {
            return None;
        }
        let config = self.config_file();
        let ours = match std::fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(line) => line.split(|byte| *byte == 0).any(|part| part == config.as_os_str().as_encoded_bytes()),
            Err(_) => false,
        };
        ours.then_some(pid)
    }

    async fn launch(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.orphan() {
            tracing::info!(pid, "stopping a nats-server that an earlier run left behind");
            process::end_process("nats-server", pid, Signal::TERM, STOP_PATIENCE).await?;
        }
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            match self.try_launch(deadline).await {
                Ok(()) => return Ok(()),
                // A port taken between the check and the bind passes.
                Err(Error::NotStarted { log_tail, .. })
                    if log_tail.contains("address already in use") && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_launch(&mut self, deadline: tokio::time::Instant) -> Result<(), Error> {
        self.port = ports::kept_port(&self.options.data_dir.join("port"))?;
        write_secret(&self.config_file(), &self.config())?;
        let log = self.options.data_dir.join("log");
        let mut command = std::process::Command::new(&self.options.programs.program);
        command.arg("-c").arg(self.config_file()).current_dir("/");
        let command = dying_with_us(command, "TERM").await;
        let server = Server::start("nats-server", command, &log).await?;
        let started = until_ready(self.port, &server, deadline).await;
        self.server = Some(server);
        started.map_err(|reason| Error::NotStarted {
            server: "nats-server",
            reason,
            log_tail: process::log_tail(&log),
            log,
        })
    }

    fn config(&self) -> String {
        let authorization = self.options.authorization.map(|render| render(&self.passwords)).unwrap_or_default();
        format!(
            "# Written at each start.\nserver_name: fanledger\nhost: 127.0.0.1\nport: {}\npid_file: {:?}\n\
             max_payload: {MAX_PAYLOAD}\njetstream {{\n  store_dir: {:?}\n  max_file_store: 16GB\n  \
             max_memory_store: 64MB\n}}\n{authorization}\n",
            self.port,
            self.pid_file(),
            self.store(),
        )
    }
}

impl Nats {
    /// Kills it without waiting for its end. Best effort: it is for those that are going away.
    pub(crate) fn kill_now(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.signal(Signal::KILL);
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// Ready when it greets: the first line of NATS's protocol is `INFO {…}`, sent once it serves clients.
async fn until_ready(port: u16, server: &Server, deadline: tokio::time::Instant) -> Result<(), String> {
    loop {
        let greeting = async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            std::io::Result::Ok(line)
        };
        match tokio::time::timeout_at(deadline, greeting).await {
            Ok(Ok(line)) if line.starts_with("INFO ") && server.ended().is_none() => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(format!("it did not answer within {} s", START_PATIENCE.as_secs())),
        }
        if let Some(status) = server.ended() {
            return Err(format!("it ended ({status})"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
