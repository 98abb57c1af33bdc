//! `cargo xtask wasm`: what the web app shares with the server compiles to wasm.
//!
//! The target needs a standard library. Where it comes from, in this order: the active toolchain has it; Debian's compiler is
//! installed, with the sources to build it from; rustup adds it; Debian's packages are fetched and unpacked under
//! `.fanledger/bin`, which needs no root and leaves the machine as it was.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fanledger_devkit::servers::default_bin_dir;
use tokio::process::Command;

use crate::{Error, cargo, root, succeed};

const TARGET: &str = "wasm32-unknown-unknown";
/// `debian` leaves out the active toolchain and rustup, so that CI does the same everywhere.
const CHOICE: &str = "FANLEDGER_WASM_TOOLCHAIN";
/// The domain, the wire types, and the app itself.
const PACKAGES: &[&str] = &["fanledger-domain", "fanledger-gateway-api", "fanledger-web"];
/// The compiler that Debian keeps current for its browsers, and the library's sources.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];

/// A compiler with a standard library for the target, or with what it takes to build one.
enum Toolchain {
    Active,
    /// Debian's, installed (`/`) or unpacked below a folder.
    Debian(PathBuf),
}

/// Checks that the crates compile for the target.
///
/// # Errors
/// [`Error::NoWasm`] when no toolchain can be had, [`Error::Ended`] when the crates do not compile.
pub async fn run() -> Result<(), Error> {
    let toolchain = toolchain().await?;
    let mut check = Command::new(cargo());
    check.current_dir(root()).args(["check", "--locked", "--target", TARGET]);
    // Apart from what is built for this machine, so that neither waits for the other.
    check.arg("--target-dir").arg(root().join("target").join("wasm"));
    check.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    if let Toolchain::Debian(at) = &toolchain {
        // A stable compiler builds the standard library only when it is told that it is bootstrapped.
        check.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        check.env("RUSTC", at.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", library_path(at));
    }
    succeed(check, &format!("the check for {TARGET}")).await
}

async fn toolchain() -> Result<Toolchain, Error> {
    let only_debian = std::env::var_os(CHOICE).is_some_and(|choice| choice == "debian");
    if !only_debian && active_has_target().await {
        return Ok(Toolchain::Active);
    }
    if debian_at(Path::new("/")).await.is_ok() {
        return Ok(Toolchain::Debian(PathBuf::from("/")));
    }
    let mut tried = Vec::new();
    if !only_debian {
        match output(Command::new("rustup").args(["target", "add", TARGET])).await {
            Ok(_) if active_has_target().await => return Ok(Toolchain::Active),
            Ok(_) => tried.push("rustup added it to another toolchain than the active one".to_owned()),
            Err(why) => tried.push(format!("rustup target add: {why}")),
        }
    }
    match fetched(&default_bin_dir().join("rust-web")).await {
        Ok(at) => Ok(Toolchain::Debian(at)),
        Err(why) => {
            tried.push(format!("Debian's packages: {why}"));
            Err(Error::NoWasm { target: TARGET, tried: tried.join("; ") })
        }
    }
}

async fn active_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    match output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])).await {
        Ok(directory) => Path::new(directory.trim()).is_dir(),
        Err(_) => false,
    }
}

/// Whether Debian's compiler below `at` runs, is new enough and has the sources; says why not.
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
    if sources.is_file() { Ok(()) } else { Err(format!("{} is missing", sources.display())) }
}

/// Where the compiler's own libraries are. What is unpacked is not where the loader looks; what is installed is.
fn library_path(at: &Path) -> OsString {
    let own = at.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let paths = std::iter::once(own).filter(|_| at != Path::new("/")).chain(std::env::split_paths(&before));
    // A path with a colon in it cannot be said, and is no path of Debian's.
    std::env::join_paths(paths).unwrap_or(before)
}

/// Debian's compiler under `home`: there from before, or fetched by apt, which checks signatures, and unpacked now.
async fn fetched(home: &Path) -> Result<PathBuf, String> {
    if debian_at(home).await.is_ok() {
        return Ok(home.to_owned());
    }
    let work = home.with_extension(format!("{}.part", std::process::id()));
    let unpacked = unpack(&work).await;
    let moved = match unpacked {
        Ok(content) => {
            remove(home)?;
            std::fs::rename(&content, home).map_err(|error| format!("move it to {}: {error}", home.display()))
        }
        Err(why) => Err(why),
    };
    remove(&work)?;
    moved.map(|()| home.to_owned())
}

async fn unpack(work: &Path) -> Result<PathBuf, String> {
    let (lists, cache, debs, content) =
        (work.join("lists"), work.join("cache"), work.join("debs"), work.join("content"));
    for directory in [lists.join("partial"), cache.join("archives/partial"), debs.clone(), content.clone()] {
        std::fs::create_dir_all(&directory).map_err(|error| format!("create {}: {error}", directory.display()))?;
    }
    // apt with lists of its own, since the machine's may be absent and are root's to fetch. Its sources and keys are the
    // machine's.
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        apt.arg("-o").arg(format!("Dir::Cache={}", cache.display()));
        apt.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "Acquire::http::Timeout=20"]);
        apt.arg("-qq").args(arguments).args(DEBIAN_PACKAGES.iter().filter(|_| arguments[0] == "install"));
        apt.current_dir(&debs);
        apt
    };
    eprintln!("fetching Debian's compiler and the sources of the standard library, once");
    // A source of somebody else's that cannot be reached is no obstacle: what matters is whether the packages are found.
    output(&mut apt(&["update"])).await.ok();
    let plan = output(&mut apt(&["install", "--simulate", "--no-install-recommends"])).await?;
    let names: Vec<&str> = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect();
    output(apt(&["download"]).args(names)).await?;
    let entries = std::fs::read_dir(&debs).map_err(|error| format!("list {}: {error}", debs.display()))?;
    for deb in entries.flatten().map(|entry| entry.path()) {
        let is_source = deb.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rust-web-src_"));
        // Of the sources the library is a fifth.
        let parts: &[&str] = if is_source { &["--wildcards", "./usr/src/*/library/*", "./usr/lib/*"] } else { &[] };
        let mut unpack = Command::new("sh");
        unpack.args(["-c", "dpkg-deb --fsys-tarfile \"$1\" | { shift; tar -x \"$@\"; }", "sh"]);
        unpack.arg(&deb).arg("-C").arg(&content).args(parts);
        output(&mut unpack).await?;
    }
    debian_at(&content).await?;
    Ok(content)
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a program prints; else why it did not run or what it complained of last.
async fn output(command: &mut Command) -> Result<String, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let ran = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{program}: {error}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&ran.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed and said nothing");
    Err(format!("{program}: {}", last.trim()))
}
