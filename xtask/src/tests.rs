//! `cargo xtask test`: the tests, against servers of their own.

use fanledger_devkit::TestCluster;
use fanledger_devkit::servers::{Binaries, default_bin_dir};
use tokio::process::Command;

use crate::{Error, bookkeepers, browser, cargo, root};

/// Starts the Postgres that the tests share, migrates its template, runs the tests and stops it again, also on Ctrl-C. A
/// cluster that somebody else runs (or that `FANLEDGER_TEST_POSTGRES` names) is used and left running. Of the whole workspace the
/// web app's journeys come after that.
///
/// # Errors
/// When the servers cannot be had, or a test fails.
pub async fn run(arguments: &[String]) -> Result<(), Error> {
    // Fetched here once, so that no test's time is spent on it, and a missing program is said once.
    Binaries::locate(&default_bin_dir()).await.map_err(Error::Servers)?;
    // Without them those tests fail that need them, and say so; the others need not wait for that.
    if let Err(error) = bookkeepers::run().await {
        eprintln!("{error}");
    }
    let cluster = TestCluster::shared().await.map_err(Error::Servers)?;
    let tested = run_on(&cluster, arguments).await;
    let stopped = cluster.stop().await.map_err(Error::Servers);
    tested.and(stopped)?;
    if arguments.is_empty() { in_browser().await } else { Ok(()) }
}

/// The web app's journeys. Where Chromium or the app's tools cannot be had nothing is wrong with the code.
async fn in_browser() -> Result<(), Error> {
    match browser::run(&[]).await {
        Err(error) if error.exit_code() == 3 => {
            eprintln!("the journeys in the browser: SKIPPED, {error}");
            Ok(())
        }
        walked => walked,
    }
}

async fn run_on(cluster: &TestCluster, arguments: &[String]) -> Result<(), Error> {
    cluster.sweep().await.map_err(Error::Servers)?;
    cluster.template().await.map_err(Error::Servers)?;
    let (show, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "--show" => (true, rest),
        _ => (false, arguments),
    };
    let mut command = Command::new(cargo());
    command.current_dir(root()).env("FANLEDGER_TEST_POSTGRES", cluster.superuser_url());
    let nextest = has_nextest().await;
    if nextest {
        command.args(["nextest", "run"]);
        if std::env::var_os("CI").is_some() && std::env::var_os("NEXTEST_PROFILE").is_none() {
            command.args(["--profile", "ci"]);
        }
    } else {
        eprintln!("cargo-nextest is not installed; using cargo test (slower, same tests)");
        command.arg("test");
    }
    if arguments.is_empty() {
        command.arg("--workspace");
    }
    command.args(arguments);
    if show {
        command.args(if nextest { &["--no-capture"][..] } else { &["--", "--nocapture"] });
    }
    let mut child = command.spawn().map_err(|source| Error::Run { program: "cargo".to_owned(), source })?;
    let ended = tokio::select! {
        ended = child.wait() => ended,
        // The terminal sends it to cargo as well, which then ends by itself.
        _ = tokio::signal::ctrl_c() => child.wait().await,
    };
    let status = ended.map_err(|source| Error::Run { program: "cargo".to_owned(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Ended { what: "the tests".to_owned(), code: status.code().unwrap_or(1) })
}

async fn has_nextest() -> bool {
    let mut probe = Command::new(cargo());
    probe.args(["nextest", "--version"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    probe.status().await.is_ok_and(|status| status.success())
}
