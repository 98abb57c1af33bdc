//! Build tooling behind `make`: what needs more than a line of shell.
//!
//! - [`tests`]: runs the tests against a Postgres that it starts and stops.
//! - [`contracts`]: writes the JSON Schemas of the events under `docs/events/`, or says which differ.
//! - [`audit`]: checks the dependencies' licences, sources and advisories with cargo-deny.
//! - [`reset`]: removes the private servers' data.
//!
//! The tidy tests over the repository's own rules (crate arrows, no floats in the domain) are in `tests/tidy.rs`.
//!
//! Not here: anything that the product needs. Nothing of ours depends on this crate.

pub mod audit;
pub mod contracts;
mod error;
pub mod reset;
pub mod tests;

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
