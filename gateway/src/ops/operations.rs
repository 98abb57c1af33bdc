//! `POST /api/v1/ops/projections/{name}/rebuild`, `/verify`, `/rollback`, `/retire`, and `GET …/operation`, which tells how far it is.
//!
//! None of it is done inside a request: a row is added, and a projector works on it, whatever becomes of the client.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use fanledger_gateway_api::{Operation, OperationAsked, OperationKind};
use serde_json::Value;
use utoipa::ToSchema;

use super::control::{is_name, no_such_runner};
use crate::auth::Caller;
use crate::body::{fields, no_content};
use crate::params::{MinPosition, Params, Positioned};
use crate::problem::{Kind, Problem};
use crate::read::{self, Read};
use crate::state::{Asked, Commands, Queries};

/// What a rebuild may be told.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read field by field")]
pub(crate) struct RebuildRequest {
    /// Agree beforehand to a difference between two versions. One within a version always stops the switch.
    confirmed: Option<bool>,
}

/// Rebuilds a runner's tables.
///
/// Builds them anew from the journal beside the live ones, proves that both hold the same, and switches. A difference between
/// two versions needs `confirmed`. `GET …/operation` tells how far it is and how it ended.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/rebuild", tag = "operations", operation_id = "rebuild_projection",
    params(("name" = String, Path, description = "The runner, `balances`")),
    request_body(content = Option<RebuildRequest>, content_type = "application/json"),
    responses((status = 202, description = "A projector works on it. Journal-Position is the journal's head.", body = OperationAsked))
)]
pub(crate) async fn rebuild_projection(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let mut confirmed = false;
    for (field, value) in fields(&commands, &headers, body).await? {
        match (field.as_str(), value) {
            ("confirmed", Value::Bool(agreed)) => confirmed = agreed,
            ("confirmed", _) => return Err(bad("confirmed", "expected true or false")),
            _ => return Err(bad("body", "expected no field but confirmed")),
        }
    }
    ask(&commands, &caller, name, OperationKind::Rebuild, confirmed).await
}

fn bad(field: &str, message: &str) -> Problem {
    Problem::new(Kind::ParametersInvalid, "See errors for each field.").with_error(field, message)
}

/// Verifies a runner's tables.
///
/// Builds them anew from the journal, compares them with the live ones row by row, and drops them again.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/verify", tag = "operations", operation_id = "verify_projection",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses((status = 202, description = "A projector works on it. Journal-Position is the journal's head.", body = OperationAsked))
)]
pub(crate) async fn verify_projection(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    no_content(&commands, &headers, body).await?;
    ask(&commands, &caller, name, OperationKind::Verify, false).await
}

/// Switches back.
///
/// To the generation that was live before the last switch, which is kept up to date until it is retired.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/rollback", tag = "operations", operation_id = "roll_projection_back",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses((status = 202, description = "A projector works on it. Journal-Position is the journal's head.", body = OperationAsked))
)]
pub(crate) async fn roll_projection_back(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    no_content(&commands, &headers, body).await?;
    ask(&commands, &caller, name, OperationKind::Rollback, false).await
}

/// Retires what is kept.
///
/// Drops the generation that is kept to go back to, and what a broken-off rebuild left.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/retire", tag = "operations", operation_id = "retire_projection",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses((status = 202, description = "A projector works on it. Journal-Position is the journal's head.", body = OperationAsked))
)]
pub(crate) async fn retire_projection(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    no_content(&commands, &headers, body).await?;
    ask(&commands, &caller, name, OperationKind::Retire, false).await
}

async fn ask(
    commands: &Commands,
    caller: &Caller,
    name: String,
    kind: OperationKind,
    confirmed: bool,
) -> Result<impl IntoResponse + use<>, Problem> {
    if !is_name(&name) {
        return Err(no_such_runner());
    }
    let (asked, head) = commands.ask(&name, kind, confirmed).await.map_err(|error| Problem::unavailable(&error))?;
    match asked {
        Asked::Queued(operation) => {
            let token_id = &caller.token_id;
            tracing::info!(runner = %name, kind = kind.as_str(), operation, %token_id, "an operator asks for an operation");
            Ok(Positioned(head, (StatusCode::ACCEPTED, Json(OperationAsked { name, kind, operation }))))
        }
        Asked::UnderWay(operation) => Err(Problem::new(
            Kind::OperationUnderWay,
            format!("Operation {operation} on {name} is under way; wait for its end."),
        )),
        Asked::NothingKept => Err(Problem::new(
            Kind::NothingKept,
            format!("{name} has no generation but the live one: a rebuild keeps the one before."),
        )),
        Asked::UnknownRunner => Err(no_such_runner()),
    }
}

/// The last operation on a runner.
///
/// How far a rebuild, verification, rollback or retirement is, and how it ended. Journal-Position is the journal's head.
#[utoipa::path(
    get, path = "/api/v1/ops/projections/{name}/operation", tag = "operations", operation_id = "get_operation",
    params(("name" = String, Path, description = "The runner, `balances`")),
    responses(
        (status = 200, description = "The last one.", body = Operation),
        (status = 404, description = "`not-found`", body = fanledger_gateway_api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = fanledger_gateway_api::Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_operation(
    State(queries): State<Queries>,
    Path(name): Path<String>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.finish()?;
    if !is_name(&name) {
        return Err(no_such_runner());
    }
    let question = read::operation(queries.pool(), &name);
    let Read { position, value } = queries.answer::<Operation>(min_position, &[], question).await?;
    Ok(Positioned(position, Json(value)))
}
