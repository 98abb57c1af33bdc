//! What a running `fanledger dev` leaves in its data directory, so that other commands find its servers.
//!
//! The state counts only while `dev` holds its lock: after a kill -9 the file is still there, the lock is not.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where everything is, as `dev` started it.
#[derive(Clone, Serialize, Deserialize)]
pub struct DevState {
    /// Its process.
    pub pid: u32,
    /// For programs of our own: each takes its role's login from it.
    pub database_url: String,
    /// The superuser's.
    pub superuser_url: String,
    /// As the relay's user.
    pub nats_url: String,
    /// As a user that may only subscribe.
    pub nats_reader_url: String,
    /// `http://127.0.0.1:8080`.
    pub gateway_url: String,
    /// `http://127.0.0.1:9464`.
    pub metrics_url: String,
    /// Stripe's API, or the stand-in for it.
    pub stripe_api_base: String,
    /// The stand-in's key; `None` where the real API's key is the user's setting.
    pub stripe_api_key: Option<String>,
    /// Whether `stripe_api_base` is the stand-in, which can be taught balance transactions.
    pub stand_in: bool,
}

impl std::fmt::Debug for DevState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs hold passwords.
        f.debug_struct("DevState").field("gateway_url", &self.gateway_url).finish_non_exhaustive()
    }
}

/// Why the data directory could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another `dev` is up.
    #[error(
        "`fanledger dev` is already running with data directory {}: use it, stop it, or set FANLEDGER_DATA_DIR to another directory",
        data_dir.display()
    )]
    AlreadyRunning {
        /// Which.
        data_dir: PathBuf,
    },
    /// The lock could not be taken.
    #[error("lock the data directory {}; is it writable?", data_dir.display())]
    Lock {
        /// Which.
        data_dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state could not be written.
    #[error("write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The data directory, held by this process for as long as this lives. The state is removed when it ends.
#[derive(Debug)]
pub struct Claim {
    data_dir: PathBuf,
    // Released by the kernel whatever becomes of this process.
    _lock: File,
}

fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.lock")
}

fn state_path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.json")
}

impl DevState {
    /// The state of the `dev` that is running over `data_dir` now.
    pub fn of_running(data_dir: &Path) -> Option<Self> {
        let lock = File::open(lock_path(data_dir)).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let text = std::fs::read_to_string(state_path(data_dir)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl Claim {
    /// Claims `data_dir`, making it if absent.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn take(data_dir: &Path) -> Result<Self, StateError> {
        let lock_error = |source| StateError::Lock { data_dir: data_dir.to_owned(), source };
        std::fs::create_dir_all(data_dir).map_err(lock_error)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(lock_path(data_dir))
            .map_err(lock_error)?;
        // A reader that looks whether we run holds the lock for microseconds; a few tries tell it from another `dev`.
        for attempt in 0..5_u8 {
            match lock.try_lock() {
                Ok(()) => {
                    // What a killed `dev` left would otherwise be taken for ours until we publish our own.
                    forget(data_dir).map_err(lock_error)?;
                    return Ok(Self { data_dir: data_dir.to_owned(), _lock: lock });
                }
                Err(TryLockError::WouldBlock) if attempt < 4 => {
                    std::thread::sleep(std::time::Duration::from_millis(20))
                }
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => return Err(lock_error(source)),
            }
        }
        Err(StateError::AlreadyRunning { data_dir: data_dir.to_owned() })
    }

    /// Tells other commands where everything is. They see the old state or the new one, never half of one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, state: &DevState) -> Result<(), StateError> {
        let path = state_path(&self.data_dir);
        let draft = path.with_extension("json.draft");
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(serde_json::to_string_pretty(state).map_err(io::Error::other)?.as_bytes())?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|source| StateError::Write { path: path.clone(), source })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be removed is ignored by readers: the lock is gone.
        forget(&self.data_dir).ok();
    }
}

fn forget(data_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(state_path(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DevState {
        let text = |name: &str| name.to_owned();
        DevState {
            pid: std::process::id(),
            database_url: text("postgres://a:b@c/d"),
            superuser_url: text("postgres://a:b@c/d"),
            nats_url: text("nats://a"),
            nats_reader_url: text("nats://a"),
            gateway_url: text("http://127.0.0.1:1"),
            metrics_url: text("http://127.0.0.1:2"),
            stripe_api_base: text("http://127.0.0.1:3"),
            stripe_api_key: None,
            stand_in: true,
        }
    }

    #[test]
    fn the_state_counts_while_its_owner_runs() {
        let dir = std::env::temp_dir().join(format!("fanledger-state-{}", uuid::Uuid::now_v7()));
        let claim = Claim::take(&dir).unwrap();
        assert!(DevState::of_running(&dir).is_none(), "nothing was published yet");
        claim.publish(&state()).unwrap();
        assert_eq!(DevState::of_running(&dir).unwrap().gateway_url, "http://127.0.0.1:1");
        assert!(matches!(Claim::take(&dir), Err(StateError::AlreadyRunning { .. })));
        let left_behind = std::fs::read(state_path(&dir)).unwrap();
        drop(claim);
        assert!(DevState::of_running(&dir).is_none());
        // After a kill -9 the file is still there.
        std::fs::write(state_path(&dir), left_behind).unwrap();
        assert!(DevState::of_running(&dir).is_none());
        let _next = Claim::take(&dir).unwrap();
        assert!(DevState::of_running(&dir).is_none(), "the state of one `dev` is not another's");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
