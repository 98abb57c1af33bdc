//! The programs of the web app's build and tests that come from npm: `wasm-opt`, and what drives and judges a browser.
//!
//! `web-yew/package-lock.json` names each with its digest, which npm checks.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::debian::output;
use crate::{Error, root, succeed};

/// The oldest Node.js that all of them work with.
const NODE_MIN: u32 = 20;

fn home() -> PathBuf {
    root().join("web-yew")
}

/// Where they are, `web-yew/node_modules`; installed anew only when the lock file has changed.
///
/// # Errors
/// [`Error::NoNode`], or what npm complained of.
pub(crate) async fn installed() -> Result<PathBuf, Error> {
    node().await?;
    let modules = home().join("node_modules");
    let lock = home().join("package-lock.json");
    let content = std::fs::read(&lock).map_err(|source| Error::File { path: lock, source })?;
    let digest = hex::encode(Sha256::digest(&content));
    let stamp = modules.join(".installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|written| written == digest) {
        return Ok(modules);
    }
    let mut npm = Command::new("npm");
    // Of the packages none has anything to run at its installation that we want.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(home());
    npm.stdin(std::process::Stdio::null());
    eprintln!("fetching the web app's tools from npm, once");
    succeed(npm, "npm ci in web-yew").await?;
    std::fs::write(&stamp, digest).map_err(|source| Error::File { path: stamp, source })?;
    Ok(modules)
}

async fn node() -> Result<(), Error> {
    let missing = |why: String| Error::NoNode { needed: NODE_MIN, why };
    let printed = output(Command::new("node").arg("--version")).await.map_err(missing)?;
    let major = printed.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major < Some(NODE_MIN) {
        return Err(missing(format!("{} is older", printed.trim())));
    }
    output(Command::new("npm").arg("--version")).await.map(|_| ()).map_err(missing)
}

/// `node` with a script, in the app's folder.
pub(crate) fn script(path: &Path) -> Command {
    let mut node = Command::new("node");
    node.arg(path).current_dir(home()).stdin(std::process::Stdio::null());
    node
}
