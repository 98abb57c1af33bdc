//! cqrs-es with postgres-es as shipped: its table, its repository, its framework, a new stream for each command.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, AggregateError, DomainEvent};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};

use crate::bench::append::PAYLOAD;

/// Its throughput levels off well before 64; the best of these counts.
pub(in crate::bench) const CONCURRENCY: [usize; 3] = [1, 8, 32];

#[derive(Debug, thiserror::Error)]
pub(in crate::bench) enum BaselineError {
    #[error("prepare the baseline's table")]
    Prepare(#[source] sqlx::Error),
    #[error("connect the baseline")]
    Connect(#[source] sqlx::Error),
    #[error("execute a command of the baseline")]
    Execute(#[source] AggregateError<Infallible>),
    #[error("a task of the baseline ended early")]
    Task(#[source] tokio::task::JoinError),
}

#[derive(Default, Serialize, Deserialize)]
struct Received;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Recorded {
    body: String,
}

impl DomainEvent for Recorded {
    fn event_type(&self) -> String {
        "Recorded".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Received {
    const TYPE: &'static str = "received";
    type Command = Recorded;
    type Event = Recorded;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, command: Recorded, _services: &(), sink: &EventSink<Self>) -> Result<(), Infallible> {
        sink.write(command, self).await;
        Ok(())
    }

    fn apply(&mut self, _event: Recorded) {}
}

/// The prepared table and a framework per concurrency.
pub(in crate::bench) struct Baseline {
    url: String,
}

impl Baseline {
    /// The table as postgres-es documents it.
    pub(in crate::bench) async fn prepare(url: &str) -> Result<Self, BaselineError> {
        let mut connection = PgConnection::connect(url).await.map_err(BaselineError::Connect)?;
        sqlx::raw_sql(
            "CREATE TABLE events (aggregate_type text NOT NULL, aggregate_id text NOT NULL, \
             sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL, \
             payload json NOT NULL, metadata json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, sequence))",
        )
        .execute(&mut connection)
        .await
        .map_err(BaselineError::Prepare)?;
        Ok(Self { url: url.to_owned() })
    }

    /// Commands a second with `tasks` callers, each with a connection to itself.
    pub(in crate::bench) async fn measure(
        &self,
        tasks: usize,
        duration: Duration,
        round: u32,
    ) -> Result<f64, BaselineError> {
        let connections = u32::try_from(tasks).unwrap_or(u32::MAX);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(connections)
            .connect(&self.url)
            .await
            .map_err(BaselineError::Connect)?;
        let framework: Arc<PostgresCqrs<Received>> = Arc::new(postgres_cqrs(pool.clone(), Vec::new(), ()));
        let begun = Instant::now();
        let end = begun + duration;
        let mut callers = tokio::task::JoinSet::new();
        for task in 0..tasks {
            let framework = Arc::clone(&framework);
            callers.spawn(async move {
                let mut done = 0_u32;
                while Instant::now() < end {
                    let metadata = HashMap::from([("actor".to_owned(), "system:bench".to_owned())]);
                    let command = Recorded { body: PAYLOAD.to_owned() };
                    let stream = format!("evt_{round}_{tasks}_{task}_{done}");
                    framework
                        .execute_with_metadata(&stream, command, metadata)
                        .await
                        .map_err(BaselineError::Execute)?;
                    done += 1;
                }
                Ok::<u32, BaselineError>(done)
            });
        }
        let mut done = 0.0;
        while let Some(caller) = callers.join_next().await {
            done += f64::from(caller.map_err(BaselineError::Task)??);
        }
        let rate = done / begun.elapsed().as_secs_f64();
        pool.close().await;
        Ok(rate)
    }
}
