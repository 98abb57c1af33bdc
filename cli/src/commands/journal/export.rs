//! `fanledger journal export`: the journal as lines of JSON, for a verifier that has no database.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use fanledger_journal::export::export;
use fanledger_journal::reader::Reader;
use serde::Serialize;

use crate::draft::Draft;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Stdout};

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
    let Some(path) = &args.out else {
        exported(reader, &mut Stdout::new(), output).await?;
        return Ok(Outcome::Fine);
    };
    let mut draft = Draft::of(path)?;
    let events = exported(reader, draft.file(), output).await?;
    draft.keep()?;
    let kept_at = path.display().to_string();
    if output.is_json() {
        output.json(&Exported { events, kept_at })?;
    } else {
        output.line(format_args!("{events} events: {kept_at}"))?;
    }
    Ok(Outcome::Fine)
}

async fn exported(reader: &Reader, out: &mut (dyn Write + Send), output: Output) -> Result<u64, Failure> {
    let bar = output.bar(0, "exporting");
    let mut connection = super::connection(reader).await?;
    let mut buffered = BufWriter::with_capacity(1 << 20, out);
    let exported = export(&mut connection, &mut buffered, &mut |position, last| {
        bar.set_length(last.get());
        bar.set_position(position.get());
    })
    .await;
    bar.finish_and_clear();
    Ok(exported?)
}
