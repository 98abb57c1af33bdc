//! The programs of the web app's build and tests that come from npm: `wasm-opt`, and what drives and judges a browser.
//!
//! `web-yew/package-lock.json` names each with its digest, which npm checks.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::debian::output;
use crate::{Error, root};

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
    npm.stdin(Stdio::null());
    eprintln!("fetching the web app's tools from npm, once");
    fetch(npm).await?;
    std::fs::write(&stamp, digest).map_err(|source| Error::File { path: stamp, source })?;
    Ok(modules)
}

/// How npm says that it cannot reach its registry; any other failure is the lock file's, or of what it names.
const UNREACHABLE: [&str; 10] = [
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "EIDLETIMEOUT",
    "ENETUNREACH",
    "ENOTCACHED",
    "ENOTFOUND",
    "ERR_SOCKET_TIMEOUT",
    "ETIMEDOUT",
];

async fn fetch(mut npm: Command) -> Result<(), Error> {
    let what = "npm ci in web-yew";
    let ran = npm.stdout(Stdio::inherit()).stderr(Stdio::piped()).spawn();
    let failed = |source| Error::Run { program: what.to_owned(), source };
    let ended = ran.map_err(failed)?.wait_with_output().await.map_err(failed)?;
    let errors = String::from_utf8_lossy(&ended.stderr);
    eprint!("{errors}");
    match (ended.status.success(), unreachable(&errors)) {
        (true, _) => Ok(()),
        (false, Some(why)) => Err(Error::NoPackages { why: why.to_owned() }),
        (false, None) => Err(Error::Ended { what: what.to_owned(), code: ended.status.code().unwrap_or(1) }),
    }
}

/// Why npm could not reach its registry, if that is what it complains of: `npm error code ENOTFOUND`.
fn unreachable(errors: &str) -> Option<&str> {
    let code =
        errors.lines().find_map(|line| line.strip_prefix("npm error code ").or(line.strip_prefix("npm ERR! code ")));
    code.map(str::trim).filter(|code| UNREACHABLE.contains(code))
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
    node.arg(path).current_dir(home()).stdin(Stdio::null());
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_not_there_is_told_from_a_lock_file_that_is_wrong() {
        assert_eq!(unreachable("npm warn x\nnpm error code ENOTFOUND\nnpm error errno\n"), Some("ENOTFOUND"));
        assert_eq!(unreachable("npm ERR! code ECONNREFUSED\n"), Some("ECONNREFUSED"));
        for wrong in ["npm error code EINTEGRITY\n", "npm error code EUSAGE\nnpm error ENOTFOUND\n", ""] {
            assert_eq!(unreachable(wrong), None, "{wrong}");
        }
    }
}
