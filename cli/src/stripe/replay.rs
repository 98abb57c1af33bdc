//! Posting events to the gateway as Stripe does: signed anew for each attempt, repeated while it cannot be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanledger_devkit::stripe::sign;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::settings::{KeyError, Secret, Settings};
use crate::stripe::events::EventBody;

/// How long one event is tried while the gateway cannot be reached or says 503.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Deliveries that were answered, repeats after a failed attempt not counted.
    pub sent: u64,
    /// Stored for the first time.
    pub accepted: u64,
    /// Known already, with the same body.
    pub duplicate: u64,
    /// The event's id is known with another body: what was sent was not stored.
    pub conflict: u64,
    /// Answered with anything but 2xx.
    pub refused: u64,
}

/// A delivery that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which event.
    pub origin: String,
    /// The status.
    pub status: u16,
    /// What the gateway said, shortened.
    pub answer: String,
}

/// The counts, and the first refusals.
#[derive(Debug, Default)]
pub struct Report {
    /// How many.
    pub counts: Counts,
    /// The first few.
    pub refusals: Vec<Refusal>,
    /// The first few that are known with another body, and the position of what is known.
    pub conflicts: Vec<(String, u64)>,
    /// The highest position that was answered.
    pub position: u64,
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway, `http://127.0.0.1:8080`.
    pub gateway_url: String,
    /// What to sign with.
    pub secret: Secret,
    /// Deliveries under way at once.
    pub concurrency: usize,
    /// Deliveries a second at most; `None`: as fast as they are answered.
    pub rate: Option<u32>,
}

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No HTTP client could be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The gateway could not be reached for a minute.
    #[error("reach the gateway at {url}; is it running? start `fanledger dev`, or name it with --gateway")]
    Unreachable {
        /// Which.
        url: String,
        /// What the connection said last.
        #[source]
        source: reqwest::Error,
    },
    /// The gateway answered 503 for a minute.
    #[error("the gateway at {url} answered 503 for {} s: its journal is unavailable; see `fanledger doctor`", PATIENCE.as_secs())]
    Unavailable {
        /// Which.
        url: String,
    },
    /// A task of ours ended early.
    #[error("a sending task ended before its work was done")]
    Task(#[source] tokio::task::JoinError),
}

/// Repeats each event `extra` more times and shuffles, both by `seed`; without a shuffle repeats follow their event.
pub fn arrange(events: Vec<EventBody>, extra: u32, shuffle: bool, seed: u64) -> Vec<Arc<EventBody>> {
    let mut deliveries: Vec<Arc<EventBody>> =
        events.into_iter().map(Arc::new).flat_map(|event| std::iter::repeat_n(event, 1 + extra as usize)).collect();
    if shuffle {
        deliveries.shuffle(&mut StdRng::seed_from_u64(seed));
    }
    deliveries
}

/// Sends all of `deliveries`; `progress` is told after each.
///
/// # Errors
/// When the gateway cannot be reached for a minute. Refusals are counted and are no error here.
pub async fn send(
    deliveries: Vec<Arc<EventBody>>,
    options: &Options,
    progress: impl Fn() + Clone + Send + 'static,
) -> Result<Report, ReplayError> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(options.concurrency)
        .build()
        .map_err(ReplayError::Client)?;
    let deliveries: Arc<[Arc<EventBody>]> = deliveries.into();
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..options.concurrency.max(1) {
        let worker = Worker {
            http: http.clone(),
            url: format!("{}/webhooks/stripe", options.gateway_url.trim_end_matches('/')),
            secret: options.secret.clone(),
        };
        let (deliveries, next, progress, rate) =
            (Arc::clone(&deliveries), Arc::clone(&next), progress.clone(), options.rate);
        workers.spawn(async move {
            let mut report = Report::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(event) = deliveries.get(index) else { return Ok(report) };
                if let Some(rate) = rate {
                    let due =
                        Duration::from_secs(1).saturating_mul(u32::try_from(index).unwrap_or(u32::MAX)) / rate.max(1);
                    tokio::time::sleep_until((begun + due).into()).await;
                }
                worker.deliver(event, &mut report).await?;
                progress();
            }
        });
    }
    let mut total = Report::default();
    // Dropping the set on the first error ends the other workers.
    while let Some(worker) = workers.join_next().await {
        total.add(worker.map_err(ReplayError::Task)??);
    }
    Ok(total)
}

impl Counts {
    /// Whether everything that was sent is stored, now or before.
    pub const fn is_all_stored(&self) -> bool {
        self.refused == 0 && self.conflict == 0
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.counts.sent += other.counts.sent;
        self.counts.accepted += other.counts.accepted;
        self.counts.duplicate += other.counts.duplicate;
        self.counts.conflict += other.counts.conflict;
        self.counts.refused += other.counts.refused;
        self.position = self.position.max(other.position);
        let room = REFUSALS_KEPT.saturating_sub(self.refusals.len());
        self.refusals.extend(other.refusals.into_iter().take(room));
        let room = REFUSALS_KEPT.saturating_sub(self.conflicts.len());
        self.conflicts.extend(other.conflicts.into_iter().take(room));
    }
}

/// What to sign with: the first of the secrets that the gateway accepts.
///
/// # Errors
/// When there is none, and none may be made up.
pub fn signing_secret(settings: &Settings) -> Result<Secret, KeyError> {
    settings.webhook_secrets()?.into_iter().next().ok_or(KeyError::Refused { setting: "STRIPE_WEBHOOK_SECRETS" })
}

/// Names the first refusals and conflicts on standard error.
pub fn show_refusals(report: &Report) {
    for (origin, position) in &report.conflicts {
        eprintln!(
            "conflict: {origin}: its id is known with another body, at position {position}; this one was not stored"
        );
    }
    for Refusal { origin, status, answer } in &report.refusals {
        eprintln!("refused: {origin}: {status} {answer}");
    }
}

/// Refusals that are kept to be shown; the rest are counted.
const REFUSALS_KEPT: usize = 10;

struct Worker {
    http: reqwest::Client,
    url: String,
    secret: Secret,
}

#[derive(Deserialize)]
struct Received {
    position: u64,
    duplicate: bool,
    #[serde(default)]
    conflict: bool,
}

impl Worker {
    async fn deliver(&self, event: &EventBody, report: &mut Report) -> Result<(), ReplayError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            let signature = sign(self.secret.reveal(), clock::unix_seconds(), event.body.as_bytes());
            let request = self
                .http
                .post(&self.url)
                .header("content-type", "application/json; charset=utf-8")
                .header("stripe-signature", signature)
                .body(event.body.clone());
            match request.send().await {
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    return self.count(event, answer, report).await;
                }
                Ok(_) if Instant::now() > deadline => return Err(ReplayError::Unavailable { url: self.url.clone() }),
                Err(source) if Instant::now() > deadline => {
                    return Err(ReplayError::Unreachable { url: self.url.clone(), source });
                }
                // Sent again like Stripe would: what was stored after all answers as a duplicate.
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn count(
        &self,
        event: &EventBody,
        answer: reqwest::Response,
        report: &mut Report,
    ) -> Result<(), ReplayError> {
        let status = answer.status();
        let body = answer.bytes().await.unwrap_or_default();
        report.counts.sent += 1;
        match serde_json::from_slice::<Received>(&body) {
            Ok(received) if status.is_success() => {
                report.position = report.position.max(received.position);
                if received.conflict {
                    report.counts.conflict += 1;
                    if report.conflicts.len() < REFUSALS_KEPT {
                        report.conflicts.push((event.origin.clone(), received.position));
                    }
                } else if received.duplicate {
                    report.counts.duplicate += 1;
                } else {
                    report.counts.accepted += 1;
                }
            }
            Ok(_) | Err(_) => {
                report.counts.refused += 1;
                if report.refusals.len() < REFUSALS_KEPT {
                    let answer = String::from_utf8_lossy(&body).chars().take(300).collect();
                    report.refusals.push(Refusal { origin: event.origin.clone(), status: status.as_u16(), answer });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(n: usize) -> Vec<EventBody> {
        (0..n).map(|n| EventBody { origin: n.to_string(), body: n.to_string() }).collect()
    }

    fn bodies(deliveries: &[Arc<EventBody>]) -> Vec<&str> {
        deliveries.iter().map(|event| event.body.as_str()).collect()
    }

    #[test]
    fn repeats_and_order_depend_on_the_seed_alone() {
        assert_eq!(bodies(&arrange(events(2), 1, false, 0)), ["0", "0", "1", "1"]);
        let shuffled = arrange(events(50), 1, true, 1);
        assert_eq!(shuffled.len(), 100);
        assert_eq!(bodies(&shuffled), bodies(&arrange(events(50), 1, true, 1)));
        assert_ne!(bodies(&shuffled), bodies(&arrange(events(50), 1, true, 2)));
    }
}
