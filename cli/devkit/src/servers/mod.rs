//! Private Postgres and NATS: found or fetched, started on free ports, stopped cleanly, recovered after a kill.
//!
//! [`Servers`] is what `fanledger dev` runs. [`Postgres`] and [`Nats`] are its halves, which tests use alone so
//! that they can kill, wipe and restart one of them.

mod binaries;
mod error;
mod nats;
mod ports;
mod postgres;
mod process;
mod user;

use std::path::{Path, PathBuf};

pub use binaries::{Binaries, NatsBinaries, PostgresBinaries, default_bin_dir};
pub use error::Error;
pub(crate) use error::with_causes;
pub use nats::{Nats, NatsOptions, NatsPasswords, NatsUser};
pub use postgres::{Durability, Postgres, PostgresOptions};

/// The database that `fanledger dev` uses in its private Postgres.
const DATABASE: &str = "fanledger";

/// How to start a private Postgres and NATS.
pub struct StartOptions {
    /// Where the servers' data lies, `.fanledger` for `fanledger dev`. Created if absent.
    pub data_dir: PathBuf,
    /// Where fetched programs lie, shared by all data directories; see [`default_bin_dir`].
    pub bin_dir: PathBuf,
    /// Renders NATS's `authorization { … }` block from the users' passwords. `None`: no authorization.
    pub nats_authorization: Option<fn(&NatsPasswords) -> String>,
}

impl StartOptions {
    /// Data in `data_dir`, programs where everything else looks for them, NATS without authorization.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), bin_dir: default_bin_dir(), nats_authorization: None }
    }
}

/// A running private Postgres and NATS. They stop when [`Servers::stop`] is called, and are told to by the kernel
/// when this process dies (Linux; elsewhere the next start over the same directory stops what was left behind).
pub struct Servers {
    postgres: Postgres,
    nats: Nats,
    // Held for as long as the servers run: a second `Servers` over the same directory is refused, not confused.
    _lock: std::fs::File,
}

impl Servers {
    /// Finds or fetches the programs, starts both servers, waits until they answer, makes the database if absent.
    ///
    /// # Errors
    /// When a program is missing and cannot be fetched, when the directory is in use, or when a server does not
    /// come up; the message says what to do.
    pub async fn start(options: StartOptions) -> Result<Self, Error> {
        let StartOptions { data_dir, bin_dir, nats_authorization } = options;
        let data_dir = absolute(&data_dir)?;
        create_dir(&data_dir)?;
        let lock = lock_exclusively(&data_dir.join("servers.lock"))?
            .ok_or_else(|| Error::InUse { data_dir: data_dir.clone() })?;
        let (postgres_programs, nats_programs) =
            tokio::try_join!(PostgresBinaries::locate(&bin_dir), NatsBinaries::locate(&bin_dir))?;
        let postgres = Postgres::start(PostgresOptions {
            data_dir: data_dir.join("postgres"),
            programs: postgres_programs,
            durability: Durability::Full,
            outlive_parent: false,
        });
        let nats = Nats::start(NatsOptions {
            data_dir: data_dir.join("nats"),
            programs: nats_programs,
            authorization: nats_authorization,
        });
        let (postgres, nats) = tokio::try_join!(postgres, nats)?;
        postgres.create_database(DATABASE).await?;
        Ok(Self { postgres, nats, _lock: lock })
    }

    /// Removes the data of both from a directory in which nothing runs; fetched programs and keys stay.
    ///
    /// # Errors
    /// When servers run there, or the data cannot be removed.
    pub async fn remove_data(options: StartOptions) -> Result<(), Error> {
        let data_dir = absolute(&options.data_dir)?;
        create_dir(&data_dir)?;
        let _lock = lock_exclusively(&data_dir.join("servers.lock"))?
            .ok_or_else(|| Error::InUse { data_dir: data_dir.clone() })?;
        let programs = PostgresBinaries::locate(&options.bin_dir).await?;
        Postgres::remove(PostgresOptions {
            data_dir: data_dir.join("postgres"),
            programs,
            durability: Durability::Full,
            outlive_parent: false,
        })
        .await?;
        binaries::remove_dir(&data_dir.join("nats"))
    }

    /// The superuser's URL of the database `fanledger`.
    pub fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// NATS's URL, logged in as the relay where NATS has users.
    pub fn nats_url(&self) -> String {
        self.nats.url_for(NatsUser::Relay)
    }

    /// NATS's URL, logged in as `user` where NATS has users.
    pub fn nats_url_for(&self, user: NatsUser) -> String {
        self.nats.url_for(user)
    }

    /// The Postgres half.
    pub fn postgres(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// The NATS half.
    pub fn nats(&mut self) -> &mut Nats {
        &mut self.nats
    }

    /// Restarts whichever server dies, on its port, for as long as this is awaited. Returns only when one cannot be
    /// started again.
    pub async fn keep_running(&mut self) -> Error {
        loop {
            let restarted = tokio::select! {
                () = self.postgres.until_died() => {
                    tracing::warn!("Postgres died; starting it again");
                    self.postgres.restart().await
                }
                () = self.nats.until_died() => {
                    tracing::warn!("NATS died; starting it again");
                    self.nats.restart().await
                }
            };
            if let Err(error) = restarted {
                return error;
            }
        }
    }

    /// Stops both, NATS first. Bounded: what has not stopped in time is killed, which costs the next start a
    /// recovery and loses nothing that was committed.
    ///
    /// # Errors
    /// When a server cannot be signalled.
    pub async fn stop(mut self) -> Result<(), Error> {
        let nats = self.nats.stop().await;
        let postgres = self.postgres.stop().await;
        nats.and(postgres)
    }
}

/// Takes the lock file for as long as the returned file lives; `None` when another process holds it.
pub(crate) fn lock_exclusively(path: &Path) -> Result<Option<std::fs::File>, Error> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::Lock { path: path.to_owned(), source }),
    }
}

/// Takes a share of the lock file, waiting while somebody holds it alone, which is while they stop what it guards.
pub(crate) fn lock_shared(path: &Path) -> Result<std::fs::File, Error> {
    let file = open_lock(path)?;
    file.lock_shared().map_err(|source| Error::Lock { path: path.to_owned(), source })?;
    Ok(file)
}

/// Takes the lock file, waiting for whoever holds it.
pub(crate) async fn lock_waiting(path: &Path) -> Result<std::fs::File, Error> {
    let file = open_lock(path)?;
    let owned = path.to_owned();
    // A blocking wait in a thread of its own: there is no asynchronous flock, and polling would be slower.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let locked = file.lock().map(|()| file);
        // The receiver is gone only if the caller was cancelled; dropping the file then releases the lock.
        let _ = sender.send(locked);
    });
    match receiver.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(source)) => Err(Error::Lock { path: owned, source }),
        Err(_) => Err(Error::Lock { path: owned, source: std::io::Error::other("the locking thread ended") }),
    }
}

fn open_lock(path: &Path) -> Result<std::fs::File, Error> {
    std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| Error::Lock { path: path.to_owned(), source })
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::CreateDirectory { path: path.to_owned(), source })
}

pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::CreateDirectory { path: path.to_owned(), source })
}

pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

/// A password that nobody has to type: 24 random bytes in hex, so that it needs no escaping in a URL.
pub(crate) fn new_password() -> String {
    hex::encode(rand::random::<[u8; 24]>())
}

/// Reads the secret at `path`, or makes one there with `make`.
pub(crate) fn kept_secret(path: &Path, make: impl FnOnce() -> String) -> Result<String, Error> {
    match std::fs::read_to_string(path) {
        Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().to_owned()),
        // Broken off before it was written, so nobody has it.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // A new one would lock out whoever has the old one, for good.
        Err(source) => return Err(Error::ReadFile { path: path.to_owned(), source }),
    }
    let secret = make();
    write_secret(path, &secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_cannot_be_read_is_not_replaced() {
        let path = std::env::temp_dir().join(format!("fanledger-secret-{}", rand::random::<u64>()));
        let kept = kept_secret(&path, new_password).unwrap();
        assert_eq!(kept_secret(&path, new_password).unwrap(), kept);
        // Damaged; the servers behind it still want the one that was there.
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(kept_secret(&path, new_password), Err(Error::ReadFile { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"\xff\xfe");
        std::fs::remove_file(path).unwrap();
    }
}
