//! `fanledger journal checkpoint`: sign what the journal is now, so that nobody can change it later unnoticed.

use std::path::{Path, PathBuf};

use clap::Args;
use fanledger_journal::database::Role;
use fanledger_journal::merkle::checkpoint::{Checkpoint, CheckpointSigner, TrustedKey};
use fanledger_journal::reader::Reader;
use fanledger_journal::verify::{Report, VerifyOptions, verify};
use serde::Serialize;

use super::places::{self, CheckpointStore, PlaceError};
use super::verify::{not_relied_on, print_divergence};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Settings};

/// Where to.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// Write it to this file instead of the object store. A checkpoint that is there is replaced only if the journal still
    /// extends it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the public key that others check this journal's checkpoints with, and sign nothing.
    #[arg(long, conflicts_with = "out")]
    public_key: bool,
}

#[derive(Serialize)]
struct Signed<'a> {
    ok: bool,
    origin: &'a str,
    size: u64,
    root: String,
    public_key: String,
    /// The signed text.
    checkpoint: &'a str,
    /// The file or URL where it is kept.
    kept_at: Option<String>,
}

#[derive(Serialize)]
struct PublicKey<'a> {
    origin: &'a str,
    public_key: String,
}

/// What signs this journal's checkpoints.
pub(super) async fn signer(reader: &Reader, settings: &Settings) -> Result<CheckpointSigner, Failure> {
    settings.require(&[Need::CheckpointKey])?;
    let journal_id = reader.head().await?.journal_id;
    Ok(CheckpointSigner::new(journal_id, &settings.checkpoint_key()?))
}

/// Verifies the journal, against earlier checkpoints too, and signs what it is. A journal that diverges is not signed: whoever
/// signs two states of which one does not extend the other has no word left to give.
pub(super) async fn sign(
    reader: &Reader,
    signer: &CheckpointSigner,
    against: Vec<Checkpoint>,
    output: Output,
) -> Result<Result<(Checkpoint, String), Report>, Failure> {
    let bar = output.bar(0, "verifying");
    let mut connection = super::connection(reader).await?;
    let options = VerifyOptions { against, ..VerifyOptions::default() };
    // The books may be wrong in a journal that nobody touched; what was written is signed nevertheless.
    let report = verify(&mut connection, options, None, &mut |progress| {
        bar.set_length(progress.last.get());
        bar.set_position(progress.position.get());
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    let Some(root) = report.root else { return Ok(Err(report)) };
    let size = report.events;
    let note = signer.sign(size, root);
    Ok(Ok((Checkpoint { origin: signer.verifier().name().to_owned(), size, root }, note)))
}

pub(super) async fn run(
    args: &CheckpointArgs,
    reader: &Reader,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    settings.require(&[Need::Database(Role::Operator), Need::CheckpointKey])?;
    let signer = signer(reader, settings).await?;
    let verifier = signer.verifier();
    if args.public_key {
        if output.is_json() {
            output.json(&PublicKey { origin: verifier.name(), public_key: verifier.to_string() })?;
        } else {
            output.line(&verifier)?;
        }
        return Ok(Outcome::Fine);
    }
    let place = Place::choose(args, reader, settings).await?;
    let mut against = Vec::new();
    if let Some((from, earlier)) = place.earlier().await? {
        match Checkpoint::open(&earlier, &TrustedKey::Named(verifier.clone())) {
            Ok(checkpoint) => against.push(checkpoint),
            Err(error) => return not_relied_on(&from, &error, output),
        }
    }
    let (checkpoint, note) = match sign(reader, &signer, against, output).await? {
        Ok(signed) => signed,
        Err(report) => {
            print_divergence(&report, output)?;
            return Ok(Outcome::CheckFailed);
        }
    };
    let kept_at = match place.keep(&checkpoint, &note).await {
        Ok(kept_at) => kept_at,
        Err(PlaceError::Taken { url }) => return not_relied_on(&url, &PlaceError::Taken { url: url.clone() }, output),
        Err(error) => return Err(error.into()),
    };
    if output.is_json() {
        output.json(&Signed {
            ok: true,
            origin: &checkpoint.origin,
            size: checkpoint.size,
            root: checkpoint.root.to_string(),
            public_key: verifier.to_string(),
            checkpoint: &note,
            kept_at,
        })?;
    } else if let Some(kept_at) = kept_at {
        output.line(format_args!("{} events, root {}: kept at {kept_at}", checkpoint.size, checkpoint.root))?;
    } else {
        // Bare, so that it can be redirected into a file.
        output.line(note.trim_end())?;
    }
    Ok(Outcome::Fine)
}

/// Where a checkpoint goes.
enum Place<'a> {
    File(&'a Path),
    Store(CheckpointStore),
    /// Standard output, and nowhere else.
    Nowhere,
}

impl<'a> Place<'a> {
    async fn choose(args: &'a CheckpointArgs, reader: &Reader, settings: &Settings) -> Result<Self, Failure> {
        Ok(match (&args.out, &settings.object_store_url) {
            (Some(path), _) => Self::File(path),
            (None, Some(url)) => Self::Store(CheckpointStore::open(url, reader.head().await?.journal_id)?),
            (None, None) => Self::Nowhere,
        })
    }

    /// The checkpoint that is there already, which the journal must extend.
    async fn earlier(&self) -> Result<Option<(String, String)>, Failure> {
        match self {
            Self::File(path) if path.exists() => {
                let place = path.display().to_string();
                let text = places::read(&place).await?;
                Ok(Some((place, text)))
            }
            Self::File(_) | Self::Nowhere => Ok(None),
            Self::Store(store) => Ok(store.newest().await?),
        }
    }

    async fn keep(&self, checkpoint: &Checkpoint, note: &str) -> Result<Option<String>, PlaceError> {
        match self {
            Self::File(path) => {
                places::write_file(path, note)?;
                Ok(Some(path.display().to_string()))
            }
            Self::Store(store) => store.put(checkpoint.size, note).await.map(Some),
            Self::Nowhere => Ok(None),
        }
    }
}
