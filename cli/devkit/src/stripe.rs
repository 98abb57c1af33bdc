//! Stripe, as far as we need one without a network: its signatures and a stand-in for its API.

mod transfers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The header `Stripe-Signature` for `body`, as Stripe makes it: HMAC-SHA256 with the endpoint's secret, used as
/// written, over the time in seconds, a dot and the exact bytes.
///
/// <https://docs.stripe.com/webhooks#verify-manually>
pub fn sign(secret: &str, timestamp: i64, body: &[u8]) -> String {
    format!("t={timestamp},v1={}", signature(secret, timestamp, body))
}

/// The lowercase hex that follows `v1=`.
pub fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        // HMAC takes a key of any length.
        return String::new();
    };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// The stand-in could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// No listener on loopback.
    #[error("listen on {address} for the stand-in for Stripe's API")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// What the next calls get instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of this HTTP status in Stripe's shape: 429, 500.
    Status(u16),
    /// No answer for this long, then the right one.
    Delay(Duration),
    /// It is done, and 500 is answered: what a lost answer looks like to a client.
    AnswerLost,
}

/// A call that the stand-in received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// The header `Stripe-Version`.
    pub stripe_version: Option<String>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The status that was answered.
    pub status: u16,
}

/// A stand-in for Stripe's API on loopback, which knows the balance transactions that it is taught, and makes transfers.
///
/// It speaks `GET /v1/balance_transactions/{id}` and the paged, filtered list of them, `POST /v1/transfers` with
/// `Idempotency-Key`, and the list of transfers by group; every other call under `/v1` is recorded and answered as Stripe
/// answers an unknown URL. A transfer needs as much in the balance as the net of what was taught adds up to, and an account
/// that is not restricted. `POST /_stand_in/balance_transactions` with a JSON array teaches it from another process, `POST
/// /_stand_in/restricted` with a JSON array of account ids restricts these and no others. It stops when dropped.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Mutex<Store>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Store {
    key: String,
    /// In order of arrival, which breaks ties among equal times, as newer ids do at Stripe.
    transactions: Vec<Value>,
    index: HashMap<String, usize>,
    calls: Vec<Call>,
    failures: VecDeque<Failure>,
    failures_by_id: HashMap<String, VecDeque<Failure>>,
    /// Oldest first.
    transfers: Vec<Value>,
    /// By idempotency key: what was asked, and the status and body that were answered.
    answered: HashMap<String, transfers::Answered>,
    restricted: BTreeSet<String>,
}

impl Store {
    fn put(&mut self, transaction: Value) {
        let Some(id) = transaction["id"].as_str().map(str::to_owned) else { return };
        match self.index.get(&id) {
            Some(at) => self.transactions[*at] = transaction,
            None => {
                self.index.insert(id, self.transactions.len());
                self.transactions.push(transaction);
            }
        }
    }

    fn next_failure(&mut self, id: Option<&str>) -> Option<Failure> {
        let by_id = id.and_then(|id| self.failures_by_id.get_mut(id)).and_then(VecDeque::pop_front);
        by_id.or_else(|| self.failures.pop_front())
    }
}

impl StandIn {
    /// Starts it on a port that the system chooses; `key` is the API key that calls must carry.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(key: &str) -> Result<Self, StandInError> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), key).await
    }

    /// Starts it at an address.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start_on(address: SocketAddr, key: &str) -> Result<Self, StandInError> {
        let failed = |source| StandInError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Mutex::new(Store { key: key.to_owned(), ..Store::default() }));
        let router = Router::new()
            .route("/v1/balance_transactions", get(list))
            .route("/v1/balance_transactions/{id}", get(retrieve))
            .route("/v1/transfers", get(transfers::list).post(transfers::create))
            .route("/_stand_in/balance_transactions", post(teach).layer(DefaultBodyLimit::disable()))
            .route("/_stand_in/restricted", post(transfers::restrict))
            .fallback(unknown)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the stand-in for Stripe's API ended");
            }
        });
        Ok(Self { address: bound, shared, server })
    }

    /// What `STRIPE_API_BASE` is to be: no `/v1`, no slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Teaches it a balance transaction, or replaces the one with the same id. Its `source` may be an object: it is
    /// given as an id unless the caller expands it, as Stripe does.
    pub fn put(&self, balance_transaction: Value) {
        lock(&self.shared).put(balance_transaction);
    }

    /// Teaches it many.
    pub fn put_all(&self, balance_transactions: impl IntoIterator<Item = Value>) {
        let mut store = lock(&self.shared);
        balance_transactions.into_iter().for_each(|transaction| store.put(transaction));
    }

    /// The next `n` calls fail with this HTTP status.
    pub fn fail_next(&self, n: usize, status: u16) {
        lock(&self.shared).failures.extend(std::iter::repeat_n(Failure::Status(status), n));
    }

    /// The next call is answered after this long.
    pub fn delay_next(&self, delay: Duration) {
        lock(&self.shared).failures.push_back(Failure::Delay(delay));
    }

    /// The next `n` calls for this balance transaction, or transfers to this account, fail so.
    pub fn fail_next_for(&self, id: &str, n: usize, failure: Failure) {
        lock(&self.shared).failures_by_id.entry(id.to_owned()).or_default().extend(std::iter::repeat_n(failure, n));
    }

    /// The calls under `/v1` so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared).calls.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = Arc<Mutex<Store>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Store> {
    // Nothing under this lock leaves the store half changed.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one call carries that is recorded.
struct Received {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Received {
    fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    /// Checks the key, plays a planned failure or else answers, and records the call with its outcome.
    async fn answered(
        self,
        shared: &Shared,
        id: Option<&str>,
        answer: impl FnOnce(&mut Store) -> Response,
    ) -> Response {
        let (authorised, failure) = {
            let mut store = lock(shared);
            let authorised = self.header("authorization").is_some_and(|sent| sent == format!("Bearer {}", store.key));
            (authorised, if authorised { store.next_failure(id) } else { None })
        };
        if let Some(Failure::Delay(delay)) = failure {
            tokio::time::sleep(delay).await;
        }
        let mut store = lock(shared);
        let response = match failure {
            _ if !authorised => {
                problem(StatusCode::UNAUTHORIZED, "invalid_request_error", None, "Invalid API Key provided")
            }
            Some(Failure::Status(status)) => injected(status),
            Some(Failure::AnswerLost) => {
                answer(&mut store);
                injected(500)
            }
            Some(Failure::Delay(_)) | None => answer(&mut store),
        };
        let call = Call {
            method: self.method.to_string(),
            target: self.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            stripe_version: self.header("stripe-version"),
            idempotency_key: self.header("idempotency-key"),
            status: response.status().as_u16(),
        };
        store.calls.push(call);
        response
    }
}

fn injected(status: u16) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match code {
        StatusCode::TOO_MANY_REQUESTS => {
            problem(code, "invalid_request_error", Some("rate_limit"), "Request rate limit exceeded.")
        }
        _ => problem(code, "api_error", None, "An unknown error occurred"),
    }
}

/// An error as Stripe sends it. <https://docs.stripe.com/api/errors>
fn problem(status: StatusCode, kind: &str, code: Option<&str>, message: &str) -> Response {
    let mut error = json!({ "type": kind, "message": message });
    if let Some(code) = code {
        error["code"] = code.into();
    }
    (status, axum::Json(json!({ "error": error }))).into_response()
}

async fn retrieve(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let received = Received { method, uri, headers };
    received
        .answered(&shared, Some(&id), |store| match store.index.get(&id) {
            Some(at) => axum::Json(shown(&store.transactions[*at], expands(&query, "source"))).into_response(),
            None => {
                let message = format!("No such balance transaction: '{id}'");
                problem(StatusCode::NOT_FOUND, "invalid_request_error", Some("resource_missing"), &message)
            }
        })
        .await
}

async fn list(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let received = Received { method, uri, headers };
    received.answered(&shared, None, |store| page(store, &query)).await
}

/// One page, newest first. <https://docs.stripe.com/api/balance_transactions/list>
fn page(store: &Store, query: &[(String, String)]) -> Response {
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let bound = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let limit = match value("limit").map(str::parse::<usize>) {
        None => 10,
        Some(Ok(limit @ 1..=100)) => limit,
        Some(_) => {
            return problem(StatusCode::BAD_REQUEST, "invalid_request_error", None, "limit must be between 1 and 100");
        }
    };
    let created = |transaction: &Value| transaction["created"].as_i64().unwrap_or_default();
    let mut matching: Vec<(usize, &Value)> = store
        .transactions
        .iter()
        .enumerate()
        .filter(|(_, transaction)| {
            let at = created(transaction);
            bound("created[gte]").is_none_or(|bound| at >= bound)
                && bound("created[gt]").is_none_or(|bound| at > bound)
                && bound("created[lte]").is_none_or(|bound| at <= bound)
                && bound("created[lt]").is_none_or(|bound| at < bound)
                && value("type").is_none_or(|kind| transaction["type"] == kind)
        })
        .collect();
    matching.sort_by_key(|(arrival, transaction)| std::cmp::Reverse((created(transaction), *arrival)));
    let start = match value("starting_after") {
        None => 0,
        Some(after) => match matching.iter().position(|(_, transaction)| transaction["id"] == after) {
            Some(at) => at + 1,
            None => {
                let message = format!("No such balance transaction: '{after}'");
                return problem(StatusCode::BAD_REQUEST, "invalid_request_error", Some("resource_missing"), &message);
            }
        },
    };
    let expand = expands(query, "data.source");
    let data: Vec<Value> = matching[start..].iter().take(limit).map(|(_, shown_as)| shown(shown_as, expand)).collect();
    let has_more = matching.len() - start > data.len();
    let list = json!({ "object": "list", "url": "/v1/balance_transactions", "has_more": has_more, "data": data });
    axum::Json(list).into_response()
}

fn expands(query: &[(String, String)], field: &str) -> bool {
    query.iter().any(|(key, value)| (key == "expand[]" || key.starts_with("expand[")) && value == field)
}

/// With its source as an id unless expanded.
fn shown(transaction: &Value, expand: bool) -> Value {
    let mut shown = transaction.clone();
    if !expand && shown["source"].is_object() {
        shown["source"] = shown["source"]["id"].take();
    }
    shown
}

async fn unknown(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let message = format!("Unrecognized request URL ({method}: {})", uri.path());
    let received = Received { method, uri, headers };
    received.answered(&shared, None, |_| problem(StatusCode::NOT_FOUND, "invalid_request_error", None, &message)).await
}

async fn teach(State(shared): State<Shared>, axum::Json(transactions): axum::Json<Vec<Value>>) -> Response {
    let mut store = lock(&shared);
    let received = transactions.len();
    transactions.into_iter().for_each(|transaction| store.put(transaction));
    axum::Json(json!({ "received": received })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figure is from Python's hmac, with Stripe's published recipe.
    #[test]
    fn a_signature_is_hmac_over_time_dot_body() {
        assert_eq!(
            sign("whsec_test", 1_700_000_000, b"{\"id\":\"evt_1\"}"),
            "t=1700000000,v1=c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925"
        );
    }

    fn store_of(n: i64) -> Store {
        let mut store = Store::default();
        (0..n).for_each(|i| {
            store.put(json!({ "id": format!("txn_{i}"), "created": 100 + i / 2, "source": { "id": "ch_1" } }))
        });
        store
    }

    async fn ids(store: &Store, query: &[(&str, &str)]) -> (Vec<String>, bool) {
        let query: Vec<(String, String)> =
            query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let body = axum::body::to_bytes(page(store, &query).into_body(), usize::MAX).await.unwrap();
        let list: Value = serde_json::from_slice(&body).unwrap();
        let ids = list["data"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect();
        (ids, list["has_more"].as_bool().unwrap())
    }

    #[tokio::test]
    async fn pages_are_newest_first_and_lose_nothing_among_equal_times() {
        let store = store_of(7);
        let mut seen: Vec<String> = Vec::new();
        let mut more = true;
        while more {
            let after = seen.last().cloned().unwrap_or_default();
            let mut query = vec![("limit", "3")];
            if !seen.is_empty() {
                query.push(("starting_after", &after));
            }
            let (page, has_more) = ids(&store, &query).await;
            seen.extend(page);
            more = has_more;
        }
        assert_eq!(seen, (0..7).rev().map(|i| format!("txn_{i}")).collect::<Vec<_>>());
        assert_eq!(ids(&store, &[("created[gte]", "102")]).await.0.len(), 3);
    }

    #[test]
    fn a_source_is_an_id_unless_expanded() {
        let store = store_of(1);
        assert_eq!(shown(&store.transactions[0], false)["source"], "ch_1");
        assert_eq!(shown(&store.transactions[0], true)["source"]["id"], "ch_1");
    }
}
