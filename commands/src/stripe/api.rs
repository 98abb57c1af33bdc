//! The port to Stripe's API, and its client over HTTP.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable as _};
use fanledger_domain::facts::{BalanceTransaction, TransferSnapshot};
use fanledger_domain::id::{CreatorId, StripeId};
use fanledger_domain::money::Money;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::stripe::{Unreadable, read_balance_transaction, read_transfer};
use fanledger_domain::time::Timestamp;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The API version that every request is pinned to.
pub const API_VERSION: &str = "2026-10-28.endive";
/// Stripe's own address.
pub const DEFAULT_BASE: &str = "https://api.stripe.com";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries after the first; what still fails then is tried again by the caller, later.
const RETRIES: usize = 4;
/// All tries of one request together, with what is waited between them: whoever asks within a transaction may let it idle for 30 s,
/// and has to write down the answer, too. A try that this leaves no time for is not made, or cut short.
pub const PATIENCE: Duration = Duration::from_secs(20);
const PAGE: u32 = 100;

/// Why Stripe's answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StripeApiError {
    /// The request did not get an answer.
    #[error("reach Stripe's API")]
    Transport(#[source] reqwest::Error),
    /// The client could not be made.
    #[error("set up the client of Stripe's API")]
    Client(#[source] reqwest::Error),
    /// Stripe answered with an error that may pass: too many requests, or its own fault.
    #[error("Stripe's API answered {0}; it is tried again")]
    Unavailable(StatusCode),
    /// Stripe refuses the key: every request will be.
    #[error("Stripe's API answered {0}: check FANLEDGER_STRIPE_API_KEY, its mode and its rights")]
    Refused(StatusCode),
    /// Stripe refuses this request, whoever makes it: what it asks for, or the way it does.
    #[error(
        "Stripe's API answered {0} to this request, and will again; where all fare so, check FANLEDGER_STRIPE_API_BASE"
    )]
    BadRequest(StatusCode),
    /// Stripe knows the request's Idempotency-Key with other content.
    #[error(
        "Stripe's API knows this request by its Idempotency-Key, with other content: was the program changed in between?"
    )]
    KeyReused,
    /// The answer is not what Stripe documents.
    #[error("read the answer of Stripe's API")]
    Unreadable(#[source] Unreadable),
    /// It is not even a list, or does not say where it goes on: what follows is not known, and would be missing in silence.
    #[error("read a list of Stripe's API: {0}")]
    UnreadableList(&'static str),
}

impl StripeApiError {
    /// Whether the same request may be answered later, with nothing changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Unavailable(_) => true,
            Self::Client(_)
            | Self::Refused(_)
            | Self::BadRequest(_)
            | Self::KeyReused
            | Self::Unreadable(_)
            | Self::UnreadableList(_) => false,
        }
    }
}

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The balance transactions.
    pub transactions: Vec<BalanceTransaction>,
    /// Those whose shape could not be read, by id where they have one.
    pub unreadable: Vec<String>,
    /// Where the next page begins; none where this is the last.
    pub after: Option<String>,
}

/// A transfer that Stripe is asked to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRequest<'a> {
    /// How much; in digits that Stripe takes ([`Money::round_to_payable`]).
    pub money: Money,
    /// The connected account.
    pub destination: &'a StripeId,
    /// Whose money it is.
    pub creator: &'a CreatorId,
    /// The run that it is of.
    pub run: PayoutRunId,
    /// Its transfer group and its idempotency key: the same reference is the same transfer.
    pub reference: &'a str,
}

/// What became of a request to make a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is made, now or by an earlier request of the same reference.
    Made(TransferSnapshot),
    /// It is not, and will not be.
    Declined {
        /// Stripe's code, `balance_insufficient`.
        code: String,
    },
}

/// What is asked of Stripe.
#[async_trait]
pub trait StripeApi: Send + Sync {
    /// A balance transaction by id; none where Stripe has none of that id.
    async fn balance_transaction(&self, id: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError>;

    /// Balance transactions made at or after `since`, newest first, by pages.
    async fn balance_transactions(&self, since: Option<Timestamp>, after: Option<&str>)
    -> Result<Page, StripeApiError>;

    /// Makes a transfer to a connected account.
    async fn create_transfer(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError>;

    /// The transfers of a group; ours have one each.
    async fn transfers_of_group(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError>;
}

/// Stripe's API over HTTP: key, pinned version, time-outs, retries with backoff and jitter, no redirects.
pub struct HttpStripeApi {
    client: reqwest::Client,
    base: String,
    key: Zeroizing<String>,
    patience: Duration,
}

#[derive(Deserialize)]
struct List {
    data: Vec<serde_json::Value>,
    has_more: bool,
}

impl HttpStripeApi {
    /// A client of the API at `base` (without `/v1`), with a secret or restricted key.
    pub fn new(base: &str, key: String) -> Result<Self, StripeApiError> {
        // The process may have chosen a provider already; any is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(StripeApiError::Client)?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: Zeroizing::new(key), patience: PATIENCE })
    }

    /// With so much time for all tries of one request together, instead of [`PATIENCE`].
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Option<serde_json::Value>, StripeApiError> {
        tried(self.patience, |time_limit| self.get_once(path, query, time_limit)).await
    }

    async fn get_once(
        &self,
        path: &str,
        query: &[(&str, String)],
        time_limit: Duration,
    ) -> Result<Option<serde_json::Value>, StripeApiError> {
        let request = self
            .client
            .get(format!("{}/v1/{path}", self.base))
            .timeout(time_limit)
            .bearer_auth(self.key.as_str())
            .header("Stripe-Version", API_VERSION)
            .query(query);
        let response = request.send().await.map_err(StripeApiError::Transport)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => response.json().await.map(Some).map_err(StripeApiError::Transport),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                Err(StripeApiError::Unavailable(status))
            }
            status => Err(refused(status)),
        }
    }

    /// A list. Where there is none, nobody asked Stripe.
    async fn list(&self, path: &str, query: &[(&str, String)]) -> Result<List, StripeApiError> {
        let answer = self.get(path, query).await?.ok_or(StripeApiError::BadRequest(StatusCode::NOT_FOUND))?;
        List::deserialize(answer).map_err(|_| StripeApiError::UnreadableList("it has no `data` or no `has_more`"))
    }

    /// The same key makes each try the same request.
    async fn post(&self, path: &str, form: &[(&str, String)], key: &str) -> Result<Posted, StripeApiError> {
        tried(self.patience, |time_limit| self.post_once(path, form, key, time_limit)).await
    }

    async fn post_once(
        &self,
        path: &str,
        form: &[(&str, String)],
        key: &str,
        time_limit: Duration,
    ) -> Result<Posted, StripeApiError> {
        let request = self
            .client
            .post(format!("{}/v1/{path}", self.base))
            .timeout(time_limit)
            .bearer_auth(self.key.as_str())
            .header("Stripe-Version", API_VERSION)
            .header("Idempotency-Key", key)
            .form(form);
        let response = request.send().await.map_err(StripeApiError::Transport)?;
        match response.status() {
            status if status.is_success() => response.json().await.map(Posted::Done).map_err(StripeApiError::Transport),
            // 409: the first request with this key is still under way.
            status
                if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT)
                    || status.is_server_error() =>
            {
                Err(StripeApiError::Unavailable(status))
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYMENT_REQUIRED => {
                let ErrorBody { error } = response.json().await.map_err(StripeApiError::Transport)?;
                // The same key with another request: somebody else's, or a mistake of ours. Never a refusal of the transfer.
                if error.kind == "idempotency_error" {
                    return Err(StripeApiError::KeyReused);
                }
                Ok(Posted::Declined { code: word(error.code.unwrap_or(error.kind)) })
            }
            status => Err(refused(status)),
        }
    }
}

/// An answer that will be the same next time.
fn refused(status: StatusCode) -> StripeApiError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StripeApiError::Refused(status),
        status => StripeApiError::BadRequest(status),
    }
}

/// Makes a request, and makes it again for as long as it may pass and patience lasts.
async fn tried<T, F: Future<Output = Result<T, StripeApiError>>>(
    patience: Duration,
    once: impl Fn(Duration) -> F,
) -> Result<T, StripeApiError> {
    let deadline = Instant::now() + patience;
    (|| once(REQUEST_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()))))
        .retry(backoff())
        .when(|error| error.may_pass() && Instant::now() < deadline)
        .notify(|error, delay| tracing::warn!(%error, ?delay, "Stripe's API is tried again"))
        .await
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(RETRIES)
        .with_jitter()
}

/// What became of a POST.
enum Posted {
    Done(serde_json::Value),
    Declined { code: String },
}

/// An error as Stripe sends it. <https://docs.stripe.com/api/errors>
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

/// Its message is not read: it may hold anything, and what is read here ends in the journal.
#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
}

/// One of Stripe's words, or that it is none.
fn word(text: String) -> String {
    let is_word = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_word { text } else { "unknown".to_owned() }
}

#[async_trait]
impl StripeApi for HttpStripeApi {
    async fn balance_transaction(&self, id: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError> {
        // The form of an id leaves nothing that would need escaping in a path.
        let answer = self.get(&format!("balance_transactions/{id}"), &[]).await?;
        answer.map(|value| read_balance_transaction(&value).map_err(StripeApiError::Unreadable)).transpose()
    }

    async fn balance_transactions(
        &self,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page, StripeApiError> {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(since.map(|since| ("created[gte]", since.as_unix_seconds().to_string())));
        query.extend(after.map(|after| ("starting_after", after.to_owned())));
        let list = self.list("balance_transactions", &query).await?;
        let id_of = |value: &serde_json::Value| value.get("id").and_then(serde_json::Value::as_str).map(str::to_owned);
        // No next page means that this is the last, so what names none and is not must be told.
        let after = match (list.has_more, list.data.last().and_then(id_of)) {
            (false, _) => None,
            (true, Some(id)) => Some(id),
            (true, None) => return Err(StripeApiError::UnreadableList("there is more, and its last item has no id")),
        };
        let mut page = Page { transactions: Vec::new(), unreadable: Vec::new(), after };
        for value in &list.data {
            match read_balance_transaction(value) {
                Ok(transaction) => page.transactions.push(transaction),
                Err(_) => page.unreadable.push(id_of(value).unwrap_or_default()),
            }
        }
        Ok(page)
    }

    async fn create_transfer(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        let form = [
            ("amount", request.money.minor().to_string()),
            ("currency", request.money.currency().to_string()),
            ("destination", request.destination.to_string()),
            ("transfer_group", request.reference.to_owned()),
            ("metadata[creator_id]", request.creator.to_string()),
            ("metadata[payout_run]", request.run.to_string()),
        ];
        match self.post("transfers", &form, request.reference).await? {
            Posted::Done(value) => read_transfer(&value).map(Created::Made).map_err(StripeApiError::Unreadable),
            Posted::Declined { code } => Ok(Created::Declined { code }),
        }
    }

    async fn transfers_of_group(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        let query = [("transfer_group", group.to_owned()), ("limit", PAGE.to_string())];
        let list = self.list("transfers", &query).await?;
        list.data.iter().map(|value| read_transfer(value).map_err(StripeApiError::Unreadable)).collect()
    }
}
