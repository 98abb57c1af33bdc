//! P3: signed webhooks over HTTP, acknowledged after commit, with relay, translator and projections running.

use fanledger_journal::database::{self, Role, role_url};
use fanledger_journal::runner;
use sqlx::PgPool;

use crate::bench::WebhookArgs;
use crate::bench::baseline::fastapi::FastApi;
use crate::bench::events;
use crate::bench::ground::{Ground, Served};
use crate::bench::load::{Measured, Pace, drive};
use crate::bench::report::{Figure, Raw, Report};
use crate::clock;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// More than either side has been seen to answer; requests are made beforehand.
const PER_SECOND_MOST: usize = 20_000;

#[derive(Debug, thiserror::Error)]
#[error("ask for the projections' lag")]
struct LagError(#[source] sqlx::Error);

pub(super) async fn run(
    args: WebhookArgs,
    settings: &Settings,
    ground: &Ground,
    output: Output,
) -> Result<Report, Failure> {
    let baseline = if args.no_baseline { None } else { Some(FastApi::prepare(&settings.data_dir, ground).await?) };
    let pool = database::connect(&role_url(ground.superuser_url(), Role::Operator)?, 1).await?;
    let bar = output.bar(u64::from(args.rounds.rounds + 1) * 2, "measuring");
    let mut raw = Vec::new();
    // Round 0 warms both sides and is not kept. Each side runs alone: the other's process is stopped meanwhile.
    for round in 0..=args.rounds.rounds {
        let served = ground.start_all().await?;
        let mut measured = side("fanledger", &served, args, round).await?;
        measured.push(("fanledger, furthest runner behind".into(), lag(&pool).await?, "events"));
        served.stop().await;
        bar.inc(1);
        if let Some(baseline) = &baseline {
            let served = baseline.start(ground).await?;
            measured.extend(side("FastAPI", &served, args, round).await?);
            served.stop().await;
        }
        bar.inc(1);
        if round > 0 {
            raw.extend(measured.into_iter().map(|(what, value, unit)| Raw { round, what, value, unit }));
        }
    }
    bar.finish_and_clear();
    let mut notes = vec![format!(
        "{} connections kept open by a generator on the same machine; each ten events are one subscription renewal, \
         one of them moves money. Relay, translator and projections run in the same process as the gateway. Neither side logs requests.",
        args.connections
    )];
    notes.extend(baseline.as_ref().map(FastApi::note));
    Ok(judge(ground, notes, raw, baseline.is_some()))
}

fn judge(ground: &Ground, notes: Vec<String>, rounds: Vec<Raw>, with_baseline: bool) -> Report {
    let of = |what: &str| Report::median_of(&rounds, what);
    let (ours, latency) = (of("fanledger, most"), of("fanledger, p99 at 80 %"));
    let mut figures = vec![
        Figure::alone("P3", "webhooks, as fast as answered".into(), ours, "webhooks/s", "≥ 8000"),
        Figure::alone("P3", "p99 at 80 % of that".into(), latency, "ms", "≤ 25"),
    ];
    if with_baseline {
        let what = "webhooks, beside FastAPI".into();
        figures.push(Figure::beside("P3", what, ours, of("FastAPI, most"), "webhooks/s", "ratio ≥ 8"));
    }
    Report { bench: "webhook", machine: ground.machine.clone(), notes, rounds, figures }
}

type Values = Vec<(String, f64, &'static str)>;

async fn side(name: &'static str, served: &Served, args: WebhookArgs, round: u32) -> Result<Values, Failure> {
    let mut most = measure(served, args, &format!("{round}m"), Pace::AsFastAsAnswered).await?;
    let rate = most.per_second * 0.8;
    let mut steady = measure(served, args, &format!("{round}s"), Pace::PerSecond(rate)).await?;
    Ok(vec![
        (format!("{name}, most"), most.per_second, "webhooks/s"),
        (format!("{name}, p50 at most"), most.percentile_ms(50), "ms"),
        (format!("{name}, p99 at most"), most.percentile_ms(99), "ms"),
        (format!("{name}, p50 at 80 %"), steady.percentile_ms(50), "ms"),
        (format!("{name}, p99 at 80 %"), steady.percentile_ms(99), "ms"),
    ])
}

async fn measure(served: &Served, args: WebhookArgs, run: &str, pace: Pace) -> Result<Measured, Failure> {
    let per_second = match pace {
        Pace::AsFastAsAnswered => PER_SECOND_MOST,
        // One more than is due, for a rate that is not whole.
        Pace::PerSecond(rate) => rate as usize + 1,
    };
    let requests = prepare(served, run, per_second * args.rounds.seconds as usize);
    Ok(drive(served.address, args.connections as usize, requests, pace, args.rounds.duration()).await?)
}

fn prepare(served: &Served, run: &str, count: usize) -> Vec<Vec<u8>> {
    let (host, now) = (served.address.to_string(), clock::unix_seconds());
    (0..count).map(|n| events::request(&host, &events::body(run, n, now), now)).collect()
}

/// How far the runner that is furthest behind is, in events.
async fn lag(pool: &PgPool) -> Result<f64, LagError> {
    let runners = runner::status(pool).await.map_err(LagError)?;
    Ok(runners.iter().map(|runner| runner.lag_events).max().unwrap_or_default() as f64)
}
