//! What makes, proves, switches and drops generations, from the command line: the same functions that a projector runs for the
//! operator API, here in this process.

use std::io::{self, BufRead, IsTerminal, Write};

use fanledger_journal::database::Role;
use fanledger_journal::generation::{self, Progress, Purpose, RebuildError, RebuildOptions, Rebuilt};
use fanledger_journal::runner::{self, GenerationState, Projection, RunnerContext, RunnerStatus};
use sqlx::PgPool;
use tokio::sync::watch;

use super::{ProjectionsError, RebuildArgs, Runners, VerifyArgs, Which, find, show};
use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, OutputError};
use crate::settings::{Need, Settings};

/// For the pages that are read ahead, and what runs beside.
const CONNECTIONS: u32 = 4;

async fn context(settings: &Settings) -> Result<RunnerContext, Failure> {
    pool(settings).await.map(RunnerContext::without_feed)
}

async fn pool(settings: &Settings) -> Result<PgPool, Failure> {
    settings.require(&[Need::Database(Role::Projector)])?;
    Ok(connect::pool(&settings.database_url_for(Role::Projector)?, CONNECTIONS).await?)
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
    let pool = pool(settings).await?;
    let context = RunnerContext::without_feed(pool.clone());
    let mut runners = Runners::of(settings).await?;
    let mut worst = Outcome::Fine;
    for projection in runners.choose(which)? {
        match one(&context, &pool, projection.as_mut(), options, output).await? {
            Outcome::Fine => {}
            Outcome::CheckFailed => worst = Outcome::CheckFailed,
        }
    }
    runners.close().await;
    Ok(worst)
}

async fn one(
    context: &RunnerContext,
    pool: &PgPool,
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
            let kept = kept_halted(pool, name).await;
            show::rebuilt(name, projection.version(), options.purpose, &rebuilt, kept, output)?;
            Ok(if rebuilt.halt.is_none() { Outcome::Fine } else { Outcome::CheckFailed })
        }
        Err(error) if error.proof().is_some() => {
            show::refused(name, &error, output)?;
            Ok(Outcome::CheckFailed)
        }
        Err(source) => Err(ProjectionsError::Rebuild { name: name.to_owned(), source }.into()),
    }
}

/// Whether the generation that is kept stands still, so that nobody is sent back to it. What was built is built: where this cannot
/// be asked, a rollback says it itself.
async fn kept_halted(pool: &PgPool, name: &str) -> bool {
    find(pool, name)
        .await
        .is_ok_and(|runner| runner.generations.iter().any(|other| other.state == GenerationState::Kept && other.halted))
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

/// One after the other; what could not be dropped ends it.
pub(super) async fn retire(
    which: &Which,
    operators: &PgPool,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let runners = match &which.name {
        Some(name) => vec![find(operators, name).await?],
        None => runner::status(operators).await.map_err(ProjectionsError::Status)?,
    };
    let context = context(settings).await?;
    for runner in &runners {
        let dropped = generation::retire(&context, &runner.name).await;
        let dropped = dropped.map_err(|source| ProjectionsError::Retire { name: runner.name.clone(), source })?;
        retired(runner, &dropped, which.all, output)?;
    }
    Ok(Outcome::Fine)
}

fn retired(runner: &RunnerStatus, dropped: &[u32], one_of_many: bool, output: Output) -> Result<(), OutputError> {
    let (name, live) = (&runner.name, runner.generation);
    if output.is_json() {
        let answer = serde_json::json!({"name": name, "generation": live, "retired": dropped});
        return if one_of_many { output.json_line(&answer) } else { output.json(&answer) };
    }
    if dropped.is_empty() {
        return output.line(format_args!("{name} has no generation but the live one, {live}."));
    }
    let dropped: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    output.line(format_args!("{name}: dropped generation {}; {live} is live.", dropped.join(", ")))
}
