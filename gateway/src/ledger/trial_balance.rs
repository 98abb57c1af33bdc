//! `GET /api/v1/ledger/trial-balance`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{Problem, TrialBalance};

use crate::params::{Axis, MinPosition, Params, Positioned};
use crate::read::answered_from::{BALANCES, CLOSED};
use crate::read::{self, Asked, Read};
use crate::state::Queries;

/// Every account's balance.
///
/// In each currency debits equal credits; where they do not, `imbalance_minor` says by how much, and the books are broken. `as_of` before the first entry is an error (422), never an empty answer; an empty
/// ledger without `as_of` is an empty list. With `period`, the balances of a closed month, which never change, with what fixes
/// them: the close's position, the journal's chain there, and a digest. A month before the first that was closed is as that close
/// fixed it.
#[utoipa::path(
    get, path = "/api/v1/ledger/trial-balance", tag = "ledger", operation_id = "trial_balance",
    params(
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("period" = Option<String>, Query, description = "A closed month, `2026-10`, as its close fixed it; alone, without `as_of` and `by`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
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
    let (asked, currency) = (params.asked(), params.currency());
    params.finish()?;
    let question = async {
        match asked {
            Asked::AsOf(as_of, by) => read::trial_balance(queries.pool(), as_of, by, currency).await,
            Asked::Period(period, close) => read::closed_balance(queries.pool(), period, close, currency).await,
        }
    };
    let of = asked.of(BALANCES, CLOSED);
    let Read { position, value } = queries.answer::<TrialBalance>(min_position, of, question).await?;
    Ok(Positioned(position, Json(value)))
}
