//! `GET /api/v1/ledger/stripe-events/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::id::StripeId;
use fanledger_gateway_api::{InboxItem, Problem};

use crate::params::{MinPosition, Params, Positioned, path_part};
use crate::read::{self, Read, answered_from::INBOX};
use crate::state::Queries;

/// One webhook and what became of it.
#[utoipa::path(
    get, path = "/api/v1/ledger/stripe-events/{id}", tag = "inbox", operation_id = "get_stripe_event",
    params(
        ("id" = String, Path, description = "`evt_…`")
    ),
    responses(
        (status = 200, description = "The webhook.", body = InboxItem),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_stripe_event(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(id): Path<String>,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    params.finish()?;
    let id: StripeId = path_part("id", &id)?;
    let question = read::inbox_item(queries.pool(), &id);
    let Read { position, value } = queries.answer::<InboxItem>(min_position, INBOX, question).await?;
    Ok(Positioned(position, Json(value)))
}
