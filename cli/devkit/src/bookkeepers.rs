//! The programs that others keep books with, hledger and beancount, and pyarrow, which reads Parquet: what they make of an export.
//!
//! `cargo xtask bookkeepers` puts them under `.fanledger/bin`; `cargo xtask test` does so by itself. hledger may also be on the
//! path.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::servers::default_bin_dir;

/// Where hledger is unpacked, below the bin directory.
pub const HLEDGER: &str = "hledger";
/// Where beancount and pyarrow are, below the bin directory.
pub const PYTHON_PACKAGES: &str = "bookkeepers";
/// The packages on PyPI.
pub const REQUIREMENTS: &str = "beancount==3.2.3\npyarrow==26.0.1\n";
/// Written last of all in [`PYTHON_PACKAGES`]: half an installation is begun anew.
pub const INSTALLED: &str = "requirements.txt";

/// Balances by account and currency, as decimal text.
pub type Balances = BTreeMap<(String, String), String>;

/// Why one of them has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BookkeeperError {
    /// It is not here.
    #[error("{program} is missing: run `cargo xtask bookkeepers`, which fetches it, or {remedy}")]
    Missing {
        /// Which.
        program: &'static str,
        /// How else to get it.
        remedy: &'static str,
    },
    /// It could not be started.
    #[error("run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It refuses the books.
    #[error("{program} refuses the books: {errors}")]
    Refused {
        /// Which.
        program: String,
        /// What it says.
        errors: String,
    },
    /// It printed something else.
    #[error("{program} answered what is not understood: {answer}")]
    Answer {
        /// Which.
        program: &'static str,
        /// What it printed.
        answer: String,
    },
}

/// hledger, fetched or on the path.
///
/// # Errors
/// When it is in neither place.
pub fn hledger() -> Result<Command, BookkeeperError> {
    let home = default_bin_dir().join(HLEDGER);
    let fetched = home.join("usr/bin/hledger");
    let mut command = if fetched.is_file() {
        let mut command = Command::new(fetched);
        command.env("LD_LIBRARY_PATH", library_path(&home));
        command
    } else {
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&on_path).map(|folder| folder.join("hledger"));
        let found = places.find(|program| program.is_file());
        Command::new(found.ok_or(BookkeeperError::Missing {
            program: "hledger",
            remedy: "install it (Debian: apt-get install hledger)",
        })?)
    };
    // It reads files in the locale's encoding, and our descriptions may hold any letter.
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Where the libraries are that were unpacked with a program.
fn library_path(home: &Path) -> OsString {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let own = [home.join("usr/lib").join(&triplet), home.join("lib").join(&triplet)];
    let paths: Vec<PathBuf> = own.into_iter().chain(std::env::split_paths(&before)).collect();
    std::env::join_paths(paths).unwrap_or(before)
}

/// Python with beancount and pyarrow.
///
/// # Errors
/// When they were not fetched.
pub fn python() -> Result<Command, BookkeeperError> {
    let home = default_bin_dir().join(PYTHON_PACKAGES);
    if std::fs::read_to_string(home.join(INSTALLED)).ok().as_deref() != Some(REQUIREMENTS) {
        return Err(BookkeeperError::Missing {
            program: "beancount or pyarrow",
            remedy: "make PyPI reachable for `python3 -m pip`",
        });
    }
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", home).env("PYTHONUTF8", "1").stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs a program that must end well, and answers what it printed.
///
/// # Errors
/// When it cannot be started, or refuses.
pub async fn run(mut command: Command) -> Result<String, BookkeeperError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let ran = command.output().await.map_err(|source| BookkeeperError::Run { program: program.clone(), source })?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Err(BookkeeperError::Refused { program, errors: format!("{} {}", text(&ran.stderr), text(&ran.stdout)) })
}

/// hledger's balances, after its strict checks. Those that are zero it does not list.
///
/// # Errors
/// When it is not here, or refuses the books.
pub async fn hledger_balances(journal: &Path) -> Result<Balances, BookkeeperError> {
    let mut balance = hledger()?;
    balance.arg("-f").arg(journal).args(["balance", "--strict", "--flat", "--no-total", "--layout=bare", "-O", "csv"]);
    let answer = run(balance).await?;
    // Every field stands in quotes, and no name or number of ours holds one.
    let mut balances = Balances::new();
    for line in answer.lines().skip(1) {
        let fields: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        let [account, currency, balance] = fields.as_slice() else {
            return Err(BookkeeperError::Answer { program: "hledger", answer: line.to_owned() });
        };
        balances.insert(((*account).to_owned(), (*currency).to_owned()), (*balance).to_owned());
    }
    Ok(balances)
}

/// beancount's sums, by our names of the accounts, of books that it loads without an error.
///
/// # Errors
/// When it is not here, or refuses the books.
pub async fn beancount_balances(ledger: &Path) -> Result<Balances, BookkeeperError> {
    read_by_python("beancount", ledger).await
}

/// `hledger check`, strict checks and the order of dates among them.
///
/// # Errors
/// As [`hledger_balances`].
pub async fn hledger_check(journal: &Path) -> Result<(), BookkeeperError> {
    let mut check = hledger()?;
    check.arg("-f").arg(journal).args(["check", "--strict", "ordereddates"]);
    run(check).await.map(drop)
}

/// `bean-check`.
///
/// # Errors
/// As [`beancount_balances`].
pub async fn bean_check(ledger: &Path) -> Result<(), BookkeeperError> {
    let mut check = python()?;
    check.args(["-m", "beancount.scripts.check", "--no-cache"]).arg(ledger);
    run(check).await.map(drop)
}

/// The sums of a CSV export's rows, by Python's reader.
///
/// # Errors
/// As [`beancount_balances`].
pub async fn csv_balances(rows: &Path) -> Result<Balances, BookkeeperError> {
    read_by_python("csv", rows).await
}

/// The sums of a Parquet export's rows, by pyarrow.
///
/// # Errors
/// As [`beancount_balances`].
pub async fn parquet_balances(rows: &Path) -> Result<Balances, BookkeeperError> {
    read_by_python("parquet", rows).await
}

async fn read_by_python(format: &str, file: &Path) -> Result<Balances, BookkeeperError> {
    let mut read = python()?;
    read.args(["-c", include_str!("bookkeepers.py"), format]).arg(file).env("BEANCOUNT_DISABLE_LOAD_CACHE", "1");
    let answer = run(read).await?;
    let rows: Vec<(String, String, String)> =
        serde_json::from_str(&answer).map_err(|_| BookkeeperError::Answer { program: "Python", answer })?;
    Ok(rows.into_iter().map(|(account, currency, balance)| ((account, currency), balance)).collect())
}
