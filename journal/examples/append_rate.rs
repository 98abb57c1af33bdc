//! How many durable commands a second one writer appends, each a new stream with one event of some 300 bytes, and how
//! many events a second `verify` checks.
//!
//! `FANLEDGER_TEST_POSTGRES=… cargo run --release -p fanledger-journal --example append_rate [seconds] [connections]`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanledger_devkit::TestDatabase;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::{Role, connect, role_url};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::verify::{VerifyOptions, verify};
use fanledger_journal::writer::{Writer, WriterOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let connections: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let database = TestDatabase::create().await;
    let url = role_url(database.url(), Role::Command)?;
    let writer = Writer::start(WriterOptions { connections, ..WriterOptions::new(url) }).await?;
    let pool = connect(database.url(), 1).await?;
    let mut batches_before = 0;
    let ids = Arc::new(AtomicU64::new(0));
    let payload = format!(r#"{{"object_id":"ch_1","sealed":"{}"}}"#, "x".repeat(260));
    for tasks in [1_u64, 8, 64, 256] {
        let started = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let (writer, ids, payload) = (writer.clone(), Arc::clone(&ids), payload.clone());
            running.spawn(async move {
                let mut count = 0_u64;
                while started.elapsed() < Duration::from_secs(seconds) {
                    let n = ids.fetch_add(1, Ordering::Relaxed);
                    let stream = StreamId::new("stripe_event", format!("evt_1NXWPnCo6bFb1KQto6C{n:08}"));
                    let metadata = Metadata { actor: Some("system:stripe".into()), ..Metadata::default() };
                    let event = NewEvent {
                        event_type: "StripeEventReceived".into(),
                        event_version: "1".into(),
                        payload: payload.clone(),
                    };
                    match writer.append(Command::new(stream, 0, metadata, vec![event])).await {
                        Ok(Outcome::Appended { .. }) => count += 1,
                        other => return Err(format!("{other:?}")),
                    }
                }
                Ok(count)
            });
        }
        let mut total = 0;
        while let Some(count) = running.join_next().await {
            total += count??;
        }
        let took = started.elapsed().as_millis().max(1);
        let batches: i64 = sqlx::query_scalar("SELECT count(*) FROM journal.batches").fetch_one(&pool).await?;
        println!(
            "{tasks:>4} tasks: {:>8} commands/s, {} a batch",
            u128::from(total) * 1000 / took,
            total / u64::try_from(batches - batches_before)?.max(1)
        );
        batches_before = batches;
    }
    let started = Instant::now();
    let mut connection = pool.acquire().await?;
    let report = verify(&mut connection, VerifyOptions::default(), None, &mut |_| {}).await?;
    println!(
        "verify: {} events, {} events/s, {:?}",
        report.events,
        u128::from(report.events) * 1000 / started.elapsed().as_millis().max(1),
        report.first_divergence
    );
    Ok(())
}
