//! `POST /api/v1/ledger/entries/{entry_id}/reverse`.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::IntoResponse;
use fanledger_domain::id::EntryId;
use fanledger_gateway_api::{ManualEntryReceipt, ReversalRequest};

use crate::auth::Caller;
use crate::body::{Fields, parsed, reason};
use crate::params::{Positioned, path_part};
use crate::ports::Acted;
use crate::problem::Problem;
use crate::state::Commands;

/// Takes an entry back.
///
/// By a manual entry with its lines the other way round, once. It occurs now, or when it is said to: until then the entry stood.
/// What moves more than one person may alone waits for another's approval. What somebody decided can be taken back: an entry by
/// hand, a claim or recovery of a payout run. What the books of a charge or another object at Stripe posted follows what is known
/// of it: the problem says what to do instead.
#[utoipa::path(
    post, path = "/api/v1/ledger/entries/{entry_id}/reverse", tag = "finance", operation_id = "reverse_entry",
    params(("entry_id" = String, Path, description = "The entry's id")),
    request_body = ReversalRequest,
    responses((status = 200, description = "It is in the journal: posted, or proposed.", body = ManualEntryReceipt))
)]
pub(crate) async fn reverse_entry(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let reason = fields.required("reason", reason);
    let occurred_at = fields.optional("occurred_at", parsed);
    let reason = fields.finish(reason)?;
    let id: EntryId = path_part("entry_id", &id)?;
    let acted = commands.desks.finance.reverse(caller.subject()?, id, reason, occurred_at).await;
    let Acted { position, value } = acted?;
    Ok(Positioned(position, Json(value)))
}
