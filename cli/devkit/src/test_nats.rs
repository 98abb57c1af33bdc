//! A nats-server of a test's own.

use std::path::PathBuf;

use crate::servers::{self, Error, Nats, NatsBinaries, NatsOptions, NatsPasswords, NatsUser, with_causes};

/// A nats-server of a test's own, with its own files, so that the test can stop, wipe and restart it. It is killed
/// and its files are removed when this value is dropped.
#[derive(Debug)]
pub struct TestNats {
    nats: Nats,
    dir: PathBuf,
}

impl TestNats {
    /// Starts one that asks nobody for a password.
    ///
    /// # Panics
    /// When it does not come up: a test cannot go on without.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// Starts one with users; `authorization` renders the `authorization { … }` block from their passwords.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(authorization: fn(&NatsPasswords) -> String) -> Self {
        Self::with(Some(authorization)).await
    }

    async fn with(authorization: Option<fn(&NatsPasswords) -> String>) -> Self {
        let started = async {
            let programs = NatsBinaries::locate(&servers::default_bin_dir()).await?;
            let dir = std::env::temp_dir().join(format!("fanledger-test-nats-{:016x}", rand::random::<u64>()));
            let nats = Nats::start(NatsOptions { data_dir: dir.clone(), programs, authorization }).await?;
            Ok::<Self, Error>(Self { nats, dir })
        };
        accept(started.await)
    }

    /// Its URL; as the relay where it has users.
    pub fn url(&self) -> String {
        self.nats.url_for(NatsUser::Relay)
    }

    /// Its URL as `user`.
    pub fn urls_for(&self, user: NatsUser) -> String {
        self.nats.url_for(user)
    }

    /// Stops it cleanly; its data stays.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub async fn stop(&mut self) {
        accept(self.nats.stop().await);
    }

    /// Kills it as kill -9 does; its data stays.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub async fn kill(&mut self) {
        accept(self.nats.kill().await);
    }

    /// Deletes its data; killed first if it is running. [`TestNats::restart`] starts it empty.
    ///
    /// # Panics
    /// When the data cannot be removed.
    pub async fn wipe(&mut self) {
        accept(self.nats.wipe().await);
    }

    /// Starts it again on the same port. Fine if it is running.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) {
        accept(self.nats.restart().await);
    }

    /// Where JetStream keeps its files, for tests that damage them while it is stopped.
    pub fn store(&self) -> PathBuf {
        self.nats.store()
    }
}

impl Drop for TestNats {
    fn drop(&mut self) {
        self.nats.kill_now();
        // A file that NATS writes in its last moment may stay in the temporary directory; nobody relies on it.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn accept<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the test's NATS: {}", with_causes(&error)),
    }
}
