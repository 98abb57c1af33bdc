//! `fanledger stripe replay`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Settings};
use crate::stripe::events::{self, EventBody};
use crate::stripe::fresh_ids::freshen;
use crate::stripe::replay::{self, Counts};

/// What to send, and how.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Files and folders of events.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Send in an order that depends on --seed alone.
    #[arg(long)]
    shuffle: bool,
    /// What --shuffle and --fresh-ids depend on; random, and printed, where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Send each event so many more times.
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = clap::value_parser!(u32).range(..=1000))]
    duplicate: u32,
    /// Give every object and event a fresh id, references following.
    #[arg(long)]
    fresh_ids: bool,
    /// Deliveries a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Deliveries under way at once.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,
    /// The gateway; the running `fanledger dev`'s by default.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

/// Why an event cannot be given a fresh id.
#[derive(Debug, thiserror::Error)]
#[error("{origin} cannot be given fresh ids")]
struct FreshenError {
    origin: String,
    #[source]
    source: serde_json::Error,
}

pub(super) async fn run(args: ReplayArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::WebhookSecrets])?;
    let found = events::read(&args.paths).map_err(Failure::usage)?;
    for path in &found.passed_over {
        eprintln!("passed over, it holds no events: {}", path.display());
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    if args.seed.is_none() && (args.shuffle || args.fresh_ids) {
        eprintln!("seed: {seed}");
    }
    let events = if args.fresh_ids { with_fresh_ids(&found.events, seed)? } else { found.events };
    let deliveries = replay::arrange(events, args.duplicate, args.shuffle, seed);
    let options = replay::Options {
        gateway_url: args.gateway.unwrap_or_else(|| settings.gateway_url()),
        secret: replay::signing_secret(settings)?,
        concurrency: args.concurrency as usize,
        rate: args.rate,
    };
    let bar = output.bar(deliveries.len() as u64, "sending");
    let ticking = bar.clone();
    let report = replay::send(deliveries, &options, move || ticking.inc(1)).await;
    bar.finish_and_clear();
    let report = report?;
    let Counts { sent, accepted, duplicate, conflict, refused } = report.counts;
    if output.is_json() {
        output.json(&report.counts)?;
    } else {
        output.line(format_args!(
            "{sent} sent: {accepted} accepted, {duplicate} duplicate, {conflict} conflict, {refused} refused"
        ))?;
    }
    replay::show_refusals(&report);
    Ok(if report.counts.is_all_stored() { Outcome::Fine } else { Outcome::CheckFailed })
}

fn with_fresh_ids(events: &[EventBody], seed: u64) -> Result<Vec<EventBody>, Failure> {
    let read = |event: &EventBody| {
        serde_json::from_str::<Value>(&event.body)
            .map_err(|source| Failure::usage(FreshenError { origin: event.origin.clone(), source }))
    };
    let values = events.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let fresh = freshen(&values, seed);
    let renamed = events.iter().zip(fresh);
    Ok(renamed.map(|(event, value)| EventBody { origin: event.origin.clone(), body: value.to_string() }).collect())
}
