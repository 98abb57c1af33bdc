//! `fanledger projections status | pause | resume | rebuild`.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use fanledger_journal::database::{self, Role};
use fanledger_journal::generation::{self, RebuildError};
use fanledger_journal::runner::{self, RunnerContext, RunnerState, RunnerStatus};
use sqlx::PgPool;

use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output};
use crate::roles::Commands;
use crate::settings::{Need, Settings};

/// How far each projection and process manager is; pause, resume.
#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// List every runner: where it is, how far behind, and why it halted
    Status,
    /// Make a runner stand still after the batch under way
    Pause(Named),
    /// End a pause or a halt; what halted the runner is tried again
    Resume(Named),
    /// Build a runner's tables anew from the journal beside the live ones, then switch; what a halt for another version or
    /// another history asks for
    #[command(after_help = "Example:\n  fanledger projections rebuild balances")]
    Rebuild(Named),
}

/// Which runner.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name, as `status` lists it.
    name: String,
}

/// Why a runner could not be told.
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
    #[error("rebuild {name}; the live tables are as they were")]
    Rebuild {
        /// Which.
        name: String,
        /// What went wrong.
        #[source]
        source: RebuildError,
    },
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
    let pool = database::connect(&settings.database_url_for(Role::Operator)?, 1).await?;
    match command {
        ProjectionsCommand::Status => status(&pool, output).await,
        ProjectionsCommand::Pause(named) => {
            let told = runner::pause(&pool, &named.name).await;
            tell(&pool, named.name, "pause", told, output).await
        }
        ProjectionsCommand::Resume(named) => {
            let told = runner::resume(&pool, &named.name).await;
            tell(&pool, named.name, "resume", told, output).await
        }
        ProjectionsCommand::Rebuild(named) => rebuild(&named.name, settings, output).await,
    }
}

async fn rebuild(name: &str, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::Database(Role::Projector), Need::Database(Role::Command)])?;
    let commands = Commands::connect(settings).await?;
    let mut runners = fanledger_projections::all();
    runners.extend(fanledger_commands::managers(&commands.dependencies(settings)));
    let known = runners.iter().map(|runner| runner.name().to_owned()).collect();
    let Some(runner) = runners.iter_mut().find(|runner| runner.name() == name) else {
        return Err(ProjectionsError::Unknown { name: name.to_owned(), known }.into());
    };
    let pool = database::connect(&settings.database_url_for(Role::Projector)?, 4).await?;
    let rebuilt = generation::rebuild(&RunnerContext::without_feed(pool), runner.as_mut())
        .await
        .map_err(|source| ProjectionsError::Rebuild { name: name.to_owned(), source })?;
    // A halt ends with what caused it.
    let operator = database::connect(&settings.database_url_for(Role::Operator)?, 1).await?;
    runner::resume(&operator, name).await.map_err(|source| ProjectionsError::Tell {
        name: name.to_owned(),
        what: "resume",
        source,
    })?;
    if output.is_json() {
        output
            .json(&serde_json::json!({"name": name, "generation": rebuilt.generation, "position": rebuilt.position}))?;
    } else {
        output.line(format_args!(
            "{name}: generation {} is live, at position {}",
            rebuilt.generation, rebuilt.position
        ))?;
    }
    Ok(Outcome::Fine)
}

async fn status(pool: &PgPool, output: Output) -> Result<Outcome, Failure> {
    let runners = runner::status(pool).await.map_err(ProjectionsError::Status)?;
    if output.is_json() {
        output.json(&runners)?;
        return Ok(Outcome::Fine);
    }
    if runners.is_empty() {
        output.line("No projection has run yet: start `fanledger dev`, or the roles projector and manager.")?;
        return Ok(Outcome::Fine);
    }
    let columns = [
        ("name", Align::Left),
        ("version", Align::Right),
        ("generation", Align::Right),
        ("state", Align::Left),
        ("position", Align::Right),
        ("head", Align::Right),
        ("behind", Align::Right),
        ("seconds", Align::Right),
    ];
    output.table(&columns, runners.iter().map(row).collect())?;
    for runner in &runners {
        if let Some(halt) = &runner.error {
            output.line("")?;
            let at = halt.at.to_rfc3339_opts(SecondsFormat::Secs, true);
            output.line(format_args!("{} halted at {at}: {halt}", runner.name))?;
        }
    }
    Ok(Outcome::Fine)
}

fn row(runner: &RunnerStatus) -> Vec<String> {
    let state = match runner.state {
        RunnerState::Live => "live",
        RunnerState::CatchingUp => "catching up",
        RunnerState::Halted => "halted",
        RunnerState::Paused => "paused",
    };
    vec![
        runner.name.clone(),
        runner.version.to_string(),
        runner.generation.to_string(),
        state.to_owned(),
        runner.position.to_string(),
        runner.head.to_string(),
        runner.lag_events.to_string(),
        format!("{:.1}", runner.lag_seconds),
    ]
}

async fn tell(
    pool: &PgPool,
    name: String,
    what: &'static str,
    told: Result<bool, sqlx::Error>,
    output: Output,
) -> Result<Outcome, Failure> {
    let runners = match told {
        Err(source) => return Err(ProjectionsError::Tell { name, what, source }.into()),
        Ok(_) => runner::status(pool).await.map_err(ProjectionsError::Status)?,
    };
    if let Some(runner) = runners.iter().find(|runner| runner.name == name) {
        if output.is_json() {
            output.json(runner)?;
        } else {
            output.line(format_args!("{name} was told to {what}."))?;
        }
        return Ok(Outcome::Fine);
    }
    let known = runners.into_iter().map(|runner| runner.name).collect();
    Err(Failure::usage(ProjectionsError::Unknown { name, known }))
}
