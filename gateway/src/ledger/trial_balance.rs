//! `GET /api/v1/ledger/trial-balance`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{Problem, TrialBalance};

use crate::params::{Axis, MinPosition, Params, Positioned};
use crate::read::{self, Read, answered_from::BALANCES};
use crate::state::Queries;

/// Every account's balance.
///
/// In each currency debits equal credits. `as_of` before the first entry is an error (422), never an empty answer; an empty
/// ledger without `as_of` is an empty list.
#[utoipa::path(
    get, path = "/api/v1/ledger/trial-balance", tag = "ledger", operation_id = "trial_balance",
    params(
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("currency" = Option<String>, Query, description = "Only this currency, lowercase", pattern = "^[a-z]{3}$")
    ),
    responses(
        (status = 200, description = "The trial balance.", body = TrialBalance),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn trial_balance(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let (as_of, by, currency) = (params.as_of(), params.by(), params.currency());
    params.finish()?;
    let question = read::trial_balance(queries.pool(), as_of, by, currency);
    let Read { position, value } = queries.answer::<TrialBalance>(min_position, BALANCES, question).await?;
    Ok(Positioned(position, Json(value)))
}
