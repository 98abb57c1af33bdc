//! Build tooling behind `make`: what needs more than a line of shell.
//!
//! - [`tests`]: runs the tests against a Postgres that it starts and stops.
//! - [`contracts`]: writes the JSON Schemas of the events under `docs/events/`, or says which differ.
//! - [`audit`]: checks the dependencies' licences, sources and advisories with cargo-deny.
//! - [`browser`]: walks the web app's journeys in a real Chromium.
//! - [`web`]: builds the web app, by a compiler that `wasm` finds and tools that `npm` fetches.
//! - [`bookkeepers`]: fetches the programs that exports are checked with.
//! - [`reset`]: removes the private servers' data.
//!
//! The tidy tests over the repository's own rules (crate arrows, no floats in the domain) are in `tests/tidy.rs`.
//!
//! Not here: anything that the product needs. Nothing of ours depends on this crate.

pub mod audit;
pub mod bookkeepers;
pub mod browser;
pub mod contracts;
mod debian;
mod error;
mod npm;
pub mod reset;
pub mod tests;
mod wasm;
pub mod web;

use std::path::{Path, PathBuf};

pub use error::Error;

/// The repository's root.
pub fn root() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    path.canonicalize().unwrap_or(path)
}

/// The cargo that runs us, else the one on the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a program to its end; `what` says in its error what it was for.
pub(crate) async fn succeed(mut command: tokio::process::Command, what: &str) -> Result<(), Error> {
    let status = command.status().await.map_err(|source| Error::Run { program: what.to_owned(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Ended { what: what.to_owned(), code: status.code().unwrap_or(1) })
}
