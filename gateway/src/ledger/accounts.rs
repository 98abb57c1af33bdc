//! `GET /api/v1/ledger/accounts`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{AccountBalance, Page, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned};
use crate::read::answered_from::{BALANCES, CLOSED};
use crate::read::{self, AccountKey, Read, Slice};
use crate::state::Queries;

/// Accounts with their balances.
///
/// Each account in each of its currencies, in the order of their names. An account with turnover is listed though its
/// balance is zero. A page may hold fewer than `limit` while more follow.
#[utoipa::path(
    get, path = "/api/v1/ledger/accounts", tag = "ledger", operation_id = "list_accounts",
    params(
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("period" = Option<String>, Query, description = "A closed month, `2026-10`, as its close fixed it; alone, without `as_of` and `by`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of accounts.", body = Page<AccountBalance>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_accounts(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let asked = params.asked();
    let paging = params.paging::<AccountKey>(&queries.cursors)?;
    let question = async {
        let decided = asked.decide(queries.pool()).await?;
        let (as_of, by, after) = (decided.as_of, decided.by, paging.after.as_ref());
        Ok(decided.bound(read::accounts(queries.pool(), as_of, by, after, paging.limit).await?))
    };
    let of = asked.of(BALANCES, CLOSED);
    let Read { position, value } = queries.answer::<Slice<AccountBalance, _>>(min_position, of, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
