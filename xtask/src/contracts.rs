//! `cargo xtask gen-contracts`: the journal's public contract, a JSON Schema for each event's payload.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{Error, root};

fn directory() -> PathBuf {
    root().join("docs").join("events")
}

/// The files as the code would have them: name and content.
fn rendered() -> Result<BTreeMap<String, String>, Error> {
    let mut files = BTreeMap::new();
    for (event_type, version, schema) in fanledger_domain::event::schemas() {
        let mut text = serde_json::to_string_pretty(&schema)
            .map_err(|source| Error::Render { event_type: event_type.to_owned(), source })?;
        text.push('\n');
        files.insert(format!("{event_type}.v{version}.json"), text);
    }
    Ok(files)
}

/// Writes the schemas. A file of an earlier version stays: such events are in journals for ever.
///
/// # Errors
/// When a file cannot be written.
pub fn write() -> Result<(), Error> {
    let files = rendered()?;
    let directory = directory();
    std::fs::create_dir_all(&directory).map_err(|source| Error::File { path: directory.clone(), source })?;
    for (name, text) in &files {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    }
    println!("wrote {} schemas to docs/events", files.len());
    Ok(())
}

/// Says which written schemas are not those of the code.
///
/// # Errors
/// [`Error::Stale`] names them.
pub fn check() -> Result<(), Error> {
    let directory = directory();
    let stale: Vec<String> = rendered()?
        .into_iter()
        .filter(|(name, text)| std::fs::read_to_string(directory.join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name)
        .collect();
    if stale.is_empty() { Ok(()) } else { Err(Error::Stale { files: stale }) }
}
