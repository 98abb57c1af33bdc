//! `GET /api/v1/ops/projections`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{Page, Problem, RunnerStatus};

use crate::params::{MinPosition, Params, Positioned};
use crate::read::{self, Read};
use crate::state::Queries;

/// Runners and how they are doing.
///
/// Projections and process managers alike, by name. Journal-Position is the journal's head.
#[utoipa::path(
    get, path = "/api/v1/ops/projections", tag = "operations", operation_id = "list_projections",
    responses(
        (status = 200, description = "All of them, on one page.", body = Page<RunnerStatus>),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_projections(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    params.finish()?;
    let question = read::runners(queries.pool());
    let Read { position, value } = queries.answer::<Vec<RunnerStatus>>(min_position, &[], question).await?;
    Ok(Positioned(position, Json(Page { items: value, next_cursor: None })))
}
