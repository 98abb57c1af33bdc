//! `cargo xtask browser`: the web app's journeys, in a real Chromium against a real `fanledger dev` with the demo.
//!
//! The journeys are in `web-yew/tests/browser/`. Chromium is the one on the path, or Debian's, unpacked under `.fanledger/bin`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fanledger_devkit::servers::{Binaries, default_bin_dir};
use tokio::process::Command;

use crate::debian::{self, library_path, output};
use crate::{Error, cargo, npm, root, succeed, web};

/// Names a Chromium to be used instead of any other.
const CHOICE: &str = "FANLEDGER_CHROMIUM";
/// As distributions name it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// Where Debian's package has the program itself; its script in `usr/bin` looks only where it would be installed.
const UNPACKED: &str = "usr/lib/chromium/chromium";
/// So that a page has letters on a machine that has none.
const PACKAGES: &[&str] = &["chromium", "fonts-dejavu-core"];

/// A Chromium that runs.
struct Chromium {
    program: PathBuf,
    /// Where its libraries are, if they are not where the loader looks.
    libraries: OsString,
}

/// Builds the app and the program, and walks the journeys; `arguments` go to Node's test runner.
///
/// # Errors
/// When something that it needs cannot be had (exit code 3), or a journey fails.
pub async fn run(arguments: &[String]) -> Result<(), Error> {
    let chromium = Chromium::find().await?;
    web::run().await?;
    let mut build = Command::new(cargo());
    build.current_dir(root()).args(["build", "--locked", "--quiet", "-p", "fanledger"]);
    succeed(build, "the build of fanledger").await?;
    npm::installed().await?;
    let postgres = Binaries::locate(&default_bin_dir()).await.map_err(Error::Servers)?.postgres;

    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let mut journeys = Command::new("node");
    journeys.current_dir(root().join("web-yew")).stdin(std::process::Stdio::null());
    journeys.args(["--test", "--test-reporter=spec"]).args(arguments).arg("tests/browser/journeys.test.mjs");
    // Nothing of this machine's settings reaches the `dev` that is tested.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANLEDGER_")) {
        if !name.to_string_lossy().ends_with("_BIN") {
            journeys.env_remove(name);
        }
    }
    journeys.env("FANLEDGER_TEST_PROGRAM", target.join("debug").join("fanledger"));
    journeys.env("FANLEDGER_TEST_PSQL", postgres.program("psql"));
    journeys.env("FANLEDGER_TEST_CHROMIUM", &chromium.program);
    journeys.env("FANLEDGER_TEST_CHROMIUM_LIBRARIES", &chromium.libraries);
    succeed(journeys, "the journeys in the browser").await
}

impl Chromium {
    async fn find() -> Result<Self, Error> {
        let chosen = std::env::var_os(CHOICE).map(PathBuf::from);
        let installed: Vec<PathBuf> = chosen.clone().map_or_else(|| NAMES.map(PathBuf::from).to_vec(), |it| vec![it]);
        for program in installed {
            let found = Self { program, libraries: std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default() };
            if found.runs().await.is_ok() {
                return Ok(found);
            }
        }
        if let Some(program) = chosen {
            return Err(Error::Usage(format!("{}, which {CHOICE} names, does not run", program.display())));
        }
        let home = default_bin_dir().join("chromium");
        let unpacked = Self { program: home.join(UNPACKED), libraries: libraries(&home) };
        if unpacked.runs().await.is_err() {
            debian::fetch(&home, PACKAGES, &[]).await.map_err(|why| Error::NoChromium { why })?;
            unpacked.runs().await.map_err(|why| Error::NoChromium { why })?;
        }
        Ok(unpacked)
    }

    async fn runs(&self) -> Result<(), String> {
        let mut program = Command::new(&self.program);
        output(program.arg("--version").env("LD_LIBRARY_PATH", &self.libraries)).await.map(|_| ())
    }
}

/// PulseAudio's own library, which Chromium is linked with, lies one folder deeper than the others.
fn libraries(home: &Path) -> OsString {
    let own = library_path(home);
    let deeper = std::env::split_paths(&own).next().map(|first| first.join("pulseaudio"));
    std::env::join_paths(std::env::split_paths(&own).chain(deeper)).unwrap_or(own)
}
