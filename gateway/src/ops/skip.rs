//! `POST /api/v1/ops/projections/{name}/skip`.

use axum::Json;
use axum::extract::{Extension, Path, State};
use fanledger_gateway_api::{SkipRequest, Skipped};

use super::control::{is_name, no_such_runner};
use crate::auth::Caller;
use crate::body::{Fields, invalid, reason};
use crate::params::Positioned;
use crate::ports::{Skip, SkipReceipt, SkipRefusal};
use crate::problem::{Kind, Problem};
use crate::state::Commands;

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
    mut fields: Fields,
) -> Result<Positioned<Json<Skipped>>, Problem> {
    let position = fields.required("position", |value| {
        let position = value.as_u64().filter(|position| *position > 0);
        position.ok_or_else(|| "expected the event's position, a whole number from 1 on".to_owned())
    });
    let reason = fields.required("reason", reason);
    let (position, reason) = fields.finish(position.zip(reason))?;
    // It is kept in the journal for good, so it is an id, as with every other act.
    let by = caller.subject()?;
    if !is_name(&name) {
        return Err(no_such_runner());
    }
    let skip = Skip { runner: &name, position, reason: &reason, by: by.as_str() };
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
            Err(invalid([("position".to_owned(), format!("the journal ends at position {head}"))]))
        }
        Err(SkipRefusal::NotAsRecorded { found }) => Err(invalid([(
            "position".to_owned(),
            format!(
                "the event there is not as it was recorded ({found}): run `fanledger journal verify` before anything else"
            ),
        )])),
        Err(SkipRefusal::Unavailable(error)) => Err(Problem::unavailable(error.as_ref())),
    }
}
