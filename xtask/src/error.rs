//! What can go wrong in a task.

use std::path::PathBuf;

use fanledger_devkit::servers;

/// A task failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The servers for tests.
    #[error("the servers for the tests")]
    Servers(#[source] servers::Error),
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
         `apt-get install rustc-web rust-web-src lld-19`"
    )]
    NoWasm {
        /// The target.
        target: &'static str,
        /// What was tried, and how each ended.
        tried: String,
    },
    /// There is no Node.js, or one that is too old.
    #[error(
        "Node.js {needed} or newer with npm is needed ({why}); install it, https://nodejs.org or Debian's nodejs and npm"
    )]
    NoNode {
        /// The oldest that will do.
        needed: u32,
        /// What was found.
        why: String,
    },
    /// The registry of npm's packages cannot be reached.
    #[error("the web app's tools cannot be fetched from npm ({why})")]
    NoPackages {
        /// What npm complained of.
        why: String,
    },
    /// There is no Chromium, and none can be had.
    #[error(
        "there is no Chromium to test the web app in ({why}); install one, Debian's package is chromium, or name one in FANLEDGER_CHROMIUM"
    )]
    NoChromium {
        /// Why not.
        why: String,
    },
    /// The app cannot be bound to JavaScript.
    #[error("bind the web app to JavaScript")]
    Bindgen {
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A dependency of the app wants a script of its own beside it, which the build does not place.
    #[error(
        "the web app has come to need {name}: xtask/src/web.rs does not place such scripts; avoid the dependency or teach it"
    )]
    Snippet {
        /// Its name.
        name: String,
    },
    /// The app costs more than it may.
    #[error("the web app's first load is {bytes} bytes, above its {budget}: make it smaller")]
    TooLarge {
        /// What it is.
        bytes: usize,
        /// What it may be.
        budget: usize,
    },
    /// Programs that exports are checked with are not to be had.
    #[error("not here, and not to be fetched: {missing}; the tests that need them will fail")]
    NoBookkeepers {
        /// Which, and why.
        missing: String,
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
    /// What to exit with: the code of the program that failed, else 3 where something cannot be had here, which CI calls
    /// skipped, else 1: the code is at fault, and nobody may pass over that.
    pub fn exit_code(&self) -> u8 {
        match self {
            // A program's 3 is not ours.
            Self::Ended { code, .. } => u8::try_from(*code).ok().filter(|code| *code != 3).unwrap_or(1),
            Self::Stale { .. }
            | Self::TooLarge { .. }
            | Self::Run { .. }
            | Self::Bindgen { .. }
            | Self::Snippet { .. }
            | Self::Render { .. }
            | Self::File { .. } => 1,
            Self::Usage(_) => 2,
            Self::Servers(servers::Error::Missing { .. }) => 3,
            Self::Servers(_) => 1,
            Self::NoWasm { .. }
            | Self::NoNode { .. }
            | Self::NoPackages { .. }
            | Self::NoChromium { .. }
            | Self::NoBookkeepers { .. } => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io() -> std::io::Error {
        std::io::Error::from(std::io::ErrorKind::PermissionDenied)
    }

    /// CI calls whatever ends with 3 skipped.
    #[test]
    fn only_what_cannot_be_had_is_exit_code_3() {
        let text = || "x".to_owned();
        for error in [
            Error::NoNode { needed: 20, why: text() },
            Error::NoChromium { why: text() },
            Error::NoPackages { why: text() },
            Error::NoBookkeepers { missing: text() },
            Error::NoWasm { target: "wasm", tried: text() },
            Error::Servers(servers::Error::Missing { program: "x", tried: text(), remedy: "x" }),
        ] {
            assert_eq!(error.exit_code(), 3, "{error}");
        }
        for error in [
            Error::Bindgen { source: "x".into() },
            Error::Snippet { name: text() },
            Error::File { path: "x".into(), source: io() },
            Error::Run { program: text(), source: io() },
            Error::Servers(servers::Error::NoFreePort),
            Error::Ended { what: text(), code: 3 },
        ] {
            assert_eq!(error.exit_code(), 1, "{error}");
        }
        assert_eq!(Error::Ended { what: text(), code: 101 }.exit_code(), 101);
    }
}
