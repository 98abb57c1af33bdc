//! `fanledger journal export`: the journal as lines of JSON, for a verifier that has no database.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use fanledger_journal::export::{ExportError, export};
use fanledger_journal::reader::Reader;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// Where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Exported {
    events: u64,
    kept_at: String,
}

pub(super) async fn run(args: &ExportArgs, reader: &Reader, output: Output) -> Result<Outcome, Failure> {
    let mut out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(std::fs::File::create(path).map_err(ExportError::Write)?),
        None => Box::new(io::stdout()),
    };
    let bar = output.bar(0, "exporting");
    let mut connection = super::connection(reader).await?;
    let mut buffered = BufWriter::with_capacity(1 << 20, &mut out);
    let exported = export(&mut connection, &mut buffered, &mut |position, last| {
        bar.set_length(last.get());
        bar.set_position(position.get());
    })
    .await;
    bar.finish_and_clear();
    let events = exported?;
    drop(buffered);
    if let Some(path) = &args.out {
        let kept_at = path.display().to_string();
        if output.is_json() {
            output.json(&Exported { events, kept_at })?;
        } else {
            output.line(format_args!("{events} events: {kept_at}"))?;
        }
    }
    Ok(Outcome::Fine)
}
