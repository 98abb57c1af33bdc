//! `GET /api/v1/ledger/accounts/{account}/postings`.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use fanledger_domain::account::Account;
use fanledger_gateway_api::{Page, PostingLine, Problem};

use crate::params::{Axis, MinPosition, Params, Positioned, path_part};
use crate::read::answered_from::{CLOSED_POSTINGS, POSTINGS};
use crate::read::{self, PostingKey, Read, Slice, Span};
use crate::state::Queries;

/// What moved an account.
///
/// The lines of its statement, newest first (where times are the same, by position), each with the balance right after it and what
/// led to it.
#[utoipa::path(
    get, path = "/api/v1/ledger/accounts/{account}/postings", tag = "ledger", operation_id = "list_postings",
    params(
        ("account" = String, Path, description = "The account, `assets:stripe:clearing`"),
        ("as_of" = Option<String>, Query, description = "An instant (RFC 3339 with an offset) or a journal position; inclusive"),
        ("by" = inline(Option<Axis>), Query, description = "Which time counts; `effective` without it"),
        ("period" = Option<String>, Query, description = "A closed month, `2026-10`, as its close fixed it; alone, without `as_of`, `by`, `from` and `to`", pattern = "^[0-9]{4}-[0-9]{2}$"),
        ("close" = Option<u32>, Query, description = "Which close of the period: 1, 2, …; the last without it", minimum = 1),
        ("from" = Option<String>, Query, description = "The first instant (RFC 3339 with an offset), on the axis of `by`; inclusive"),
        ("to" = Option<String>, Query, description = "The last instant; inclusive. Another word for an `as_of` that is an instant"),
        ("currency" = Option<String>, Query, description = "Only this currency, lowercase", pattern = "^[a-z]{3}$"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of lines.", body = Page<PostingLine>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`, `as-of-out-of-range`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_postings(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let ((from, asked), currency) = (params.asked_lines(), params.currency());
    let paging = params.paging::<PostingKey>(&queries.cursors)?;
    let account: Account = path_part("account", &name)?;
    let question = async {
        let decided = asked.decide(queries.pool()).await?;
        let span = Span { from: from.or(decided.from), as_of: decided.as_of, by: decided.by };
        let after = paging.after.as_ref();
        Ok(decided.bound(read::postings(queries.pool(), &account, currency, span, after, paging.limit).await?))
    };
    let of = asked.of(POSTINGS, CLOSED_POSTINGS);
    let Read { position, value } = queries.answer::<Slice<PostingLine, _>>(min_position, of, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
