//! `fanledger projections status | rebuild | verify | rollback | retire | pause | resume | skip`.
//!
//! [`generations`] has what makes, proves and switches generations, [`show`] what people see of it.

mod generations;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use fanledger_domain::reason::{REASON_FORM, is_reason};
use fanledger_journal::database::Role;
use fanledger_journal::event::Position;
use fanledger_journal::generation::{RebuildError, RetireError, RollbackError};
use fanledger_journal::operation;
use fanledger_journal::runner::{self, Projection, RunnerStatus};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde::Serialize;
use sqlx::PgPool;

use crate::connect;
use crate::failure::{Failure, Outcome, one_line};
use crate::output::Output;
use crate::roles::Commands;
use crate::settings::{Need, Settings};
use crate::skip::{SkipError, Skipped, Skips};

/// How far each projection and process manager is; rebuild, prove, switch back; pause, resume, skip.
#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// List every runner: where it is, how far behind, why it halted, and which generations it has
    Status,
    /// Build the tables anew from the journal beside the live ones, prove that both hold the same, then switch
    #[command(
        after_help = "Examples:\n  fanledger projections rebuild balances\n  fanledger projections rebuild --all --json\n\n\
        Readers notice nothing: the live tables serve until the views are exchanged in one transaction. Where the version did not\n\
        change, any difference stops the switch, is listed, and the exit code is 1. Where it did, the difference is summed up and\n\
        you are asked; --yes agrees beforehand. The generation that was live is kept and fed: `rollback` goes back to it, `retire`\n\
        drops it. Killed at any moment, run it again: it goes on where it was.\n\n\
        With --json each line is a document: those with a \"phase\" say how far it is, those with an \"outcome\" how it ended."
    )]
    Rebuild(RebuildArgs),
    /// Build the tables anew, compare them with the live ones row by row, and drop them again; exit code 1 if they differ
    Verify(VerifyArgs),
    /// Switch back to the generation that was live before the last switch
    Rollback(Named),
    /// Drop the generation that is kept to go back to, and what a broken-off rebuild left
    Retire(RetireArgs),
    /// Make a runner stand still; a batch under way is taken back
    Pause(Named),
    /// End a pause or a halt; what halted the runner is tried again
    Resume(Named),
    /// Let a runner pass over an event that it cannot apply, for good: the skip is an event of the journal, and each rebuild
    /// of this version honours it
    #[command(
        after_help = "Example:\n  fanledger projections skip entries --position 4711 --reason 'typed by hand, see the incident of 3 May'\n  \
        fanledger projections resume entries"
    )]
    Skip(SkipArgs),
}

/// Which runner.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name, as `status` lists it.
    name: String,
}

/// One runner or all of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Its name, as `status` lists it.
    name: Option<String>,
    /// Every projection and process manager, one after the other.
    #[arg(long)]
    all: bool,
}

/// What to rebuild, and how.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    #[command(flatten)]
    which: Which,
    /// Agree beforehand to a difference between two versions; one within a version always stops the switch.
    #[arg(long)]
    yes: bool,
    /// How many seconds a reader's transaction may be old: so long after the new tables are complete the switch waits. The
    /// gateway's are stopped after 5.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    read_age: u64,
}

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    which: Which,
}

/// Whose generations to drop.
#[derive(Debug, Args)]
pub struct RetireArgs {
    #[command(flatten)]
    which: Which,
}

/// What to pass over.
#[derive(Debug, Args)]
pub struct SkipArgs {
    /// The runner, as `status` lists it.
    name: String,
    /// The event's position, as `status` names it where the runner halted.
    #[arg(long)]
    position: u64,
    /// Why; it is kept in the journal for good, so name no person.
    #[arg(long, value_parser = parse_reason)]
    reason: String,
}

/// As the operators' API takes it.
fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if is_reason(reason) { Ok(reason.to_owned()) } else { Err(format!("expected why, {REASON_FORM}")) }
}

/// Why an operator's command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionsError {
    /// There is none of this name.
    #[error("there is no projection or process manager called {name}; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Postgres could not be asked.
    #[error("ask for the projections' status; is the database migrated?")]
    Status(#[source] sqlx::Error),
    /// The tables could not be built anew.
    #[error("build {name} anew; the live tables are as they were")]
    Rebuild {
        /// Which.
        name: String,
        /// What went wrong.
        #[source]
        source: RebuildError,
    },
    /// The switch back did not happen.
    #[error("roll {name} back; the live tables are as they were")]
    Rollback {
        /// Which.
        name: String,
        /// What went wrong.
        #[source]
        source: RollbackError,
    },
    /// Something could not be dropped.
    #[error("retire what {name} keeps; the live tables are as they were")]
    Retire {
        /// Which.
        name: String,
        /// What went wrong.
        #[source]
        source: RetireError,
    },
    /// The operator could not be asked.
    #[error("ask on this terminal; --yes agrees beforehand")]
    Ask(#[source] std::io::Error),
    /// Postgres could not be told.
    #[error("tell {name} to {what}")]
    Tell {
        /// Which.
        name: String,
        /// What to do.
        what: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
}

/// Runs one of them.
///
/// # Errors
/// When Postgres cannot be asked, or there is no such runner.
pub async fn run(command: ProjectionsCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::Database(Role::Operator)])?;
    let pool = connect::pool(&settings.database_url_for(Role::Operator)?, 1).await?;
    match command {
        ProjectionsCommand::Status => status(&pool, output).await,
        ProjectionsCommand::Rebuild(args) => generations::rebuild(&args, settings, output).await,
        ProjectionsCommand::Verify(args) => generations::verify(&args, settings, output).await,
        ProjectionsCommand::Rollback(named) => generations::rollback(&named.name, settings, output).await,
        ProjectionsCommand::Retire(args) => generations::retire(&args.which, &pool, settings, output).await,
        ProjectionsCommand::Pause(named) => {
            let told = runner::pause(&pool, &named.name).await;
            tell(&pool, named.name, "pause", told, output).await
        }
        ProjectionsCommand::Resume(named) => {
            let told = runner::resume(&pool, &named.name).await;
            tell(&pool, named.name, "resume", told, output).await
        }
        ProjectionsCommand::Skip(args) => skip(args, &pool, settings, output).await,
    }
}

/// What this program knows, by name.
struct Runners {
    all: Vec<Box<dyn Projection>>,
    /// What process managers send with; to be shut down at the end.
    commands: Commands,
}

impl Runners {
    async fn of(settings: &Settings) -> Result<Self, Failure> {
        settings.require(&[Need::Database(Role::Projector), Need::Database(Role::Command)])?;
        let commands = Commands::connect(settings).await?;
        let mut all = fanledger_projections::all();
        all.extend(fanledger_commands::managers(&commands.dependencies(settings)));
        Ok(Self { all, commands })
    }

    /// Those that are asked for.
    fn choose(&mut self, which: &Which) -> Result<Vec<&mut Box<dyn Projection>>, Failure> {
        match &which.name {
            None => Ok(self.all.iter_mut().collect()),
            Some(name) => self.one(name).map(|one| vec![one]),
        }
    }

    fn one(&mut self, name: &str) -> Result<&mut Box<dyn Projection>, Failure> {
        let known = self.all.iter().map(|runner| runner.name().to_owned()).collect();
        self.all
            .iter_mut()
            .find(|runner| runner.name() == name)
            .ok_or_else(|| Failure::usage(ProjectionsError::Unknown { name: name.to_owned(), known }))
    }

    async fn close(self) {
        self.commands.executor.writer().shutdown().await;
    }
}

impl RebuildArgs {
    const fn read_age(&self) -> Duration {
        Duration::from_secs(self.read_age)
    }
}

/// One line of `status --json`.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    runner: RunnerStatus,
    /// The last that was asked for: a rebuild and its like.
    operation: Option<operation::OperationStatus>,
}

async fn status(pool: &PgPool, output: Output) -> Result<Outcome, Failure> {
    let runners = runner::status(pool).await.map_err(ProjectionsError::Status)?;
    let mut operations = operation::last(pool).await.map_err(ProjectionsError::Status)?;
    let lines: Vec<Line> = runners
        .into_iter()
        .map(|runner| {
            let of_it = operations.iter().position(|operation| operation.name == runner.name);
            Line { operation: of_it.map(|index| operations.swap_remove(index)), runner }
        })
        .collect();
    if output.is_json() {
        output.json(&lines)?;
    } else {
        show::status(&lines, output)?;
    }
    Ok(Outcome::Fine)
}

async fn tell(
    pool: &PgPool,
    name: String,
    what: &'static str,
    told: Result<bool, sqlx::Error>,
    output: Output,
) -> Result<Outcome, Failure> {
    if let Err(source) = told {
        return Err(ProjectionsError::Tell { name, what, source }.into());
    }
    let runner = find(pool, &name).await?;
    if output.is_json() {
        output.json(&runner)?;
    } else {
        output.line(format_args!("{name} was told to {what}."))?;
    }
    Ok(Outcome::Fine)
}

/// A runner's status, or that there is none of that name.
async fn find(pool: &PgPool, name: &str) -> Result<RunnerStatus, Failure> {
    let mut runners = runner::status(pool).await.map_err(ProjectionsError::Status)?;
    match runners.iter().position(|runner| runner.name == name) {
        Some(index) => Ok(runners.swap_remove(index)),
        None => {
            let known = runners.into_iter().map(|runner| runner.name).collect();
            Err(Failure::usage(ProjectionsError::Unknown { name: name.to_owned(), known }))
        }
    }
}

async fn skip(args: SkipArgs, pool: &PgPool, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let SkipArgs { name, position, reason } = args;
    let runners = Runners::of(settings).await?;
    let writer = Writer::start(WriterOptions::new(settings.database_url_for(Role::Operator)?)).await?;
    let skips = Skips::new(&runners.all, pool.clone(), pool.clone(), writer);
    let skipped = skips.skip(&name, Position::new(position), &reason, "operator:cli".to_owned()).await;
    skips.close().await;
    runners.close().await;
    if let Err(error @ SkipError::NotAsRecorded { .. }) = &skipped {
        // A tamper is what was found, not what kept the command from running.
        let detail = one_line(error);
        if output.is_json() {
            output.json(&serde_json::json!({"ok": false, "detail": detail}))?;
        } else {
            output.line(format_args!("FAILED  {detail}"))?;
        }
        return Ok(Outcome::CheckFailed);
    }
    let skipped = skipped.map_err(|error| match error {
        SkipError::Unknown { .. } | SkipError::Applied { .. } | SkipError::Beyond { .. } => Failure::usage(error),
        SkipError::NotAsRecorded { .. }
        | SkipError::Look(_)
        | SkipError::Status(_)
        | SkipError::Append(_)
        | SkipError::Refused(_) => error.into(),
    })?;
    if output.is_json() {
        output.json(&skipped)?;
        return Ok(Outcome::Fine);
    }
    let Skipped { name, version, position, known, halted, .. } = skipped;
    let said = if known { "passes over it already" } else { "passes over it from now on" };
    output.line(format_args!("Position {position}: version {version} of {name} {said}, and so does each rebuild."))?;
    if halted {
        output.line(format_args!("It has halted; `fanledger projections resume {name}` lets it go on."))?;
    }
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_told_why_as_over_http() {
        assert_eq!(parse_reason(" typed by hand "), Ok("typed by hand".to_owned()));
        for bad in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(501)] {
            assert!(parse_reason(bad).is_err(), "{bad:?}");
        }
    }
}
