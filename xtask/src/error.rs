//! What can go wrong in a task.

use std::path::PathBuf;

/// A task failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The servers for tests.
    #[error("the servers for the tests")]
    Servers(#[source] fanledger_devkit::servers::Error),
    /// A program cannot be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error, which it has printed itself.
    #[error("{what} failed (exit code {code})")]
    Ended {
        /// What it was for.
        what: String,
        /// Its exit code; 1 if a signal ended it.
        code: i32,
    },
    /// There is no standard library for the web app's target, and none can be had.
    #[error(
        "{target} has no standard library here ({tried}); run `rustup target add {target}`, or on Debian \
         `apt-get install rustc-web rust-web-src`"
    )]
    NoWasm {
        /// The target.
        target: &'static str,
        /// What was tried, and how each ended.
        tried: String,
    },
    /// A contract cannot be rendered.
    #[error("render the schema of {event_type}")]
    Render {
        /// The event.
        event_type: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A file cannot be read or written.
    #[error("read or write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The written contracts are not those of the code.
    #[error("docs/events differs from the code in {}; run make gen-contracts and look at the difference", .files.join(", "))]
    Stale {
        /// The files.
        files: Vec<String>,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What to exit with: the code of the program that failed, else 3 as everywhere here for "could not run".
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended { code, .. } => u8::try_from(*code).unwrap_or(1),
            Self::Stale { .. } => 1,
            Self::Usage(_) => 2,
            Self::Servers(_) | Self::Run { .. } | Self::NoWasm { .. } | Self::Render { .. } | Self::File { .. } => 3,
        }
    }
}
