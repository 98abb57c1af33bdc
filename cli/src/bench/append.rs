//! P1 and P2: the writer and `journal.append` alone, beside postgres-es as shipped and beside pgbench.

use std::time::Instant;

use fanledger_journal::append::{AppendError, Command, Outcome as Appended};
use fanledger_journal::database::{Role, role_url};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::writer::{Writer, WriterOptions};

use crate::bench::Rounds;
use crate::bench::baseline::{pgbench, postgres_es};
use crate::bench::ground::Ground;
use crate::bench::report::{Figure, Raw, Report, micros, percentile};
use crate::failure::Failure;
use crate::output::Output;

/// An event of about 300 bytes, the size that the targets name; both sides store the same. There is a space after each
/// colon, because pgbench takes a colon before a letter or digit for a variable.
pub(super) const PAYLOAD: &str = concat!(
    r#"{"event_id": "evt_1PqXyZ2eZvKYlo2CbenchABC", "type": "charge.succeeded", "api_version": "2026-10-28.endive", "#,
    r#""created": 1793000000, "livemode": false, "object": "ch_3PqXyZ2eZvKYlo2C1benchDE", "digest": "#,
    r#""9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "sealed": "c2VhbGVkIGJ5dGVzIG9mIGEgd2Vi"}"#
);

/// Our own failure to append is the end of the measurement.
#[derive(Debug, thiserror::Error)]
enum AppendBenchError {
    #[error("append while measuring")]
    Append(#[source] AppendError),
    #[error("the journal answered {0:?} to a command for a new stream")]
    Outcome(Appended),
    #[error("a measuring task ended early")]
    Task(#[source] tokio::task::JoinError),
}

pub(super) async fn run(rounds: Rounds, ground: &Ground, output: Output) -> Result<Report, Failure> {
    let writer = Writer::start(WriterOptions::new(role_url(ground.superuser_url(), Role::Command)?)).await?;
    let baseline_url = ground.create_database("baseline").await?;
    let baseline = postgres_es::Baseline::prepare(&baseline_url).await?;
    let alone = pgbench::Alone::prepare(&baseline_url, ground.dir()).await?;
    let bar = output.bar(u64::from(rounds.rounds) * 7, "measuring");
    let mut raw = Vec::new();
    // Round 0 warms caches and prepared statements on both sides and is not kept.
    for round in 0..=rounds.rounds {
        let mut measured = Vec::new();
        for tasks in [64, 256] {
            measured.push((
                format!("fanledger, {tasks} tasks"),
                ours(&writer, tasks, rounds, round).await?,
                "commands/s",
            ));
            bar.inc(1);
        }
        for tasks in postgres_es::CONCURRENCY {
            let rate = baseline.measure(tasks, rounds.duration(), round).await?;
            measured.push((format!("postgres-es, {tasks} tasks"), rate, "commands/s"));
            bar.inc(1);
        }
        let lone = lone(&writer, rounds, round).await?;
        measured.push(("fanledger, one alone, mean".to_owned(), lone.mean_us, "µs"));
        measured.push(("fanledger, one alone, p99".to_owned(), lone.p99_us, "µs"));
        bar.inc(1);
        measured.push(("pgbench, one alone, mean".to_owned(), alone.measure(rounds.duration()).await?, "µs"));
        bar.inc(1);
        if round > 0 {
            raw.extend(measured.into_iter().map(|(what, value, unit)| Raw { round, what, value, unit }));
        }
    }
    bar.finish_and_clear();
    writer.shutdown().await;
    Ok(judge(ground, raw))
}

fn judge(ground: &Ground, rounds: Vec<Raw>) -> Report {
    let of = |what: &str| Report::median_of(&rounds, what);
    let best = postgres_es::CONCURRENCY
        .map(|tasks| of(&format!("postgres-es, {tasks} tasks")))
        .into_iter()
        .fold(0.0, f64::max);
    let figures = vec![
        Figure::beside(
            "P1",
            "durable commands, 64 tasks".into(),
            of("fanledger, 64 tasks"),
            best,
            "commands/s",
            "ratio ≥ 6",
        ),
        Figure::beside(
            "P1",
            "durable commands, 256 tasks".into(),
            of("fanledger, 256 tasks"),
            best,
            "commands/s",
            "ratio ≥ 7",
        ),
        Figure::beside(
            "P2",
            "one command alone, mean".into(),
            of("fanledger, one alone, mean"),
            of("pgbench, one alone, mean"),
            "µs",
            "ratio ≤ 1.3",
        ),
    ];
    let notes = vec![
        "Each command appends one event of about 300 bytes to a new stream. Baselines: cqrs-es 0.5.0 + postgres-es 0.5.0, \
         a connection per task, best of its concurrencies; pgbench -M prepared: BEGIN, INSERT, COMMIT."
            .to_owned(),
    ];
    Report { bench: "append", machine: ground.machine.clone(), notes, rounds, figures }
}

fn command(stream: String) -> Command {
    let metadata = Metadata { actor: Some("system:bench".to_owned()), ..Metadata::default() };
    let event = NewEvent {
        event_type: "StripeEventReceived".to_owned(),
        event_version: "1".to_owned(),
        payload: PAYLOAD.to_owned(),
    };
    Command::new(StreamId::new("stripe_event", stream), 0, metadata, vec![event])
}

async fn append(writer: &Writer, stream: String) -> Result<(), AppendBenchError> {
    match writer.append(command(stream)).await.map_err(AppendBenchError::Append)? {
        Appended::Appended { .. } => Ok(()),
        other => Err(AppendBenchError::Outcome(other)),
    }
}

/// Commands a second with `tasks` callers.
async fn ours(writer: &Writer, tasks: usize, rounds: Rounds, round: u32) -> Result<f64, AppendBenchError> {
    let begun = Instant::now();
    let end = begun + rounds.duration();
    let mut callers = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let writer = writer.clone();
        callers.spawn(async move {
            let mut done = 0_u32;
            while Instant::now() < end {
                append(&writer, format!("evt_{round}_{tasks}_{task}_{done}")).await?;
                done += 1;
            }
            Ok::<u32, AppendBenchError>(done)
        });
    }
    let mut done = 0.0;
    while let Some(caller) = callers.join_next().await {
        done += f64::from(caller.map_err(AppendBenchError::Task)??);
    }
    Ok(done / begun.elapsed().as_secs_f64())
}

struct Lone {
    mean_us: f64,
    p99_us: f64,
}

/// One caller, nothing else running.
async fn lone(writer: &Writer, rounds: Rounds, round: u32) -> Result<Lone, AppendBenchError> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < rounds.duration() {
        let stream = format!("evt_{round}_alone_{}", times.len());
        let sent = Instant::now();
        append(writer, stream).await?;
        times.push(micros(sent.elapsed()));
    }
    let mean_us = times.iter().sum::<u64>() as f64 / times.len().max(1) as f64;
    Ok(Lone { mean_us, p99_us: percentile(&mut times, 99) as f64 })
}
