//! `fanledger seed`: the demo history, through the real path.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use fanledger_devkit::history;
use fanledger_journal::database::Role;
use fanledger_journal::runner::{self, RunnerState};
use serde::Serialize;
use sqlx::PgPool;

use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Settings};
use crate::stripe::events::EventBody;
use crate::stripe::replay::{self, Counts};

/// Send a demo history through the real path: signed webhooks to the gateway.
#[derive(Debug, Args)]
#[command(after_help = "Sending it again changes nothing: every webhook is then a duplicate.\n\n\
    Examples:\n  fanledger seed\n  fanledger seed --seed 2 --end 2026-06-30T00:00:00Z")]
pub struct SeedArgs {
    /// Another seed makes another history, beside the first.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// When the history's six months end. Fixed, so that the same seed always makes the same history.
    #[arg(long, default_value = "2026-11-01T00:00:00Z", value_parser = parse_time)]
    end: DateTime<Utc>,
    /// The gateway; the running `fanledger dev`'s by default.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|_| "expected RFC 3339 with an offset, such as 2026-01-31T12:00:00Z".to_owned())
}

/// Why the demo is not there, or not seen yet.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The stand-in could not be taught.
    #[error("teach the stand-in for Stripe's API the balance transactions of the demo")]
    Teach(#[source] reqwest::Error),
    /// Postgres could not be asked.
    #[error("ask how far the projections are")]
    Status(#[source] sqlx::Error),
    /// A runner stands still.
    #[error("{name} {state} at position {position}; see `fanledger projections status`")]
    StandsStill {
        /// Which.
        name: String,
        /// How.
        state: &'static str,
        /// Where.
        position: u64,
    },
    /// They go on, slowly.
    #[error("the projections are still {lag} events behind after {} s without progress; are the roles projector and manager running?", PATIENCE.as_secs())]
    Slow {
        /// How far the furthest is behind.
        lag: u64,
    },
}

/// How long without any progress is too long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deliveries under way at once; shares appends without crowding out the projections on a small machine.
const CONCURRENCY: usize = 16;
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Seeded {
    #[serde(flatten)]
    counts: Counts,
    position: u64,
}

/// Makes the history, sends it, waits until everything that is read from it is there.
///
/// # Errors
/// When the gateway cannot be reached or a projection stands still.
pub async fn run(args: SeedArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::WebhookSecrets, Need::Database(Role::Operator)])?;
    let history = history::demo(args.seed, args.end);
    match &settings.dev {
        Some(dev) if dev.stand_in => teach(&dev.stripe_api_base, &history.balance_transactions).await?,
        Some(_) | None => {
            tracing::warn!("no stand-in for Stripe's API: fees that webhooks do not embed will be awaited");
        }
    }
    let events: Vec<EventBody> = history
        .events
        .iter()
        .enumerate()
        .map(|(index, event)| EventBody { origin: format!("demo event {}", index + 1), body: event.to_string() })
        .collect();
    let options = replay::Options {
        gateway_url: args.gateway.unwrap_or_else(|| settings.gateway_url()),
        secret: replay::signing_secret(settings)?,
        concurrency: CONCURRENCY,
        rate: None,
    };
    let bar = output.bar(events.len() as u64, "sending webhooks");
    let ticking = bar.clone();
    let report = replay::send(replay::arrange(events, 0, false, 0), &options, move || ticking.inc(1)).await?;
    bar.finish_and_clear();
    let pool = connect::pool(&settings.database_url_for(Role::Operator)?, 1).await?;
    let position = wait_until_read(&pool, report.position, output).await?;
    let Counts { sent, accepted, duplicate, conflict, refused } = report.counts;
    if output.is_json() {
        output.json(&Seeded { counts: report.counts, position })?;
    } else {
        output.line(format_args!(
            "Seeded: {sent} webhooks sent, {accepted} accepted, {duplicate} duplicate, {conflict} conflict, {refused} refused; \
             everything is read up to position {position}."
        ))?;
    }
    replay::show_refusals(&report);
    Ok(if report.counts.is_all_stored() { Outcome::Fine } else { Outcome::CheckFailed })
}

async fn teach(stripe_api_base: &str, transactions: &[serde_json::Value]) -> Result<(), SeedError> {
    reqwest::Client::new()
        .post(format!("{stripe_api_base}/_stand_in/balance_transactions"))
        .json(transactions)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map(drop)
        .map_err(SeedError::Teach)
}

/// Waits until every runner has read everything from `position` on, including what the process managers add meanwhile. One that
/// has not begun yet, as right after a start, has read nothing.
///
/// # Errors
/// When one stands still, or none progresses for a minute.
pub async fn wait_until_read(pool: &PgPool, position: u64, output: Output) -> Result<u64, SeedError> {
    let bar = output.bar(position, "reading the journal");
    let mut names: Vec<&str> = fanledger_projections::all().iter().map(|projection| projection.name()).collect();
    names.extend(fanledger_commands::MANAGERS);
    let mut least_seen = None;
    let mut progressed = Instant::now();
    let mut quiet = 0;
    loop {
        let runners = runner::status(pool).await.map_err(SeedError::Status)?;
        if let Some(runner) = runners.iter().find(|r| matches!(r.state, RunnerState::Halted | RunnerState::Paused)) {
            let state = if runner.state == RunnerState::Halted { "halted" } else { "is paused" };
            return Err(SeedError::StandsStill { name: runner.name.clone(), state, position: runner.position.get() });
        }
        let head = runners.iter().map(|runner| runner.head.get()).max().unwrap_or_default();
        let position_of = |name: &&str| runners.iter().find(|runner| runner.name == **name).map(|it| it.position.get());
        let least = names.iter().map(|name| position_of(name).unwrap_or_default()).min();
        bar.set_length(head.max(position));
        bar.set_position(least.unwrap_or_default());
        // Twice in a row: between a manager's last command and its checkpoint everything may look read for a moment.
        quiet = if least.is_some_and(|least| least >= head.max(position)) { quiet + 1 } else { 0 };
        if quiet == 2 {
            bar.finish_and_clear();
            return Ok(head);
        }
        if least != least_seen {
            (least_seen, progressed) = (least, Instant::now());
        } else if progressed.elapsed() > PATIENCE {
            return Err(SeedError::Slow { lag: head.saturating_sub(least.unwrap_or_default()) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
