//! `POST /api/v1/ops/projections/{name}/pause` and `/resume`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::no_content;
use crate::params::Positioned;
use crate::problem::{Kind, Problem};
use crate::state::Commands;

/// What a runner was told.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Told {
    /// The runner.
    name: String,
    /// Whether it is to rest.
    paused: bool,
}

/// Pauses a runner.
///
/// It stops after the batch that it is in; the journal goes on without it. `resume` lets it catch up.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/pause", tag = "operations", operation_id = "pause_projection",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses((status = 200, description = "It was told. Journal-Position is the journal's head.", body = Told))
)]
pub(crate) async fn pause_projection(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Positioned<Json<Told>>, Problem> {
    no_content(&commands, &headers, body).await?;
    tell(&commands, &caller, name, true).await
}

/// Resumes a runner.
///
/// Ends a pause, and a halt: what halted it is tried again.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/resume", tag = "operations", operation_id = "resume_projection",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses((status = 200, description = "It was told. Journal-Position is the journal's head.", body = Told))
)]
pub(crate) async fn resume_projection(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Positioned<Json<Told>>, Problem> {
    no_content(&commands, &headers, body).await?;
    tell(&commands, &caller, name, false).await
}

/// Whether a runner may be called so; what may not is not looked for.
pub(super) fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

pub(super) fn no_such_runner() -> Problem {
    Problem::new(Kind::NotFound, "There is no such runner; /api/v1/ops/projections lists them.")
}

async fn tell(
    commands: &Commands,
    caller: &Caller,
    name: String,
    paused: bool,
) -> Result<Positioned<Json<Told>>, Problem> {
    let (known, head) = if is_name(&name) {
        commands.control(&name, paused).await.map_err(|error| Problem::unavailable(&error))?
    } else {
        (false, 0)
    };
    if !known {
        return Err(no_such_runner());
    }
    tracing::info!(runner = %name, paused, token_id = %caller.token_id, "an operator told a runner");
    Ok(Positioned(head, Json(Told { name, paused })))
}
