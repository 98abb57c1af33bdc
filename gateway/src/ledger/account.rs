//! `GET /api/v1/ledger/accounts/{account}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::account::Account;
use fanledger_gateway_api::{AccountBalances, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::answered_from::{BALANCES, CLOSED};
use crate::read::{self, Read};
use crate::state::Queries;

/// One account in all its currencies.
#[utoipa::path(
    get, path = "/api/v1/ledger/accounts/{account}", tag = "ledger", operation_id = "get_account",
    params(
        ("account" = String, Path, description = "The account, `assets:stripe:clearing`"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("period" = Option<String>, Query, description = "A closed month, `2026-10`, as its close fixed it; alone, without `as_of` and `by`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
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
    let asked = params.asked();
    params.finish()?;
    let account: Account = path_part("account", &name)?;
    let question = async {
        let decided = asked.decide(queries.pool()).await?;
        let read = read::account(queries.pool(), &account, decided.as_of, decided.by).await?;
        Ok(decided.bound(read))
    };
    let of = asked.of(BALANCES, CLOSED);
    let Read { position, value } = queries.answer::<AccountBalances>(min_position, of, question).await?;
    Ok(Positioned(position, Json(AccountBalances { position, ..value })))
}
