//! `GET` and `POST /api/v1/ledger/manual-entries`, `GET …/{id}`, `POST …/{id}/approve` and `/reject`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use fanledger_domain::id::StripeId;
use fanledger_domain::manual_entry::{DraftText, PostingText};
use fanledger_gateway_api::{
    ManualEntry, ManualEntryReceipt, ManualEntryRequest, ManualEntryState, Page, Problem as Document, ReasonRequest,
};

use crate::auth::Caller;
use crate::body::no_content;
use crate::body::{Fields, digits, reason, text};
use crate::params::{MinPosition, Params, Positioned, path_part};
use crate::ports::Acted;
use crate::problem::Problem;
use crate::read::{self, Read, Slice, answered_from::MANUAL_ENTRIES};
use crate::state::{Commands, Queries};

/// Proposes an entry by hand.
///
/// For what Stripe does not know. What moves no more than one person may alone (1,000.00 of a currency, 100,000 of one without
/// decimals) is posted at once; the rest waits for another person's approval. It is booked where its period is open.
#[utoipa::path(
    post, path = "/api/v1/ledger/manual-entries", tag = "finance", operation_id = "propose_manual_entry",
    request_body = ManualEntryRequest,
    responses((status = 200, description = "It is in the journal: posted, or proposed.", body = ManualEntryReceipt))
)]
pub(crate) async fn propose_manual_entry(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let description = fields.required("description", text);
    let reason = fields.required("reason", text);
    let occurred_at = fields.required("occurred_at", text);
    let clears = fields.optional("clears", text);
    let postings = fields.list("postings", |line| {
        let account = line.required("account", text);
        let side = line.required("side", text);
        let amount_minor = line.required("amount_minor", digits);
        let currency = line.required("currency", text);
        Some(PostingText { account: account?, side: side?, amount_minor: amount_minor?, currency: currency? })
    });
    let draft = || {
        Some(DraftText {
            description: description?.trim().to_owned(),
            reason: reason?.trim().to_owned(),
            occurred_at: occurred_at?,
            clears,
            postings: postings?,
        })
    };
    let draft = fields.finish(draft())?;
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let Acted { position, value } = commands.desks.finance.propose(caller.subject()?, draft, key).await?;
    Ok(Positioned(position, Json(value)))
}

/// Approves an entry by hand.
///
/// Takes another person than who proposed it. It is posted by that.
#[utoipa::path(
    post, path = "/api/v1/ledger/manual-entries/{id}/approve", tag = "finance", operation_id = "approve_manual_entry",
    params(("id" = String, Path, description = "`mne_…`")),
    responses((status = 200, description = "It is posted.", body = ManualEntryReceipt))
)]
pub(crate) async fn approve_manual_entry(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    no_content(&commands, &headers, body).await?;
    let id: StripeId = path_part("id", &id)?;
    let Acted { position, value } = commands.desks.finance.approve(caller.subject()?, id).await?;
    Ok(Positioned(position, Json(value)))
}

/// Rejects an entry by hand.
///
/// It is never posted. Who proposed it may take it back so, too.
#[utoipa::path(
    post, path = "/api/v1/ledger/manual-entries/{id}/reject", tag = "finance", operation_id = "reject_manual_entry",
    params(("id" = String, Path, description = "`mne_…`")),
    request_body = ReasonRequest,
    responses((status = 200, description = "It is rejected.", body = ManualEntryReceipt))
)]
pub(crate) async fn reject_manual_entry(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let reason = fields.required("reason", reason);
    let reason = fields.finish(reason)?;
    let id: StripeId = path_part("id", &id)?;
    let Acted { position, value } = commands.desks.finance.reject(caller.subject()?, id, reason).await?;
    Ok(Positioned(position, Json(value)))
}

/// Entries by hand.
///
/// Newest first; `state=proposed` are those that wait for a second person.
#[utoipa::path(
    get, path = "/api/v1/ledger/manual-entries", tag = "finance", operation_id = "list_manual_entries",
    params(
        ("state" = Option<ManualEntryState>, Query, description = "Where they stand"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of entries by hand.", body = Page<ManualEntry>),
        (status = 400, description = "`cursor-invalid`", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Document, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_manual_entries(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, Problem> {
    let state = params.filter("state", |text| {
        ManualEntryState::from_text(text).ok_or_else(|| "expected proposed, posted or rejected".to_owned())
    });
    let paging = params.paging::<u64>(&queries.cursors)?;
    let question = read::manual_entries(queries.pool(), state, paging.after, paging.limit);
    let Read { position, value } =
        queries.answer::<Slice<ManualEntry, _>>(min_position, MANUAL_ENTRIES, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}

/// An entry by hand.
///
/// Who proposed it and why, who agreed or said no, and the entry that it led to.
#[utoipa::path(
    get, path = "/api/v1/ledger/manual-entries/{id}", tag = "finance", operation_id = "get_manual_entry",
    params(("id" = String, Path, description = "`mne_…`")),
    responses(
        (status = 200, description = "It.", body = ManualEntry),
        (status = 404, description = "`not-found`", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Document, content_type = "application/problem+json")
    )
)]
pub(crate) async fn get_manual_entry(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    Path(id): Path<String>,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.finish()?;
    let id: StripeId = path_part("id", &id)?;
    let question = read::manual_entry(queries.pool(), &id);
    let Read { position, value } = queries.answer::<ManualEntry>(min_position, MANUAL_ENTRIES, question).await?;
    Ok(Positioned(position, Json(value)))
}
