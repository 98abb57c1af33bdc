//! What can go wrong while private servers are found, fetched, started and stopped.

use std::path::PathBuf;
use std::process::ExitStatus;

/// A private server could not be found, fetched, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process runs its servers over this directory.
    #[error("another process runs its servers in {data_dir}; stop it, or set FANLEDGER_DATA_DIR to another directory")]
    InUse {
        /// The directory in use.
        data_dir: PathBuf,
    },
    /// A directory cannot be made.
    #[error("create the directory {path}")]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("write {path}")]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A directory cannot be removed or moved.
    #[error("move or remove {path}")]
    MoveOrRemove {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Ownership cannot be given to the user that Postgres runs as.
    #[error("give {path} to the user that Postgres runs as")]
    ChangeOwner {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A lock file cannot be taken.
    #[error("lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program cannot be started.
    #[error("run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A helper program ended with an error.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// Neither found nor fetched.
    #[error("{program} is missing. Tried: {tried}. To mend it: {remedy}")]
    Missing {
        /// What is missing, with its version.
        program: &'static str,
        /// What was tried, and why each did not do.
        tried: String,
        /// What a person can do.
        remedy: &'static str,
    },
    /// A fetched package is not the one that was checked.
    #[error("{file} has SHA-256 {actual}, expected {expected}; it was not unpacked. Try again, or set {variable}")]
    WrongHash {
        /// The fetched file.
        file: String,
        /// Its digest.
        actual: String,
        /// The digest that this version was checked with.
        expected: &'static str,
        /// The variable that names a local program instead.
        variable: &'static str,
    },
    /// Root cannot run Postgres, and there is no other user to run it as.
    #[error(
        "Postgres refuses to run as root, and {reason}. Run as an ordinary user, or install util-linux (setpriv) and \
         create a user named postgres"
    )]
    NoUnprivilegedUser {
        /// What is missing.
        reason: String,
    },
    /// The cluster was made by another major version of Postgres, which does not read its files.
    #[error(
        "{data_dir} was made by Postgres {made_by}, and the programs found are Postgres {programs}. Set \
         FANLEDGER_POSTGRES_BIN to the older ones, or remove the directory (make reset-db) to start empty"
    )]
    OtherVersion {
        /// The cluster.
        data_dir: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The version of the programs.
        programs: u32,
    },
    /// No free port was found.
    #[error("no free TCP port was found on 127.0.0.1")]
    NoFreePort,
    /// The server did not come up.
    #[error("{server} did not start: {reason}. The end of {log}:\n{log_tail}")]
    NotStarted {
        /// Which server.
        server: &'static str,
        /// It ended, or it did not answer in time.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The end of its log.
        log_tail: String,
    },
    /// A running server cannot be signalled.
    #[error("send a signal to {server} (process {pid})")]
    Signal {
        /// Which server.
        server: &'static str,
        /// Its process id.
        pid: i32,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A statement on the private Postgres failed.
    #[error("{what} on the private Postgres")]
    Database {
        /// What was being done.
        what: String,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The migrations cannot be read or applied.
    #[error("apply the migrations in {path}")]
    Migrate {
        /// The directory of migrations.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
