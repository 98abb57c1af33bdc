//! P5: how long after its acknowledgement a webhook is visible through the gateway, at a steady rate.
//!
//! Visible means: a read that asks for the acknowledged position (`Journal-Min-Position`) is answered. Samples are taken
//! by connections of their own, each sending a webhook, then reading; the rest of the rate is sent around them.

use std::time::{Duration, Instant};

use fanledger_gateway::auth::{self, JwtKey, Role};
use serde::Deserialize;

use crate::bench::LagArgs;
use crate::bench::events;
use crate::bench::ground::{Ground, JWT_KEY, Served};
use crate::bench::load::{Connection, LoadError, Pace, drive};
use crate::bench::report::{Figure, Raw, Report, micros, percentile};
use crate::clock;
use crate::failure::Failure;
use crate::output::Output;

/// Samples a second: enough for a p99 in a few seconds, few enough not to be the load.
const SAMPLES_PER_SECOND: u32 = 50;
const SAMPLERS: u32 = 5;
const LOAD_CONNECTIONS: usize = 16;

/// What is read, by the name of the projection behind it.
const READS: [(&str, &str); 2] =
    [("stripe_inbox", "/api/v1/ledger/stripe-events?limit=1"), ("balances", "/api/v1/ledger/accounts?limit=1")];

#[derive(Debug, thiserror::Error)]
enum SampleError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("read the position in the answer to a webhook")]
    Receipt(#[source] serde_json::Error),
    #[error("a sampling task ended early")]
    Task(#[source] tokio::task::JoinError),
}

#[derive(Deserialize)]
struct Receipt {
    position: u64,
}

pub(super) async fn run(args: LagArgs, ground: &Ground, output: Output) -> Result<Report, Failure> {
    let key = JwtKey::new(JWT_KEY.as_bytes())?;
    let token = auth::mint(&key, &[Role::Finance], "operator:bench", Duration::from_secs(3600))?;
    let served = ground.start_all().await?;
    let bar = output.bar(u64::from(args.rounds.rounds) + 1, "measuring");
    let mut raw = Vec::new();
    // Round 0 warms up and is not kept.
    for round in 0..=args.rounds.rounds {
        for (projection, mut lags) in one_round(args, &served, &token, round).await? {
            if round > 0 {
                for (name, percent) in [("p50", 50), ("p99", 99)] {
                    let value = percentile(&mut lags, percent) as f64 / 1000.0;
                    raw.push(Raw { round, what: format!("{projection}, {name}"), value, unit: "ms" });
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    served.stop().await;
    let mut figures = Vec::new();
    for (projection, _) in READS {
        for (name, wanted) in [("p50", "≤ 10"), ("p99", "≤ 50")] {
            let ours = Report::median_of(&raw, &format!("{projection}, {name}"));
            figures.push(Figure::alone("P5", format!("visible through {projection}, {name}"), ours, "ms", wanted));
        }
    }
    let notes = vec![format!(
        "{} webhooks a second; {SAMPLES_PER_SECOND} a second are followed until a read that asks for their position is answered.",
        args.rate
    )];
    Ok(Report { bench: "lag", machine: ground.machine.clone(), notes, rounds: raw, figures })
}

type Lags = Vec<(&'static str, Vec<u64>)>;

async fn one_round(args: LagArgs, served: &Served, token: &str, round: u32) -> Result<Lags, Failure> {
    let (address, duration) = (served.address, args.rounds.duration());
    let (host, now) = (address.to_string(), clock::unix_seconds());
    let rate = args.rate - SAMPLES_PER_SECOND;
    let count = (rate * (args.rounds.seconds + 1)) as usize;
    let run = format!("{round}l");
    let requests = (0..count).map(|n| events::request(&host, &events::body(&run, n, now), now)).collect();
    let load = tokio::spawn(drive(address, LOAD_CONNECTIONS, requests, Pace::PerSecond(f64::from(rate)), duration));
    let mut samplers = tokio::task::JoinSet::new();
    for sampler in 0..SAMPLERS {
        let (host, token) = (host.clone(), token.to_owned());
        samplers.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut lags: Lags = READS.iter().map(|(projection, _)| (*projection, Vec::new())).collect();
            let begun = Instant::now();
            let every = Duration::from_secs(1) * SAMPLERS / SAMPLES_PER_SECOND;
            for n in 0.. {
                let due = begun + every * n + every * sampler / SAMPLERS;
                if due >= begun + duration {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                let which = n as usize % READS.len();
                let body = events::body(&format!("{round}p{sampler}"), n as usize, now);
                let answer = connection.exchange(&events::request(&host, &body, now)).await?;
                let acknowledged = Instant::now();
                let Receipt { position } = serde_json::from_slice(answer).map_err(SampleError::Receipt)?;
                let read = format!(
                    "GET {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\njournal-min-position: {position}\r\n\r\n",
                    READS[which].1
                );
                match connection.exchange(read.as_bytes()).await {
                    // Not there after the two seconds that a read waits: a sample like any other, and a bad one.
                    Ok(_) | Err(LoadError::Status { status: 503, .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                lags[which].1.push(micros(acknowledged.elapsed()));
            }
            Ok::<Lags, SampleError>(lags)
        });
    }
    let mut all: Lags = READS.iter().map(|(projection, _)| (*projection, Vec::new())).collect();
    while let Some(sampler) = samplers.join_next().await {
        for (which, (_, lags)) in sampler.map_err(SampleError::Task)??.into_iter().enumerate() {
            all[which].1.extend(lags);
        }
    }
    load.await.map_err(SampleError::Task)??;
    Ok(all)
}
