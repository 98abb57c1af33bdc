//! A compiler for the web app's target.
//!
//! The target needs a standard library and a linker. Where they come from, in this order: the active toolchain has them;
//! Debian's compiler is installed, with the sources to build the library from, or was unpacked here before; rustup adds the
//! target; Debian's packages are fetched and unpacked under `.fanledger/bin`.

use std::path::{Path, PathBuf};

use fanledger_devkit::servers::default_bin_dir;
use tokio::process::Command;

use crate::debian::{self, library_path, output};
use crate::{Error, cargo, root};

/// What the web app is compiled for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// `debian` leaves out the active toolchain and rustup, so that CI does the same everywhere.
const CHOICE: &str = "FANLEDGER_WASM_TOOLCHAIN";
/// The compiler that Debian keeps current for its browsers, the library's sources, and a linker.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "lld-19"];
/// Of the sources the library is a fifth.
const DEBIAN_PARTS: &[(&str, &[&str])] = &[("rust-web-src", &["./usr/src/*/library/*", "./usr/lib/*"])];
/// The linker's name in that package.
const DEBIAN_LINKER: &str = "usr/bin/wasm-ld-19";

/// A compiler with a standard library for the target, or with what it takes to build one.
pub(crate) enum Toolchain {
    Active,
    /// Debian's, installed (`/`) or unpacked below a folder.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds one, or fetches one.
    ///
    /// # Errors
    /// [`Error::NoWasm`] says what was tried.
    pub(crate) async fn find() -> Result<Self, Error> {
        let only_debian = std::env::var_os(CHOICE).is_some_and(|choice| choice == "debian");
        if !only_debian && active_has_target().await {
            return Ok(Self::Active);
        }
        let unpacked = default_bin_dir().join("rust-web");
        for at in [Path::new("/"), &unpacked] {
            if debian_at(at).await.is_ok() {
                return Ok(Self::Debian(at.to_owned()));
            }
        }
        let mut tried = Vec::new();
        if !only_debian {
            match output(Command::new("rustup").args(["target", "add", TARGET])).await {
                Ok(_) if active_has_target().await => return Ok(Self::Active),
                Ok(_) => tried.push("rustup added it to another toolchain than the active one".to_owned()),
                Err(why) => tried.push(format!("rustup target add: {why}")),
            }
        }
        let fetched = match debian::fetch(&unpacked, DEBIAN_PACKAGES, DEBIAN_PARTS).await {
            Ok(()) => debian_at(&unpacked).await,
            Err(why) => Err(why),
        };
        match fetched {
            Ok(()) => Ok(Self::Debian(unpacked)),
            Err(why) => {
                tried.push(format!("Debian's packages: {why}"));
                Err(Error::NoWasm { target: TARGET, tried: tried.join("; ") })
            }
        }
    }

    /// `cargo <subcommand>` for the target, into a target directory apart from what is built for this machine, so that
    /// neither waits for the other.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(root()).args([subcommand, "--locked", "--target", TARGET]);
        command.arg("--target-dir").arg(target_dir());
        if let Self::Debian(at) = self {
            // A stable compiler builds the standard library only when it is told that it is bootstrapped.
            command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
            command.env("RUSTC", at.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", library_path(at));
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", at.join(DEBIAN_LINKER));
        }
        command
    }
}

/// Where the target's files are built.
pub(crate) fn target_dir() -> PathBuf {
    root().join("target").join("wasm")
}

async fn active_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    match output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])).await {
        Ok(directory) => Path::new(directory.trim()).is_dir(),
        Err(_) => false,
    }
}

/// Whether Debian's compiler below `at` runs, is new enough, and has the sources and the linker; says why not.
async fn debian_at(at: &Path) -> Result<(), String> {
    let mut rustc = Command::new(at.join("usr/bin/rustc"));
    let printed = output(rustc.arg("--version").env("LD_LIBRARY_PATH", library_path(at))).await?;
    let number = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    let (found, needed) = (printed.split(' ').nth(1).and_then(number), number(env!("CARGO_PKG_RUST_VERSION")));
    if found < needed {
        return Err(format!("{} is older than {}", printed.trim(), env!("CARGO_PKG_RUST_VERSION")));
    }
    let sources = at.join("usr/lib/rustlib/src/rust/library/Cargo.lock");
    if !sources.is_file() {
        return Err(format!("{} is missing", sources.display()));
    }
    let mut linker = Command::new(at.join(DEBIAN_LINKER));
    output(linker.arg("--version").env("LD_LIBRARY_PATH", library_path(at))).await.map(|_| ())
}
