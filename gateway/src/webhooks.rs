//! `POST /webhooks/stripe`: verify, append, answer. Never limited in rate, valid or not.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::{WEBHOOK_BYTES_MAX, WEBHOOK_BYTES_SMALL, read_body};
use crate::params::Positioned;
use crate::ports::IntakeRefusal;
use crate::problem::{Kind, Problem};
use crate::state::Commands;

/// A webhook is in the journal.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookReceipt {
    /// Always true.
    received: bool,
    /// Where it stands in the journal; for a duplicate, where the first one stands.
    position: u64,
    /// Its event id was there before.
    duplicate: bool,
    /// It was there before with another body; the first one stands.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    conflict: bool,
}

/// Counts what the intake never saw; what it saw it counts itself.
fn count(reason: &'static str) {
    metrics::counter!("fanledger_gateway_webhooks_turned_away_total", "reason" => reason).increment(1);
}

/// Takes a webhook of Stripe's.
///
/// Answers after the commit. The body is the event exactly as Stripe signed it; what of it cannot be understood is stored
/// and flagged all the same. Not limited in rate.
#[utoipa::path(
    post, path = "/webhooks/stripe", tag = "webhooks", operation_id = "receive_stripe_webhook",
    params(("Stripe-Signature" = String, Header, description = "`t=…,v1=…` as Stripe sends it; 300 s of tolerance")),
    request_body(content = String, content_type = "application/json", description = "The event, at most 1 MiB"),
    responses(
        (status = 200, description = "It is in the journal.", body = WebhookReceipt, headers(("Journal-Position" = u64, description = "Where"))),
        (status = 400, description = "The signature does not hold, or no event id can be read. Nothing was stored.", body = fanledger_gateway_api::Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than 1 MiB.", body = fanledger_gateway_api::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The journal cannot be reached. Send it again.", body = fanledger_gateway_api::Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn receive_stripe_webhook(
    State(commands): State<Commands>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let overloaded = || {
        count("overloaded");
        Problem::new(Kind::Overloaded, "Send it again.").retry_after_seconds(1)
    };
    // Whoever announces a small body needs no leave to send it, so that nobody who dribbles large ones, signed or not, holds up
    // Stripe's. More large ones than the bound wait here rather than be turned away: Stripe's retries come minutes to hours later.
    let small = body.size_hint().upper().is_some_and(|bytes| bytes <= WEBHOOK_BYTES_SMALL);
    let _permit = if small {
        None
    } else {
        let permit = tokio::time::timeout(commands.request_timeout, commands.webhooks.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(overloaded()) };
        Some(permit)
    };
    let body = read_body(&headers, body, WEBHOOK_BYTES_MAX, commands.body_read_timeout)
        .await
        .inspect_err(|_| count("unread"))?;
    // Two lines are as good as one with a comma between (RFC 9110, section 5.3); the verifier then refuses two `t`.
    let lines: Vec<&[u8]> = headers.get_all("stripe-signature").iter().map(|line| line.as_bytes()).collect();
    let joined = lines.join(&b','.to_owned());
    let signature = (!lines.is_empty()).then_some(joined.as_slice());

    // A time-out does not take back what was committed meanwhile: the retry is then answered as a duplicate.
    match tokio::time::timeout(commands.request_timeout, commands.receive(signature, &body)).await {
        Err(_) => {
            count("timed_out");
            Err(Problem::new(Kind::TimedOut, "Send it again.").retry_after_seconds(1))
        }
        Ok(Ok(receipt)) => {
            let (position, duplicate, conflict) = (receipt.position, receipt.duplicate, receipt.conflict);
            Ok(Positioned(position, Json(WebhookReceipt { received: true, position, duplicate, conflict })))
        }
        Ok(Err(IntakeRefusal::Signature { reason })) => Err(Problem::new(Kind::SignatureInvalid, format!("{reason}."))),
        Ok(Err(IntakeRefusal::NoEventId)) => Err(Problem::new(
            Kind::EventIdMissing,
            "Its signature is valid. An `id` of 1 to 200 of A-Z a-z 0-9 _ . : - is needed.",
        )),
        Ok(Err(error @ IntakeRefusal::Unavailable(_))) => Err(Problem::unavailable(&error)),
    }
}
