//! `POST /api/v1/ledger/stripe-events/{id}/open`.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use fanledger_domain::id::StripeId;
use fanledger_gateway_api::{OpenedStripeEvent, ReasonRequest};

use crate::auth::Caller;
use crate::body::{Fields, reason};
use crate::params::{Positioned, path_part};
use crate::ports::Acted;
use crate::problem::Problem;
use crate::state::Commands;

/// Opens a webhook.
///
/// Answers exactly what Stripe sent, personal data included. Who opened it, when and why is in the journal before it is shown,
/// and on the webhook for everybody who may see it. Each opening is one: the answer is never kept, neither by a cache nor under
/// an Idempotency-Key.
#[utoipa::path(
    post, path = "/api/v1/ledger/stripe-events/{id}/open", tag = "finance", operation_id = "open_stripe_event",
    params(("id" = String, Path, description = "`evt_…`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "What was received.", body = OpenedStripeEvent))
)]
pub(crate) async fn open_stripe_event(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let reason = fields.required("reason", reason);
    let reason = fields.finish(reason)?;
    let id: StripeId = path_part("id", &id)?;
    let Acted { position, value } = commands.desks.finance.open(caller.subject()?, id.clone(), reason).await?;
    tracing::info!(stripe_event = %id, position, token_id = %caller.token_id, "a webhook was opened");
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Positioned(position, Json(value))))
}
