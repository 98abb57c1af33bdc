//! `/api/v1/ledger/payouts/…` and `/api/v1/ledger/payout-runs/…`: the dry run, runs of transfers to creators, and holds.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::IntoResponse;
use fanledger_domain::id::CreatorId;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::Say;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{
    Page, PayoutHold, PayoutHoldReceipt, PayoutProposal, PayoutRun, PayoutRunReceipt, PayoutRunSummary, Problem,
    ReasonRequest,
};

use crate::auth::Caller;
use crate::body::{Fields, reason};
use crate::params::{MinPosition, Params, Positioned, path_part};
use crate::ports::Acted;
use crate::problem;
use crate::read::{self, Read, Slice, answered_from};
use crate::state::{Commands, Queries};

/// Who would be paid.
///
/// The dry run: what a run would send now, to whom, what it would claim and recover, and who would be left out and why. Nothing
/// is written.
#[utoipa::path(
    get, path = "/api/v1/ledger/payouts/proposal", tag = "payouts", operation_id = "get_payout_proposal",
    responses((status = 200, description = "The run as it would be proposed.", body = PayoutProposal))
)]
pub(crate) async fn get_proposal(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, problem::Problem> {
    params.finish()?;
    let now = Timestamp::from_chrono(chrono::Utc::now()).map_err(|error| problem::Problem::internal(&error))?;
    let question = read::payout_proposal(queries.pool(), now);
    let Read { position, value } =
        queries.answer::<PayoutProposal>(min_position, answered_from::PAYOUT_PROPOSAL, question).await?;
    Ok(Positioned(position, Json(value)))
}

/// Held payouts.
///
/// The creators to whom nothing is paid until their payouts are resumed, newest hold first: since when, by whom and why. With
/// `all=true` also holds that are over, and who ended each and why.
#[utoipa::path(
    get, path = "/api/v1/ledger/payouts/holds", tag = "payouts", operation_id = "list_payout_holds",
    params(
        ("all" = Option<bool>, Query, description = "Whether to list holds that are over too"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of holds.", body = Page<PayoutHold>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_holds(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, problem::Problem> {
    let all = params.filter("all", |text| text.parse::<bool>().map_err(|_| "expected true or false".to_owned()));
    let paging = params.paging::<u64>(&queries.cursors)?;
    let question = read::payout_holds(queries.pool(), all.unwrap_or(false), paging.after, paging.limit);
    let Read { position, value } =
        queries.answer::<Slice<PayoutHold, _>>(min_position, answered_from::PAYOUT_HOLDS, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}

/// Payout runs, newest first.
#[utoipa::path(
    get, path = "/api/v1/ledger/payout-runs", tag = "payouts", operation_id = "list_payout_runs",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of runs.", body = Page<PayoutRunSummary>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_runs(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    params: Params,
) -> Result<impl IntoResponse, problem::Problem> {
    let paging = params.paging::<u64>(&queries.cursors)?;
    let question = read::payout_runs(queries.pool(), paging.after, paging.limit);
    let Read { position, value } =
        queries.answer::<Slice<PayoutRunSummary, _>>(min_position, answered_from::PAYOUTS, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}

/// One payout run, with what became of each of its transfers.
#[utoipa::path(
    get, path = "/api/v1/ledger/payout-runs/{run}", tag = "payouts", operation_id = "get_payout_run",
    params(("run" = String, Path, description = "`por_1`")),
    responses(
        (status = 200, description = "The run.", body = PayoutRun),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_run(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(run): Path<String>,
    params: Params,
) -> Result<impl IntoResponse, problem::Problem> {
    params.finish()?;
    let run: PayoutRunId = path_part("run", &run)?;
    let question = read::payout_run(queries.pool(), run);
    let Read { position, value } = queries.answer::<PayoutRun>(min_position, answered_from::PAYOUTS, question).await?;
    Ok(Positioned(position, Json(value)))
}

/// Proposes the next payout run.
///
/// As the dry run shows it at this moment. One run is open at a time, and it is reckoned from books that hold everything that the
/// one before sent, and that the journal holds by now. Nothing moves before it is approved.
#[utoipa::path(
    post, path = "/api/v1/ledger/payout-runs", tag = "payouts", operation_id = "propose_payout_run",
    responses(
        (status = 200, description = "It is proposed.", body = PayoutRunReceipt),
        (status = 422, description = "`ledger-refused`: there is nothing to do", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`position-not-reached`: the books are not read so far, and which projection is behind", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn propose_run(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    fields: Fields,
) -> Result<impl IntoResponse, problem::Problem> {
    fields.finish(Some(()))?;
    let by = caller.subject()?;
    let head = commands.caught_up(answered_from::PAYOUT_PROPOSAL).await?;
    let Acted { position, value } = commands.desks.payouts.propose(by, head).await?;
    Ok(Positioned::<Json<PayoutRunReceipt>>(position, Json(value)))
}

/// Approves a payout run.
///
/// It is sent from now on. One that moves more of a currency than one person may, together with what the proposer paid out alone in
/// the weeks before, needs another person than who proposed it.
#[utoipa::path(
    post, path = "/api/v1/ledger/payout-runs/{run}/approve", tag = "payouts", operation_id = "approve_payout_run",
    params(("run" = String, Path, description = "`por_1`")),
    responses(
        (status = 200, description = "It is approved.", body = PayoutRunReceipt),
        (status = 422, description = "`ledger-refused`: it is too old, or no longer what the books hold", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`position-not-reached`: the books are not read so far, and which projection is behind", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn approve_run(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, problem::Problem> {
    fields.finish(Some(()))?;
    let run = path_part("run", &run)?;
    let by = caller.subject()?;
    let head = commands.caught_up(answered_from::PAYOUT_PROPOSAL).await?;
    let Acted { position, value } = commands.desks.payouts.approve(by, run, head).await?;
    Ok(Positioned::<Json<PayoutRunReceipt>>(position, Json(value)))
}

/// Cancels a payout run.
///
/// One that waits for approval ends by it. One that is approved is stopped: nothing more of it is sent, what was sent stays sent, and
/// the run ends when that is certain, some minutes later. It takes one person.
#[utoipa::path(
    post, path = "/api/v1/ledger/payout-runs/{run}/cancel", tag = "payouts", operation_id = "cancel_payout_run",
    params(("run" = String, Path, description = "`por_1`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "It is cancelled, or stopping.", body = PayoutRunReceipt))
)]
pub(crate) async fn cancel_run(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, problem::Problem> {
    let reason = fields.required("reason", reason);
    let reason = fields.finish(reason)?;
    let run = path_part("run", &run)?;
    let Acted { position, value } = commands.desks.payouts.cancel(caller.subject()?, run, reason).await?;
    Ok(Positioned::<Json<PayoutRunReceipt>>(position, Json(value)))
}

/// Holds a creator's payouts.
///
/// Nothing is sent to them until it is resumed, also of a run that is approved and not sent yet. What they earn goes on.
#[utoipa::path(
    post, path = "/api/v1/ledger/creators/{creator}/payouts/hold", tag = "payouts", operation_id = "hold_payouts",
    params(("creator" = String, Path, description = "`crt_…`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "Nothing is sent from now on.", body = PayoutHoldReceipt))
)]
pub(crate) async fn hold_payouts(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(creator): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, problem::Problem> {
    say(&commands, &caller, &creator, fields, Say::Hold).await
}

/// Resumes a creator's payouts.
///
/// The next run takes what is available.
#[utoipa::path(
    post, path = "/api/v1/ledger/creators/{creator}/payouts/resume", tag = "payouts", operation_id = "resume_payouts",
    params(("creator" = String, Path, description = "`crt_…`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "The next run takes what is available.", body = PayoutHoldReceipt))
)]
pub(crate) async fn resume_payouts(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(creator): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, problem::Problem> {
    say(&commands, &caller, &creator, fields, Say::Resume).await
}

async fn say(
    commands: &Commands,
    caller: &Caller,
    creator: &str,
    mut fields: Fields,
    say: Say,
) -> Result<impl IntoResponse + use<>, problem::Problem> {
    let reason = fields.required("reason", reason);
    let reason = fields.finish(reason)?;
    let creator: CreatorId = path_part("creator", creator)?;
    let Acted { position, value } = commands.desks.payouts.say(caller.subject()?, creator, say, reason).await?;
    Ok(Positioned::<Json<PayoutHoldReceipt>>(position, Json(value)))
}
