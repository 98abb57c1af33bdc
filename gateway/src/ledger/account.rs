//! `GET /api/v1/ledger/accounts/{account}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::account::Account;
use fanledger_gateway_api::{AccountBalances, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::{self, Read, answered_from::BALANCES};
use crate::state::Queries;

/// One account in all its currencies.
#[utoipa::path(
    get, path = "/api/v1/ledger/accounts/{account}", tag = "ledger", operation_id = "get_account",
    params(
        ("account" = String, Path, description = "The account, `assets:stripe:clearing`"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
    ),
    responses(
        (status = 200, description = "Its balances.", body = AccountBalances),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_account(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let (as_of, by) = (params.as_of(), params.by());
    params.finish()?;
    let account: Account = path_part("account", &name)?;
    let question = read::account(queries.pool(), &account, as_of, by);
    let Read { position, value } = queries.answer::<AccountBalances>(min_position, BALANCES, question).await?;
    Ok(Positioned(position, Json(value)))
}
