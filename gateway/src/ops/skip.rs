//! `POST /api/v1/ops/projections/{name}/skip`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use fanledger_gateway_api::{SkipRequest, Skipped};
use serde_json::Value;

use super::control::{fields, is_name, no_such_runner};
use crate::auth::Caller;
use crate::params::Positioned;
use crate::ports::{Skip, SkipReceipt, SkipRefusal};
use crate::problem::{Kind, Problem};
use crate::state::Commands;

/// A reason is kept in the journal for good; so much is enough for a sentence and a number of an incident.
const REASON_CHARS_MAX: usize = 500;

/// Lets a runner pass over an event.
///
/// For good: the skip is an event of the journal, and each rebuild of that version honours it. A runner that has halted goes on
/// after `resume`. The same skip again is answered as known.
#[utoipa::path(
    post, path = "/api/v1/ops/projections/{name}/skip", tag = "operations", operation_id = "skip_event",
    params(("name" = String, Path, description = "The runner, `balances`")),
    request_body(content = SkipRequest, content_type = "application/json"),
    responses((status = 200, description = "It passes over it. Journal-Position is the journal's head.", body = Skipped))
)]
pub(crate) async fn skip_event(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Positioned<Json<Skipped>>, Problem> {
    let SkipRequest { position, reason } = read(fields(&commands, &headers, body).await?)?;
    if !is_name(&name) {
        return Err(no_such_runner());
    }
    let skip = Skip { runner: &name, position, reason: reason.trim(), by: &caller.subject };
    match commands.operators.skip(skip).await {
        Ok(SkipReceipt { version, known, halted, head }) => {
            tracing::info!(runner = %name, position, version, known, token_id = %caller.token_id, "an operator skips an event");
            Ok(Positioned(head, Json(Skipped { name, version, position, known, halted })))
        }
        Err(SkipRefusal::UnknownRunner) => Err(no_such_runner()),
        Err(SkipRefusal::Applied) => Err(Problem::new(
            Kind::AlreadyApplied,
            format!("{name} has applied position {position}: a rebuild that passed over it would make other tables."),
        )),
        Err(SkipRefusal::Beyond { head }) => {
            Err(invalid().with_error("position", format!("the journal ends at position {head}")))
        }
        Err(SkipRefusal::Unavailable(error)) => Err(Problem::unavailable(error.as_ref())),
    }
}

fn invalid() -> Problem {
    Problem::new(Kind::ParametersInvalid, "See errors for each field.")
}

/// Every field that is wrong is named at once.
fn read(fields: serde_json::Map<String, Value>) -> Result<SkipRequest, Problem> {
    let mut problem = invalid();
    let (mut position, mut reason, mut strange) = (None, None, false);
    for (field, value) in fields {
        match field.as_str() {
            "position" => position = value.as_u64().filter(|position| *position > 0),
            "reason" => reason = value.as_str().filter(|reason| is_reason(reason)).map(str::to_owned),
            _ => strange = true,
        }
    }
    if position.is_none() {
        problem = problem.with_error("position", "expected the event's position, a whole number from 1 on");
    }
    if reason.is_none() {
        problem = problem.with_error("reason", format!("expected a sentence of at most {REASON_CHARS_MAX} characters"));
    }
    if strange {
        problem = problem.with_error("body", "expected no field but position and reason");
    }
    match (position, reason, strange) {
        (Some(position), Some(reason), false) => Ok(SkipRequest { position, reason }),
        (None, _, _) | (_, None, _) | (_, _, true) => Err(problem),
    }
}

fn is_reason(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().count() <= REASON_CHARS_MAX && !text.chars().any(char::is_control)
}
