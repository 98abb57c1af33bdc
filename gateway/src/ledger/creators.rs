//! `GET /api/v1/ledger/creators`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{CreatorBalance, Page, Problem};

use crate::params::{MinPosition, Params, Positioned};
use crate::read::answered_from::CREATOR_BALANCES;
use crate::read::{self, CreatorKey, Read, Slice};
use crate::state::Queries;

/// What creators have.
///
/// Each creator in each of their currencies, in the order of their ids: what is pending, available and held for them, and what
/// they owe. As it is now; `accounts` has each account as of any instant.
#[utoipa::path(
    get, path = "/api/v1/ledger/creators", tag = "ledger", operation_id = "list_creators",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of creators.", body = Page<CreatorBalance>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_creators(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let paging = params.paging::<CreatorKey>(&queries.cursors)?;
    let question = read::creators(queries.pool(), paging.after.as_ref(), paging.limit);
    let Read { position, value } =
        queries.answer::<Slice<CreatorBalance, _>>(min_position, CREATOR_BALANCES, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
