//! Webhooks, sent as Stripe sends them: signed anew for each attempt, again until a 200, some of them twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanledger_cli::clock;
use fanledger_devkit::stripe::sign;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{PATIENCE, SECRET};

/// Deliveries under way at once.
const CONCURRENCY: usize = 8;

/// Where the gateways are; a test changes it when it starts one anew.
pub type Gateways = Arc<Mutex<Vec<String>>>;

/// What was answered with 200.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Each event's id and the position that was answered.
    pub positions: BTreeMap<String, u64>,
    /// How many deliveries were answered as duplicates.
    pub duplicates: u64,
    /// How many attempts got no answer, or 503.
    pub repeated: u64,
}

/// A load under way.
pub struct Load {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
    /// How many deliveries were acknowledged.
    pub progress: watch::Receiver<usize>,
}

struct Shared {
    http: reqwest::Client,
    gateways: Gateways,
    deliveries: Vec<(String, String)>,
    next: AtomicUsize,
    acknowledged: Mutex<Acknowledged>,
    progress: watch::Sender<usize>,
}

impl Load {
    /// Begins to send each of `events`, every fifth twice.
    pub fn start(events: &[Value], gateways: Gateways) -> Self {
        let deliveries: Vec<(String, String)> = events
            .iter()
            .enumerate()
            .flat_map(|(n, event)| {
                let delivery = (event["id"].as_str().unwrap().to_owned(), event.to_string());
                std::iter::repeat_n(delivery, if n.is_multiple_of(5) { 2 } else { 1 })
            })
            .collect();
        let (progress, seen) = watch::channel(0);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).build().unwrap();
        let (next, acknowledged) = (AtomicUsize::new(0), Mutex::default());
        let shared = Arc::new(Shared { http, gateways, deliveries, next, acknowledged, progress });
        let mut workers = JoinSet::new();
        for _ in 0..CONCURRENCY {
            workers.spawn(Arc::clone(&shared).work());
        }
        Self { workers, shared, progress: seen }
    }

    /// How many deliveries there are.
    pub fn deliveries(&self) -> usize {
        self.shared.deliveries.len()
    }

    /// Waits until so many deliveries are acknowledged.
    pub async fn reached(&mut self, deliveries: usize) {
        let wanted = deliveries.min(self.deliveries());
        tokio::select! {
            biased;
            // A worker ends early only by failing.
            reached = tokio::time::timeout(PATIENCE, self.progress.wait_for(|done| *done >= wanted)) => {
                drop(reached.expect("webhooks are acknowledged").unwrap());
            }
            Some(ended) = self.workers.join_next() => ended.unwrap(),
        }
    }

    /// Sends no more: what was not answered by now is not acknowledged.
    pub async fn abandon(mut self) -> Acknowledged {
        self.workers.shutdown().await;
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }

    /// Waits until everything is acknowledged.
    pub async fn finish(mut self) -> Acknowledged {
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }
}

impl Shared {
    async fn work(self: Arc<Self>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((id, body)) = self.deliveries.get(index) else { return };
            self.deliver(id, body, index).await;
            self.progress.send_modify(|done| *done += 1);
        }
    }

    async fn deliver(&self, id: &str, body: &str, index: usize) {
        let deadline = Instant::now() + PATIENCE;
        for attempt in 0.. {
            let sent = Instant::now();
            let gateway = {
                let gateways = self.gateways.lock().unwrap();
                gateways[(index + attempt) % gateways.len()].clone()
            };
            let answer = self
                .http
                .post(format!("{gateway}/webhooks/stripe"))
                .header("stripe-signature", sign(SECRET, clock::unix_seconds(), body.as_bytes()))
                .body(body.to_owned())
                .send()
                .await;
            let refused = match read(answer).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, text)) => text,
                Ok((status, text)) => {
                    assert_eq!(status, StatusCode::OK, "{id}: {text}");
                    self.acknowledge(id, &serde_json::from_str(&text).unwrap());
                    return;
                }
                // A gateway that is killed in the middle of its answer has not given one.
                Err(error) => format!("{error:?}"),
            };
            assert!(
                Instant::now() < deadline,
                "{id} was not taken within {PATIENCE:?}; attempt {attempt} went to {gateway} and after {:?} came to: {refused}",
                sent.elapsed()
            );
            self.acknowledged.lock().unwrap().repeated += 1;
            // The load's pace while no gateway answers, as Stripe's: the next attempt is what finds out whether one does.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn acknowledge(&self, id: &str, answer: &Value) {
        let position = answer["position"].as_u64().unwrap();
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.duplicates += u64::from(answer["duplicate"] == true);
        let first = *acknowledged.positions.entry(id.to_owned()).or_insert(position);
        assert_eq!(first, position, "{id} was answered with two positions");
    }
}

/// An answer's status and body.
async fn read(answer: reqwest::Result<reqwest::Response>) -> reqwest::Result<(StatusCode, String)> {
    let answer = answer?;
    Ok((answer.status(), answer.text().await?))
}
