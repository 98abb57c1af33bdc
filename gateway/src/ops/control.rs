//! `POST /api/v1/ops/projections/{name}/pause` and `/resume`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::json::{TWICE, Unambiguous};
use crate::limits::{API_BYTES_MAX, read_body};
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

/// These commands say everything in their path: a body that somebody meant something by is refused, not dropped. Clients
/// that always send an empty JSON object may.
pub(crate) async fn no_content(commands: &Commands, headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    if fields(commands, headers, body).await?.is_empty() {
        return Ok(());
    }
    Err(Problem::new(Kind::ParametersInvalid, "See errors for each field.").with_error("body", "expected no fields"))
}

/// The fields of a JSON object; none where there is no body.
pub(crate) async fn fields(
    commands: &Commands,
    headers: &HeaderMap,
    body: Body,
) -> Result<serde_json::Map<String, Value>, Problem> {
    let body = read_body(headers, body, API_BYTES_MAX, commands.body_read_timeout).await?;
    if body.is_empty() {
        return Ok(serde_json::Map::new());
    }
    let json = headers.get(axum::http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !json.is_some_and(|value| {
        value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
    }) {
        return Err(Problem::new(Kind::MediaTypeUnsupported, "Send no body, or application/json."));
    }
    match serde_json::from_slice(&body) {
        Ok(Unambiguous(Value::Object(fields))) => Ok(fields),
        Err(error) if error.to_string().starts_with(TWICE) => {
            Err(Problem::new(Kind::RequestMalformed, "The body names one field twice."))
        }
        Ok(Unambiguous(_)) | Err(_) => Err(Problem::new(Kind::RequestMalformed, "The body is not a JSON object.")),
    }
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
