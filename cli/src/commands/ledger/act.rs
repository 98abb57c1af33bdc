//! What finance does by hand.

use fanledger_commands::operations;
use fanledger_journal::database::Role;
use fanledger_journal::reader::Reader;

use super::{ConvergeArgs, ReleaseArgs};
use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::roles::Commands;
use crate::settings::{Need, Settings};

/// Who acts, where nobody signs in: whoever may use this command line with these settings.
const ACTOR: &str = "operator:cli";

async fn connect(settings: &Settings) -> Result<(Commands, Reader), Failure> {
    settings.require(&[Need::Database(Role::Command), Need::VaultKey])?;
    let commands = Commands::connect(settings).await?;
    let reader = Reader::new(commands.pool.clone());
    Ok((commands, reader))
}

pub(super) async fn converge(args: &ConvergeArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let (commands, reader) = connect(settings).await?;
    let bar = output.spinner("objects evaluated");
    let done =
        operations::converge(&commands.executor, &reader, ACTOR, args.dry_run, |done| bar.set_position(done.objects))
            .await;
    bar.finish_and_clear();
    commands.executor.writer().shutdown().await;
    let done = done?;
    if output.is_json() {
        output.json(&done)?;
    } else {
        let posted = if args.dry_run { "entries would be posted" } else { "entries posted" };
        output.line(format_args!(
            "{} objects evaluated: {} differ, {} {posted}.",
            done.objects,
            done.differing.len(),
            done.entries
        ))?;
        for object in &done.differing {
            output.line(format_args!("  differs: {object}"))?;
        }
        for (object, reason) in &done.refused {
            output.line(format_args!("  refused: {object}: {reason}"))?;
        }
    }
    // A dry run is a check: that something would be posted is a difference.
    let differs = args.dry_run && !done.differing.is_empty();
    Ok(if done.refused.is_empty() && !differs { Outcome::Fine } else { Outcome::CheckFailed })
}

pub(super) async fn release(args: &ReleaseArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    // What is released is payable at once, whatever date it is released through.
    if args.through.to_chrono() > clock::now() {
        return Err(Failure::usage(format!(
            "{} is not over: release through a day that is, or through an instant",
            args.through
        )));
    }
    let (commands, reader) = connect(settings).await?;
    let bar = output.spinner("charges looked at");
    let done =
        operations::release(&commands.executor, &reader, ACTOR, args.through, |done| bar.set_position(done.charges))
            .await;
    bar.finish_and_clear();
    commands.executor.writer().shutdown().await;
    let done = done?;
    if output.is_json() {
        output.json(&done)?;
    } else {
        output.line(format_args!(
            "{} charges looked at: {} released through {}, {} entries posted.",
            done.charges, done.released, args.through, done.entries
        ))?;
        for (charge, reason) in &done.refused {
            output.line(format_args!("  refused: {charge}: {reason}"))?;
        }
    }
    Ok(if done.refused.is_empty() { Outcome::Fine } else { Outcome::CheckFailed })
}
