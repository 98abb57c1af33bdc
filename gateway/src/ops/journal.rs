//! `GET /api/v1/ops/journal`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{JournalInfo, Problem};

use crate::params::{MinPosition, Params, Positioned};
use crate::read::{self, Read};
use crate::state::Queries;

/// The journal.
///
/// Which one it is, and its head.
#[utoipa::path(
    get, path = "/api/v1/ops/journal", tag = "operations", operation_id = "get_journal",
    responses(
        (status = 200, description = "The journal.", body = JournalInfo),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_journal(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    params.finish()?;
    let question = read::journal(queries.pool());
    let Read { position, value } = queries.answer::<JournalInfo>(min_position, &[], question).await?;
    Ok(Positioned(position, Json(value)))
}
