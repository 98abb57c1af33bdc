//! `/api/v1/ledger/periods`: what was closed, what is open before a close, and both acts.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::IntoResponse;
use fanledger_domain::period::{Month, PeriodCommand};
use fanledger_gateway_api::{PeriodActed, PeriodReview, Periods, ReasonRequest};

use crate::auth::Caller;
use crate::body::{Fields, reason};
use crate::params::{MinPosition, Params, Positioned, path_part};
use crate::ports::Acted;
use crate::problem::Problem;
use crate::read::answered_from::{PERIODS, REVIEW};
use crate::read::{self, Read};
use crate::state::{Commands, Queries};

/// What was closed, and when.
///
/// Each month that was ever closed, newest first, with each close and reopening: who, when, why, and the position and chain that fix
/// its balances.
#[utoipa::path(
    get, path = "/api/v1/ledger/periods", tag = "ledger", operation_id = "list_periods",
    responses((status = 200, description = "The periods.", body = Periods))
)]
pub(crate) async fn list_periods(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.finish()?;
    let question = read::periods(queries.pool());
    let Read { position, value } = queries.answer::<Periods>(min_position, PERIODS, question).await?;
    Ok(Positioned(position, Json(value)))
}

/// What is open by the end of a month.
///
/// Money in suspense by account and sign, balance transactions awaited, what is unconfirmed, creators whose `available` is negative,
/// and what waits for approval. It is for finance to judge before a close, which nothing of it refuses.
#[utoipa::path(
    get, path = "/api/v1/ledger/periods/{period}/review", tag = "ledger", operation_id = "review_period",
    params(("period" = String, Path, description = "The month, `2026-10`")),
    responses(
        (status = 200, description = "What is open.", body = PeriodReview),
        (status = 422, description = "`parameters-invalid`", body = fanledger_gateway_api::Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn review_period(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(period): Path<String>,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.finish()?;
    let period: Month = path_part("period", &period)?;
    let question = read::period_review(queries.pool(), period);
    let Read { position, value } = queries.answer::<PeriodReview>(min_position, REVIEW, question).await?;
    Ok(Positioned(position, Json(value)))
}

/// Closes a month.
///
/// Months are closed one after the other; the first may be any that has ended, and closes all before it. From then on nothing is
/// booked into it: what is learnt late counts at the first open instant. Its balances are fixed by the position of the close.
#[utoipa::path(
    post, path = "/api/v1/ledger/periods/{period}/close", tag = "finance", operation_id = "close_period",
    params(("period" = String, Path, description = "The month, `2026-10`")),
    responses((status = 200, description = "It is closed.", body = PeriodActed))
)]
pub(crate) async fn close_period(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(period): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    fields.finish(Some(()))?;
    let period: Month = path_part("period", &period)?;
    let command = PeriodCommand::Close { period, by: caller.subject()? };
    let Acted { position, value } = commands.desks.periods.act(command).await?;
    Ok(Positioned(position, Json(value)))
}

/// Opens the last closed month again.
///
/// By another person than who closed it, with a reason. Its balances as that close fixed them stay to be read.
#[utoipa::path(
    post, path = "/api/v1/ledger/periods/{period}/reopen", tag = "finance", operation_id = "reopen_period",
    params(("period" = String, Path, description = "The month, `2026-10`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "It is open.", body = PeriodActed))
)]
pub(crate) async fn reopen_period(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(period): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let reason = fields.required("reason", reason);
    let reason = fields.finish(reason)?;
    let period: Month = path_part("period", &period)?;
    let command = PeriodCommand::Reopen { period, by: caller.subject()?, reason };
    let Acted { position, value } = commands.desks.periods.act(command).await?;
    Ok(Positioned(position, Json(value)))
}
