//! What makes, proves, switches and drops generations, from the command line: the same functions that a projector runs for the
//! operator API, here in this process.

use std::io::{self, BufRead, IsTerminal, Write};

use fanledger_journal::database::{self, Role};
use fanledger_journal::generation::{self, Progress, Purpose, RebuildError, RebuildOptions, Rebuilt};
use fanledger_journal::runner::{Projection, RunnerContext};
use sqlx::PgPool;
use tokio::sync::watch;

use super::{ProjectionsError, RebuildArgs, Runners, VerifyArgs, Which, find, show};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Settings};

/// For the pages that are read ahead, and what runs beside.
const CONNECTIONS: u32 = 4;

async fn context(settings: &Settings) -> Result<RunnerContext, Failure> {
    settings.require(&[Need::Database(Role::Projector)])?;
    let pool = database::connect(&settings.database_url_for(Role::Projector)?, CONNECTIONS).await?;
    Ok(RunnerContext::without_feed(pool))
}

pub(super) async fn rebuild(args: &RebuildArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let options = RebuildOptions { confirmed: args.yes, read_age: args.read_age(), ..RebuildOptions::default() };
    each(&args.which, &options, settings, output).await
}

pub(super) async fn verify(args: &VerifyArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let options = RebuildOptions { purpose: Purpose::Verify, ..RebuildOptions::default() };
    each(&args.which, &options, settings, output).await
}

/// One after the other. A difference in one does not keep the others from being looked at; what could not run ends it.
async fn each(
    which: &Which,
    options: &RebuildOptions,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let context = context(settings).await?;
    let mut runners = Runners::of(settings).await?;
    let mut worst = Outcome::Fine;
    for projection in runners.choose(which)? {
        match one(&context, projection.as_mut(), options, output).await? {
            Outcome::Fine => {}
            Outcome::CheckFailed => worst = Outcome::CheckFailed,
        }
    }
    runners.close().await;
    Ok(worst)
}

async fn one(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    options: &RebuildOptions,
    output: Output,
) -> Result<Outcome, Failure> {
    let name = projection.name();
    let mut built = watched(context, projection, options, output).await?;
    if let Err(error @ RebuildError::Unconfirmed { .. }) = &built
        && !output.is_json()
        && io::stdin().is_terminal()
    {
        show::refused(name, error, output)?;
        if !agrees(name)? {
            return Ok(Outcome::CheckFailed);
        }
        // What was built waits, so this only catches up, proves once more and switches.
        let agreed = RebuildOptions { confirmed: true, ..options.clone() };
        built = watched(context, projection, &agreed, output).await?;
    }
    match built {
        Ok(rebuilt) => {
            show::rebuilt(name, projection.version(), options.purpose, &rebuilt, output)?;
            Ok(if rebuilt.halt.is_none() { Outcome::Fine } else { Outcome::CheckFailed })
        }
        Err(error) if error.proof().is_some() => {
            show::refused(name, &error, output)?;
            Ok(Outcome::CheckFailed)
        }
        Err(source) => Err(ProjectionsError::Rebuild { name: name.to_owned(), source }.into()),
    }
}

/// Builds it and shows how far it is meanwhile.
async fn watched(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    options: &RebuildOptions,
    output: Output,
) -> Result<Result<Rebuilt, RebuildError>, Failure> {
    let name = projection.name();
    let (sender, progress) = watch::channel(Progress::default());
    let options = RebuildOptions { progress: Some(sender), ..options.clone() };
    tokio::select! {
        built = generation::rebuild(context, projection, &options) => Ok(built),
        // Ends only when nothing more can be printed.
        error = show::progress(name, progress, output) => Err(error.into()),
    }
}

fn agrees(name: &str) -> Result<bool, Failure> {
    let ask = || {
        let mut stderr = io::stderr().lock();
        write!(stderr, "Switch {name} to it? [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    };
    Ok(ask().map_err(ProjectionsError::Ask)?)
}

pub(super) async fn rollback(name: &str, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let context = context(settings).await?;
    let mut runners = Runners::of(settings).await?;
    let done = generation::rollback(&context, runners.one(name)?.as_mut()).await;
    runners.close().await;
    let done = done.map_err(|source| ProjectionsError::Rollback { name: name.to_owned(), source })?;
    if output.is_json() {
        output.json(&serde_json::json!({
            "name": name, "generation": done.generation, "version": done.version, "kept": done.kept, "position": done.position,
        }))?;
    } else {
        output.line(format_args!(
            "{name}: generation {} (version {}) is live again, at position {}; generation {} is kept.",
            done.generation, done.version, done.position, done.kept
        ))?;
    }
    Ok(Outcome::Fine)
}

pub(super) async fn retire(
    name: &str,
    operators: &PgPool,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let runner = find(operators, name).await?;
    let context = context(settings).await?;
    let dropped = generation::retire(&context, name).await;
    let dropped = dropped.map_err(|source| ProjectionsError::Retire { name: name.to_owned(), source })?;
    if output.is_json() {
        output.json(&serde_json::json!({"name": name, "generation": runner.generation, "retired": dropped}))?;
    } else if dropped.is_empty() {
        output.line(format_args!("{name} has no generation but the live one, {}.", runner.generation))?;
    } else {
        let dropped: Vec<String> = dropped.iter().map(ToString::to_string).collect();
        output.line(format_args!(
            "{name}: dropped generation {}; {} is live.",
            dropped.join(", "),
            runner.generation
        ))?;
    }
    Ok(Outcome::Fine)
}
