//! `fanledger journal prove` and `check-proof`: show one event to somebody who has no access to the journal.

use std::path::PathBuf;

use clap::Args;
use fanledger_journal::event::Position;
use fanledger_journal::export::EventRecord;
use fanledger_journal::merkle::checkpoint::{Checkpoint, TrustedKey, VerifierKey, origin_of};
use fanledger_journal::merkle::proof::{InclusionProof, ProofError, ProveError, Proved, prove};
use fanledger_journal::reader::Reader;
use serde::Serialize;

use super::verify::{not_relied_on, open, print_divergence, trusted_key};
use super::{JournalError, checkpoint, places};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::Settings;

/// Which event, and against what.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Its position.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    position: u64,
    /// Prove it against this checkpoint (a file, or a URL) instead of one that is signed now.
    #[arg(long, value_name = "CHECKPOINT", value_parser = places::parse)]
    checkpoint: Option<String>,
    /// The public key that the checkpoint must be signed by; by default that of FANLEDGER_CHECKPOINT_KEY.
    #[arg(long, requires = "checkpoint", value_name = "KEY")]
    public_key: Option<TrustedKey>,
    /// Write the proof to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Which proof, and whom to trust.
#[derive(Debug, Args)]
pub struct CheckProofArgs {
    /// The proof: a file, or a URL.
    #[arg(value_parser = places::parse)]
    file: String,
    /// The public key that its checkpoint must be signed by, as `fanledger journal checkpoint --public-key` prints it; by
    /// default that of FANLEDGER_CHECKPOINT_KEY.
    #[arg(long, value_name = "KEY")]
    public_key: Option<TrustedKey>,
    /// The journal that it must be of: the origin of its checkpoints.
    #[arg(long)]
    origin: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    ok: bool,
    position: u64,
    origin: &'a str,
    size: u64,
    root: String,
    proof: &'a str,
    kept_at: Option<String>,
}

#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    detail: Option<String>,
    origin: Option<&'a str>,
    size: Option<u64>,
    root: Option<String>,
    /// Whether the key is one that the user trusts; else it came with the proof.
    key_is_trusted: bool,
    public_key: Option<String>,
    event: Option<&'a EventRecord>,
}

pub(super) async fn run(
    args: &ProveArgs,
    reader: &Reader,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let head = reader.head().await?.position;
    let position = Position::new(args.position);
    if position > head {
        return Err(Failure::usage(JournalError::Beyond { position: args.position, head }));
    }
    let (note, checkpoint, key) = match &args.checkpoint {
        Some(place) => {
            let trusted = trusted_key(args.public_key.as_ref(), settings)?;
            let note = places::read_named(place).await?;
            let origin = origin_of(reader.head().await?.journal_id);
            match open(&note, &trusted, &origin) {
                Ok(checkpoint) => {
                    let key = trusted.named(&checkpoint.origin);
                    (note, checkpoint, key)
                }
                Err(error) => return not_relied_on(place, &error, output),
            }
        }
        None => {
            let signer = checkpoint::signer(reader, settings).await?;
            match checkpoint::sign(reader, &signer, Vec::new(), output).await? {
                Ok((checkpoint, note)) => (note, checkpoint, signer.verifier()),
                Err(report) => {
                    print_divergence(&report, output)?;
                    return Ok(Outcome::CheckFailed);
                }
            }
        }
    };
    let proof = match made(reader, position, (&note, &checkpoint, &key), output).await {
        Ok(proof) => proof,
        Err(error @ ProveError::Beyond { .. }) => return Err(Failure::usage(error)),
        Err(error @ (ProveError::Diverged { .. } | ProveError::Content { .. })) => {
            return not_relied_on("the journal", &error, output);
        }
        Err(error @ (ProveError::Page { .. } | ProveError::Connect(_))) => return Err(error.into()),
    };
    let proof = proof.to_string();
    if let Some(path) = &args.out {
        places::write_file(path, &proof)?;
    }
    let kept_at = args.out.as_ref().map(|path| path.display().to_string());
    if output.is_json() {
        output.json(&Written {
            ok: true,
            position: position.get(),
            origin: &checkpoint.origin,
            size: checkpoint.size,
            root: checkpoint.root.to_string(),
            proof: &proof,
            kept_at,
        })?;
    } else if let Some(kept_at) = kept_at {
        output.line(format_args!(
            "Position {position} is one of the first {} events of {}: the proof is in {kept_at}",
            checkpoint.size, checkpoint.origin
        ))?;
    } else {
        output.line(proof.trim_end())?;
    }
    Ok(Outcome::Fine)
}

async fn made(
    reader: &Reader,
    position: Position,
    checkpoint: (&str, &Checkpoint, &VerifierKey),
    output: Output,
) -> Result<InclusionProof, ProveError> {
    let bar = output.bar(checkpoint.1.size, "proving");
    let mut connection = reader.pool().acquire().await.map_err(ProveError::Connect)?;
    let proof =
        prove(&mut connection, position, checkpoint, &mut |progress| bar.set_position(progress.position.get())).await;
    bar.finish_and_clear();
    proof
}

/// Checks a proof with no database.
pub(super) async fn check(args: &CheckProofArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let text = places::read_named(&args.file).await?;
    let known = match &args.public_key {
        Some(key) => Some(key.clone()),
        None => settings.checkpoint_key_if_known()?.map(|seed| TrustedKey::of_seed(&seed)),
    };
    let key_is_trusted = known.is_some();
    let checked = InclusionProof::read(&text).and_then(|proof| {
        // Without a key of the user's own the one that came with the proof shows that it is whole, and no more.
        let key = known.or_else(|| proof.enclosed_key()).ok_or(ProofError::Form("it encloses no public key"))?;
        let proved = proof.check(&key, args.origin.as_deref())?;
        Ok((key.named(&proved.checkpoint.origin), proved))
    });
    match checked {
        Ok((key, proved)) => {
            print(&key, &proved, key_is_trusted, output)?;
            Ok(Outcome::Fine)
        }
        Err(error) => {
            if output.is_json() {
                let detail = Some(crate::failure::one_line(&error));
                output.json(&Checked {
                    ok: false,
                    detail,
                    origin: None,
                    size: None,
                    root: None,
                    key_is_trusted,
                    public_key: None,
                    event: None,
                })?;
                return Ok(Outcome::CheckFailed);
            }
            not_relied_on(&args.file, &error, output)
        }
    }
}

fn print(key: &VerifierKey, proved: &Proved, key_is_trusted: bool, output: Output) -> Result<(), Failure> {
    let Proved { event, checkpoint } = proved;
    if output.is_json() {
        output.json(&Checked {
            ok: true,
            detail: None,
            origin: Some(&checkpoint.origin),
            size: Some(checkpoint.size),
            root: Some(checkpoint.root.to_string()),
            key_is_trusted,
            public_key: Some(key.to_string()),
            event: Some(event),
        })?;
        return Ok(());
    }
    output.line(format_args!(
        "Proved: this event is at position {} of {}, one of its first {} events.",
        event.position, checkpoint.origin, checkpoint.size
    ))?;
    output.line(format_args!("signed by    {key}"))?;
    if !key_is_trusted {
        output.line(
            "             This key came with the proof. Compare it with the one that the journal's owner publishes,",
        )?;
        output.line("             or give that one: --public-key")?;
    }
    let recorded_at = chrono::DateTime::from_timestamp_micros(event.recorded_at_micros).unwrap_or_default();
    output.line(format_args!("recorded at  {}", recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))?;
    output.line(format_args!("stream       {}/{} #{}", event.aggregate_type, event.aggregate_id, event.sequence))?;
    output.line(format_args!("event        {} version {}", event.event_type, event.event_version))?;
    output.line(format_args!("event id     {}", event.event_id))?;
    output.line(format_args!("metadata     {}", event.metadata))?;
    output.line(format_args!("payload      {}", event.payload))?;
    Ok(())
}
