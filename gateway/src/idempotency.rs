//! `Idempotency-Key`: the same POST again gets the first answer again, and does nothing again. A refusal, which did nothing, is no
//! such answer: the same POST is judged anew, and a mended one may come under the same key. Where a gateway died on its way nobody knows
//! what was done: then the key is the same POST's alone.
//!
//! The claim, the answer and their lease are in Postgres, so it holds across gateways and restarts. The command runs in a
//! task of its own: a client that goes away half-way finds the answer when it asks again.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fanledger_commands::with_causes;
use futures::FutureExt;
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::auth::Caller;
use crate::edge::RequestId;
use crate::limits::{API_BYTES_MAX, read_body};
use crate::problem::{Kind, Problem, render};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is a repetition.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// An answer to a command is a receipt or a problem, and far below this.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Well above what a request may take; a gateway that died gives its claims back after this.
const LEASE_SECONDS: f64 = 60.0;
/// The headers of an answer that belong to it, rather than to the connection or the moment.
const KEPT_HEADERS: [&str; 3] = ["content-type", "location", "journal-position"];
/// Forgetting goes in steps of so many.
const FORGET_BATCH: i32 = 500;
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Where answers are kept.
#[derive(Clone)]
pub(crate) struct Idempotency {
    pub(crate) pool: PgPool,
    pub(crate) tasks: TaskTracker,
    pub(crate) body_read_timeout: Duration,
}

/// A key's place and what was asked under it.
#[derive(Clone, Copy)]
struct Claim {
    scope: [u8; 32],
    request: [u8; 32],
    claim: Uuid,
}

/// What there is under a key.
enum Found {
    Claimed,
    InFlight,
    Misuse,
    Answered(Response),
}

/// A digest over parts, each preceded by its length, so that no two lists of parts read alike.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn key_of(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=255).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic) => {
            Ok(Some(key.as_bytes()))
        }
        (Some(_), _) => Err(Problem::new(Kind::ParametersInvalid, "The header Idempotency-Key is not valid.")
            .with_error("Idempotency-Key", "expected once, with 1 to 255 visible ASCII characters")),
    }
}

/// Answers a POST with a key from what is kept, or runs it and keeps its answer. Everything else passes.
pub(crate) async fn replay(State(idempotency): State<Idempotency>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    match idempotency.answer(request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

impl Idempotency {
    async fn answer(self, request: Request, next: Next) -> Result<Response, Problem> {
        let Some(key) = key_of(request.headers())?.map(<[u8]>::to_vec) else { return Ok(next.run(request).await) };
        let (Some(caller), Some(route)) =
            (request.extensions().get::<Caller>(), request.extensions().get::<MatchedPath>())
        else {
            // The router puts the guard in front; without it a key would not be scoped to its owner.
            return Err(Problem::new(Kind::Internal, "The failure was logged under the request's id."));
        };
        let scope = digest(&[caller.subject.as_bytes(), route.as_str().as_bytes(), &key]);
        let (parts, body) = request.into_parts();
        let body = read_body(&parts.headers, body, API_BYTES_MAX, self.body_read_timeout).await?;
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let asked = digest(&[parts.method.as_str().as_bytes(), path.as_bytes(), &body]);
        let claim = Claim { scope, request: asked, claim: Uuid::now_v7() };

        match self.claim(claim).await.map_err(|error| Problem::unavailable(&error))? {
            Found::Answered(response) => Ok(response),
            Found::InFlight => {
                Err(Problem::new(Kind::IdempotencyInFlight, "Ask again for its answer in a moment.")
                    .retry_after_seconds(1))
            }
            Found::Misuse => Err(Problem::new(Kind::IdempotencyKeyReused, "Use a new key for a new request.")),
            Found::Claimed => {
                let request = Request::from_parts(parts, Body::from(body));
                let tasks = self.tasks.clone();
                let running = tasks.spawn(self.run(claim, request, next).in_current_span());
                running.await.map_err(|error| Problem::internal(&error))
            }
        }
    }

    async fn run(self, claim: Claim, request: Request, next: Next) -> Response {
        let request_id = request.extensions().get::<RequestId>().map_or_else(|| "".into(), |id| id.0.clone());
        let response = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = response.unwrap_or_else(|_| {
            metrics::counter!("fanledger_gateway_panics_total").increment(1);
            tracing::error!("a command panicked");
            Problem::new(Kind::Internal, "The failure was logged under the request's id.").into_response()
        });
        let response = render(response, &request_id);
        // Where nothing was done, doing it again is safe, and what stood in the way may be gone.
        if !response.status().is_success() || is_not_to_be_stored(response.headers()) {
            if let Err(error) = self.release(claim).await {
                tracing::warn!(error = %with_causes(&error), "an Idempotency-Key was not released; the same request may use it when its lease ends");
            }
            return response;
        }
        let (parts, body) = response.into_parts();
        let body = match axum::body::to_bytes(body, ANSWER_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return Problem::internal(&error).into_response(),
        };
        if let Err(error) = self.keep(claim, parts.status, &parts.headers, &body).await {
            // The command is done and says so; repeating it after the lease is judged by its stream.
            tracing::warn!(error = %with_causes(&error), "an answer was not kept under its Idempotency-Key");
        }
        Response::from_parts(parts, Body::from(body))
    }

    async fn claim(&self, claim: Claim) -> Result<Found, sqlx::Error> {
        let row = sqlx::query(
            "SELECT outcome, status, headers, body FROM control.http_claim($1, $2, $3, make_interval(secs => $4))",
        )
        .bind(claim.scope.as_slice())
        .bind(claim.request.as_slice())
        .bind(claim.claim)
        .bind(LEASE_SECONDS)
        .fetch_one(&self.pool)
        .await?;
        Ok(match row.try_get::<&str, _>("outcome")? {
            "claimed" => Found::Claimed,
            "in_flight" => Found::InFlight,
            "misuse" => Found::Misuse,
            _ => Found::Answered(kept(row.try_get("status")?, row.try_get("headers")?, row.try_get("body")?)),
        })
    }

    async fn keep(
        &self,
        claim: Claim,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), sqlx::Error> {
        let mut pairs: Vec<&str> = Vec::new();
        for name in KEPT_HEADERS {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                pairs.extend([name, value]);
            }
        }
        sqlx::query("SELECT control.http_answer($1, $2, $3, $4, $5)")
            .bind(claim.scope.as_slice())
            .bind(claim.claim)
            // A status has three digits.
            .bind(i16::try_from(status.as_u16()).unwrap_or(i16::MAX))
            .bind(pairs)
            .bind(body.as_ref())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn release(&self, claim: Claim) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT control.http_release($1, $2)")
            .bind(claim.scope.as_slice())
            .bind(claim.claim)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets what is older than seven days, in small batches, until the token is cancelled.
    pub(crate) async fn forget(self, shutdown: CancellationToken) {
        loop {
            match sqlx::query_scalar::<_, i64>("SELECT control.http_forget($1)")
                .bind(FORGET_BATCH)
                .fetch_one(&self.pool)
                .await
            {
                Ok(count) if count >= i64::from(FORGET_BATCH) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = %with_causes(&error), "old answers were not forgotten; trying again later")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(FORGET_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// What must not lie anywhere but with whoever asked: the key is free again, and the same request is a new one.
fn is_not_to_be_stored(headers: &HeaderMap) -> bool {
    headers.get(CACHE_CONTROL).is_some_and(|value| value.as_bytes() == b"no-store")
}

fn kept(status: i16, headers: Vec<String>, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for pair in headers.chunks_exact(2) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(pair[0].as_str()), HeaderValue::try_from(pair[1].as_str()))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    response
}
