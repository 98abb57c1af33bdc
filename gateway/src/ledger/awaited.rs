//! `GET /api/v1/ledger/awaited`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{AwaitedItem, Page, Problem};

use crate::params::{MinPosition, Params, Positioned};
use crate::read::{self, AwaitedKey, Read, Slice, answered_from::AWAITED};
use crate::state::Queries;

/// Balance transactions awaited.
///
/// Objects whose balance transaction was not seen yet, oldest first; their money stands in `assets:stripe:unconfirmed`.
#[utoipa::path(
    get, path = "/api/v1/ledger/awaited", tag = "ledger", operation_id = "list_awaited",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of awaited movements.", body = Page<AwaitedItem>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_awaited(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let paging = params.paging::<AwaitedKey>(&queries.cursors)?;
    let question = read::awaited(queries.pool(), paging.after.as_ref(), paging.limit);
    let Read { position, value } = queries.answer::<Slice<AwaitedItem, _>>(min_position, AWAITED, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
