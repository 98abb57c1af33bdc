//! Debian's packages, fetched and unpacked under `.fanledger/bin`: that needs no root and leaves the machine as it was.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Where a program's own libraries are below `at`. What is unpacked is not where the loader looks; what is installed is.
pub(crate) fn library_path(at: &Path) -> OsString {
    let own = at.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let paths = std::iter::once(own).filter(|_| at != Path::new("/")).chain(std::env::split_paths(&before));
    // A path with a colon in it cannot be said, and is no path of Debian's.
    std::env::join_paths(paths).unwrap_or(before)
}

/// Fetches `packages` with what they need by apt, which checks signatures, and unpacks them at `home` in place of whatever is
/// there. Of a package named in `parts` only those parts are unpacked (patterns as tar takes them).
pub(crate) async fn fetch(home: &Path, packages: &[&str], parts: &[(&str, &[&str])]) -> Result<(), String> {
    let work = home.with_extension(format!("{}.part", std::process::id()));
    let moved = match unpack(&work, packages, parts).await {
        Ok(content) => remove(home).and_then(|()| {
            std::fs::rename(&content, home).map_err(|error| format!("move it to {}: {error}", home.display()))
        }),
        Err(why) => Err(why),
    };
    remove(&work)?;
    moved
}

async fn unpack(work: &Path, packages: &[&str], parts: &[(&str, &[&str])]) -> Result<PathBuf, String> {
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
        apt.arg("-qq").args(arguments).current_dir(&debs);
        apt
    };
    eprintln!("fetching Debian's {}, once", packages.join(", "));
    // A source of somebody else's that cannot be reached is no obstacle: what matters is whether the packages are found.
    output(&mut apt(&["update"])).await.ok();
    let plan = output(apt(&["install", "--simulate", "--no-install-recommends"]).args(packages)).await?;
    let names: Vec<&str> = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect();
    output(apt(&["download"]).args(names)).await?;
    let entries = std::fs::read_dir(&debs).map_err(|error| format!("list {}: {error}", debs.display()))?;
    for deb in entries.flatten().map(|entry| entry.path()) {
        let name = deb.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = parts.iter().find(|(package, _)| name.split('_').next() == Some(*package));
        let mut unpack = Command::new("sh");
        unpack.args(["-c", "dpkg-deb --fsys-tarfile \"$1\" | { shift; tar -x \"$@\"; }", "sh"]);
        unpack.arg(&deb).arg("-C").arg(&content);
        if let Some((_, patterns)) = wanted {
            unpack.arg("--wildcards").args(*patterns);
        }
        output(&mut unpack).await?;
    }
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
pub(crate) async fn output(command: &mut Command) -> Result<String, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let ran = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{program}: {error}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&ran.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed and said nothing");
    Err(format!("{program}: {}", last.trim()))
}
