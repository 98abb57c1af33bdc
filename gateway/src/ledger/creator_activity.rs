//! `GET /api/v1/ledger/creators/{creator}/activity`.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::entry::StatementLine;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::CreatorId;
use fanledger_gateway_api::{CreatorActivity, Page, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::answered_from::{CREATOR_STATEMENT, CREATOR_STATEMENT_OF_PERIOD};
use crate::read::{self, ActivityFilter, ActivityKey, CreatorSpan, Read, Slice};
use crate::state::Queries;

/// The entries behind a creator's statement.
///
/// Newest first, each with what it contributes to a line. With the same period or times, and the line, kind and currency of a
/// figure of the statement, they add up to that figure.
#[utoipa::path(
    get, path = "/api/v1/ledger/creators/{creator}/activity", tag = "ledger", operation_id = "list_creator_activity",
    params(
        ("creator" = String, Path, description = "The creator, `crt_…`"),
        ("line" = Option<String>, Query, description = "Only this line: `sales`, `platform_fees`, `refunds`, `disputes`, `payouts`, `adjustments`"),
        ("kind" = Option<String>, Query, description = "Only what was paid for this: `subscription`, `tip`, `unlock`; or `none`, what is about no payment"),
        ("period" = Option<String>, Query, description = "A month, `2026-10`; alone, without `as_of`, `by`, `from` and `to`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
        ("from" = Option<String>, Query, description = "The first instant (RFC 3339 with an offset), on the axis of `by`; inclusive"),
        ("to" = Option<String>, Query, description = "The last instant; inclusive. Another word for an `as_of` that is an instant"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("currency" = Option<String>, Query, description = "Only this currency, lowercase", pattern = "^[a-z]{3}$"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of entries.", body = Page<CreatorActivity>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_creator_activity(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let ((from, asked), currency) = (params.asked_lines(), params.currency());
    let line = params.filter("line", |text| {
        StatementLine::from_text(text)
            .ok_or_else(|| format!("expected {}", StatementLine::ALL.map(StatementLine::as_str).join(", ")))
    });
    let kind = params.filter("kind", |text| match text {
        "none" => Ok(None),
        _ => PaymentKind::from_text(text)
            .map(Some)
            .ok_or_else(|| "expected subscription, tip, unlock or none".to_owned()),
    });
    let paging = params.paging::<ActivityKey>(&queries.cursors)?;
    let creator: CreatorId = path_part("creator", &name)?;
    let question = async {
        let span = CreatorSpan::resolve(queries.pool(), from, asked).await?;
        let filter = ActivityFilter { line, kind, currency };
        read::creator_activity(queries.pool(), &creator, span, filter, paging.after.as_ref(), paging.limit).await
    };
    let of = asked.of(CREATOR_STATEMENT, CREATOR_STATEMENT_OF_PERIOD);
    let Read { position, value } = queries.answer::<Slice<CreatorActivity, _>>(min_position, of, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
