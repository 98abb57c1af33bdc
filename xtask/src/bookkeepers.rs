//! `cargo xtask bookkeepers`: the programs that exports are checked with. hledger comes from Debian, unpacked, unless it is on the
//! path; beancount and pyarrow come from PyPI. All lie under `.fanledger/bin` and are fetched once.

use std::path::Path;

use fanledger_devkit::bookkeepers::{
    HLEDGER, INSTALLED, PYTHON_PACKAGES, REQUIREMENTS, hledger, python, run as answer,
};
use fanledger_devkit::servers::default_bin_dir;
use tokio::process::Command;

use crate::{Error, debian};

/// Finds or fetches all of them.
///
/// # Errors
/// [`Error::NoBookkeepers`] says what is missing and why.
pub async fn run() -> Result<(), Error> {
    let bin_dir = default_bin_dir();
    let mut missing = Vec::new();
    if let Err(why) = have_hledger(&bin_dir).await {
        missing.push(format!("hledger ({why})"));
    }
    if let Err(why) = have_python_packages(&bin_dir).await {
        missing.push(format!("beancount and pyarrow ({why})"));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::NoBookkeepers { missing: missing.join("; ") }) }
}

async fn have_hledger(bin_dir: &Path) -> Result<(), String> {
    if hledger_runs().await.is_ok() {
        return Ok(());
    }
    // All of Debian's hledger but the program itself is documentation.
    debian::fetch(&bin_dir.join(HLEDGER), &["hledger"], &[("hledger", &["./usr/bin/hledger"])]).await?;
    hledger_runs().await
}

async fn hledger_runs() -> Result<(), String> {
    let mut version = hledger().map_err(|error| error.to_string())?;
    version.arg("--version");
    answer(version).await.map(drop).map_err(|error| error.to_string())
}

async fn have_python_packages(bin_dir: &Path) -> Result<(), String> {
    if python().is_ok() {
        return Ok(());
    }
    let home = bin_dir.join(PYTHON_PACKAGES);
    let work = home.with_extension(format!("{}.part", std::process::id()));
    let failed = |what: &str, path: &Path, error: std::io::Error| format!("{what} {}: {error}", path.display());
    std::fs::create_dir_all(&work).map_err(|error| failed("create", &work, error))?;
    eprintln!("fetching {} from PyPI, once", REQUIREMENTS.trim().replace('\n', " and "));
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    // Nothing of the machine's own Python is touched; one that is kept by its packages may think so.
    install.env("PIP_BREAK_SYSTEM_PACKAGES", "1");
    install.arg("--target").arg(&work).args(REQUIREMENTS.lines());
    let moved = match answer(install).await {
        Ok(_) => std::fs::write(work.join(INSTALLED), REQUIREMENTS)
            .and_then(|()| if home.exists() { std::fs::remove_dir_all(&home) } else { Ok(()) })
            .and_then(|()| std::fs::rename(&work, &home))
            .map_err(|error| failed("move it to", &home, error)),
        Err(error) => Err(error.to_string()),
    };
    if moved.is_err() {
        // What is left of it is in nobody's way.
        std::fs::remove_dir_all(&work).ok();
    }
    moved
}
