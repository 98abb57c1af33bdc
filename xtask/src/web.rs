//! `cargo xtask web`: the web app, from `web-yew/` into `web-yew/dist/`, which the gateway serves.
//!
//! Compiled to wasm, bound to JavaScript by the very version of wasm-bindgen that the app is linked with, made small by
//! `wasm-opt`, and written under names that hold their content's digest, so that browsers may keep them for ever. Beside each
//! file lie its compressed forms: a server compresses nothing. When nothing has changed nothing is written.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasm_bindgen_cli_support::Bindgen;

use crate::wasm::{TARGET, Toolchain, target_dir};
use crate::{Error, npm, root, succeed};

/// What a first visit may cost: wasm and JavaScript as browsers fetch them over HTTPS, by brotli (`docs/adr/0045-web-app.md`).
const BUDGET_BYTES: usize = 250_000;
/// What today's browsers and today's compiler agree on; with all features Chromium refuses the module.
const WASM_OPT: &[&str] = &[
    "-Oz",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];
/// Raised when this file writes the same sources differently.
const PIPELINE: &str = "1";
/// Names what was built, so that nothing is built twice.
const STAMP: &str = ".built-from";

/// One file to be served.
struct Asset {
    /// With its digest: `app-0123456789abcdef.js`.
    name: String,
    content: Vec<u8>,
}

impl Asset {
    fn new(stem: &str, extension: &str, content: Vec<u8>) -> Self {
        let digest = hex::encode(Sha256::digest(&content));
        Self { name: format!("{stem}-{}.{extension}", &digest[..16]), content }
    }
}

/// Builds the app, or finds that it is built.
///
/// # Errors
/// When a tool is missing and cannot be had, the app does not compile, or it is larger than it may be.
pub async fn run() -> Result<(), Error> {
    let home = root().join("web-yew");
    let mut build = Toolchain::find().await?.cargo("build");
    build.args(["--profile", "web", "-p", "fanledger-web"]);
    succeed(build, "the web app's compilation").await?;
    let wasm = target_dir().join(TARGET).join("web").join("fanledger-web.wasm");

    let page = read_text(&home.join("index.html"))?;
    let icon = Asset::new("icon", "svg", read(&home.join("icon.svg"))?);
    let style = Asset::new("app", "css", styles(&home.join("styles"))?.into_bytes());
    let lock = read(&home.join("package-lock.json"))?;
    let parts = [read(&wasm)?, page.clone().into_bytes(), icon.content.clone(), style.content.clone(), lock];
    let built_from = stamp(&parts);
    let dist = home.join("dist");
    if std::fs::read_to_string(dist.join(STAMP)).is_ok_and(|written| written == built_from) {
        println!("web: up to date in {}", dist.display());
        return Ok(());
    }

    let (script, module) = bound(&wasm).await?;
    let fill = |page: String, (place, asset): (&str, &Asset)| page.replace(place, &format!("/assets/{}", asset.name));
    let places = [("{{app.js}}", &script), ("{{app.wasm}}", &module), ("{{app.css}}", &style), ("{{icon.svg}}", &icon)];
    let page = places.into_iter().fold(page, fill);

    let part = home.join("dist.part");
    remove(&part)?;
    let assets = part.join("assets");
    std::fs::create_dir_all(&assets).map_err(|source| Error::File { path: assets.clone(), source })?;
    let mut first_load = 0;
    for asset in [&script, &module, &style, &icon] {
        let sizes = write_compressed(&assets.join(&asset.name), &asset.content)?;
        println!("web: {:<28} {:>7} bytes, gzip {:>6}, brotli {:>6}", asset.name, sizes[0], sizes[1], sizes[2]);
        if [&script, &module].iter().any(|loaded| loaded.name == asset.name) {
            first_load += sizes[2];
        }
    }
    write_compressed(&part.join("index.html"), page.as_bytes())?;
    remove(&dist)?;
    std::fs::rename(&part, &dist).map_err(|source| Error::File { path: dist.clone(), source })?;
    println!("web: first load {first_load} of {BUDGET_BYTES} bytes (wasm and JavaScript, brotli)");
    if first_load > BUDGET_BYTES {
        // It is there to be looked at. With no stamp the next build says so again.
        return Err(Error::TooLarge { bytes: first_load, budget: BUDGET_BYTES });
    }
    write(&dist.join(STAMP), built_from.as_bytes())
}

fn stamp(parts: &[Vec<u8>]) -> String {
    let mut digest = Sha256::new();
    digest.update(PIPELINE);
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

/// The stylesheet: `index.css` with each file that it imports in the import's place.
fn styles(folder: &Path) -> Result<String, Error> {
    let mut joined = String::new();
    for line in read_text(&folder.join("index.css"))?.lines() {
        match line.strip_prefix("@import \"").and_then(|rest| rest.strip_suffix("\";")) {
            Some(name) => joined.push_str(&read_text(&folder.join(name))?),
            None => joined.push_str(line),
        }
        joined.push('\n');
    }
    Ok(joined)
}

/// The script that loads and starts the app, and the module that it loads.
async fn bound(wasm: &Path) -> Result<(Asset, Asset), Error> {
    let bindgen = |error: Box<dyn std::error::Error + Send + Sync>| Error::Bindgen { source: error };
    let mut output = Bindgen::new()
        .input_path(wasm)
        .out_name("app")
        .web(true)
        .and_then(|bound| bound.typescript(false).omit_default_module_path(true).generate_output())
        .map_err(|error| bindgen(error.into()))?;
    // Every crate that is bound is named there, most of them with none.
    let inline = output.snippets().iter().filter(|(_, scripts)| !scripts.is_empty()).map(|(name, _)| name);
    if let Some(name) = inline.chain(output.local_modules().keys()).next() {
        return Err(Error::Snippet { name: name.clone() });
    }
    let work = target_dir().join("bound");
    std::fs::create_dir_all(&work).map_err(|source| Error::File { path: work.clone(), source })?;
    let (raw, small) = (work.join("app.wasm"), work.join("app.small.wasm"));
    output.wasm_mut().emit_wasm_file(&raw).map_err(|error| bindgen(error.into()))?;

    let mut optimise = npm::script(&npm::installed().await?.join("binaryen/bin/wasm-opt"));
    optimise.args(WASM_OPT).arg(&raw).arg("-o").arg(&small);
    succeed(optimise, "wasm-opt").await?;
    let module = Asset::new("app", "wasm", read(&small)?);
    // No script stands in the page itself, so that its content security policy can forbid all such.
    let start = format!(
        "{}\nawait __wbg_init({{ module_or_path: new URL(\"{}\", import.meta.url) }});\n",
        output.js(),
        module.name
    );
    Ok((Asset::new("app", "js", start.into_bytes()), module))
}

/// Writes a file and its compressed forms; answers their sizes: plain, gzip, brotli.
fn write_compressed(path: &Path, content: &[u8]) -> Result<[usize; 3], Error> {
    let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", path.display()));
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(content).map_err(failed)?;
    let gzip = gzip.finish().map_err(failed)?;
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams::default();
    brotli::BrotliCompress(&mut &content[..], &mut brotli, &parameters).map_err(failed)?;
    write(path, content)?;
    write(&beside("gz"), &gzip)?;
    write(&beside("br"), &brotli)?;
    Ok([content.len(), gzip.len(), brotli.len()])
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    std::fs::write(path, content).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
