//! `GET /api/v1/ledger/suspense`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{Page, Problem, SuspenseItem};

use crate::params::{Axis, MinPosition, Params, Positioned};
use crate::read::answered_from::{CLOSED_POSTINGS, POSTINGS, SUSPENSE};
use crate::read::{self, AsOf, Asked, Read, Slice, SuspenseKey};
use crate::state::Queries;

/// Money in suspense.
///
/// What waits for its meaning, oldest first, per reason, object and currency.
#[utoipa::path(
    get, path = "/api/v1/ledger/suspense", tag = "ledger", operation_id = "list_suspense",
    params(
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("period" = Option<String>, Query, description = "A closed month, `2026-10`, as its close fixed it; alone, without `as_of` and `by`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of open items.", body = Page<SuspenseItem>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_suspense(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let asked = params.asked();
    let paging = params.paging::<SuspenseKey>(&queries.cursors)?;
    let question = read::suspense(queries.pool(), asked, paging.after.as_ref(), paging.limit);
    let of = match asked {
        Asked::AsOf(AsOf::Latest, _) => SUSPENSE,
        Asked::AsOf(..) => POSTINGS,
        Asked::Period(..) => CLOSED_POSTINGS,
    };
    let Read { position, value } = queries.answer::<Slice<SuspenseItem, _>>(min_position, of, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
