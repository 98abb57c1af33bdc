//! `GET /api/v1/ledger/creators/{creator}/statement`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::id::CreatorId;
use fanledger_gateway_api::{CreatorStatement, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::answered_from::{CREATOR_STATEMENT, CREATOR_STATEMENT_OF_PERIOD};
use crate::read::{self, CreatorSpan, Read};
use crate::state::Queries;

/// A creator's statement.
///
/// By currency: the opening balance, what came to it line by line, and the closing balance with where it is. The opening balance
/// and the lines add up to the closing one; the entries behind each figure are in `activity`. With `period`, a month by effective
/// date: as its close fixed it, or, while it is open, as it is so far.
#[utoipa::path(
    get, path = "/api/v1/ledger/creators/{creator}/statement", tag = "ledger", operation_id = "get_creator_statement",
    params(
        ("creator" = String, Path, description = "The creator, `crt_…`"),
        ("period" = Option<String>, Query, description = "A month, `2026-10`; alone, without `as_of`, `by`, `from` and `to`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
        ("from" = Option<String>, Query, description = "The first instant (RFC 3339 with an offset), on the axis of `by`; inclusive"),
        ("to" = Option<String>, Query, description = "The last instant; inclusive. Another word for an `as_of` that is an instant"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("currency" = Option<String>, Query, description = "Only this currency, lowercase", pattern = "^[a-z]{3}$"),
    ),
    responses(
        (status = 200, description = "The statement.", body = CreatorStatement),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_creator_statement(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let ((from, asked), currency) = (params.asked_lines(), params.currency());
    params.finish()?;
    let creator: CreatorId = path_part("creator", &name)?;
    let question = async {
        let span = CreatorSpan::resolve(queries.pool(), from, asked).await?;
        read::creator_statement(queries.pool(), &creator, span, currency).await
    };
    let of = asked.of(CREATOR_STATEMENT, CREATOR_STATEMENT_OF_PERIOD);
    let Read { position, value } = queries.answer::<CreatorStatement>(min_position, of, question).await?;
    Ok(Positioned(position, Json(value)))
}
