//! `GET /api/v1/ledger/entries/{entry_id}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::id::EntryId;
use fanledger_gateway_api::{Entry, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::{self, Read, answered_from::ENTRIES};
use crate::state::Queries;

/// An entry with its cause.
///
/// The object at Stripe, the facts, and the Stripe events with their journal positions.
#[utoipa::path(
    get, path = "/api/v1/ledger/entries/{entry_id}", tag = "ledger", operation_id = "get_entry",
    params(
        ("entry_id" = String, Path, description = "The entry's id"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive. An entry that was not there by then is not found, and what takes it back is told if it did by then"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
    ),
    responses(
        (status = 200, description = "The entry.", body = Entry),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_entry(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let (as_of, by) = (params.as_of(), params.by());
    params.finish()?;
    let id: EntryId = path_part("entry_id", &id)?;
    let question = read::entry(queries.pool(), &id, as_of, by);
    let Read { position, value } = queries.answer::<Entry>(min_position, ENTRIES, question).await?;
    Ok(Positioned(position, Json(value)))
}
