//! `GET /api/v1/ledger/suspense`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{Page, Problem, SuspenseItem};

use crate::params::{MinPosition, Params, Positioned};
use crate::read::{self, Read, Slice, SuspenseKey, answered_from::SUSPENSE};
use crate::state::Queries;

/// Money in suspense.
///
/// What waits for its meaning, oldest first, per reason, object and currency.
#[utoipa::path(
    get, path = "/api/v1/ledger/suspense", tag = "ledger", operation_id = "list_suspense",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of open items.", body = Page<SuspenseItem>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_suspense(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let paging = params.paging::<SuspenseKey>(&queries.cursors)?;
    let question = read::suspense(queries.pool(), paging.after.as_ref(), paging.limit);
    let Read { position, value } = queries.answer::<Slice<SuspenseItem, _>>(min_position, SUSPENSE, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
