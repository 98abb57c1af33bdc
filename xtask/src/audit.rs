//! `cargo xtask audit`: the dependencies, by cargo-deny and `deny.toml`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{Error, cargo, root, succeed};

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";
/// The advisory database is a small git repository; where it is not reachable, waiting longer does not help.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);

/// Checks licences, bans and sources; then advisories, if their database can be reached.
///
/// # Errors
/// When a check finds something, or cargo-deny can be neither found nor built.
pub async fn run() -> Result<(), Error> {
    let program = installed().await?;
    check(&program, &["licenses", "bans", "sources"]).await?;
    if database_reachable(&program).await {
        check(&program, &["advisories"]).await
    } else {
        println!("advisories: SKIPPED, the advisory database cannot be reached from here");
        Ok(())
    }
}

fn deny(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn check(program: &PathBuf, what: &[&str]) -> Result<(), Error> {
    let mut command = deny(program);
    command.args(["--locked", "check", "--hide-inclusion-graph"]).args(what);
    succeed(command, &format!("the audit of {}", what.join(", "))).await
}

async fn database_reachable(program: &PathBuf) -> bool {
    let mut command = deny(program);
    command.args(["fetch", "db"]).stdout(Stdio::null()).stderr(Stdio::null());
    let fetched = tokio::time::timeout(FETCH_PATIENCE, command.status()).await;
    matches!(fetched, Ok(Ok(status)) if status.success())
}

/// On the path in the right version, or built once into `.fanledger/bin`: there is no current package of it to
/// fetch, and the build takes minutes.
async fn installed() -> Result<PathBuf, Error> {
    let home = root().join(".fanledger").join("bin").join(format!("cargo-deny-{VERSION}"));
    let kept = home.join("bin").join("cargo-deny");
    for program in [PathBuf::from("cargo-deny"), kept.clone()] {
        let probe = Command::new(&program).arg("--version").stdin(Stdio::null()).output().await;
        if probe.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
            return Ok(program);
        }
    }
    eprintln!("building cargo-deny {VERSION}, once, into {}", home.display());
    let mut install = Command::new(cargo());
    install
        .args(["install", "--quiet", "--locked", "--debug", "--root"])
        .arg(&home)
        .arg(format!("cargo-deny@{VERSION}"));
    // Where cargo would build it otherwise is this workspace's directory, if that is set by a variable.
    install.current_dir("/").env_remove("CARGO_TARGET_DIR");
    succeed(install, "the build of cargo-deny").await?;
    Ok(kept)
}
