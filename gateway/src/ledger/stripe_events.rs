//! `GET /api/v1/ledger/stripe-events`.

use axum::extract::State;
use axum::response::IntoResponse;
use fanledger_gateway_api::{InboxItem, InboxStatus, Page, Problem};

use crate::params::{MinPosition, Params, Positioned, from_str};
use crate::read::{self, InboxFilter, Read, Slice, answered_from::INBOX};
use crate::state::Queries;

/// Webhooks and what became of each.
///
/// Newest first. `raised` are those that somebody should look at.
#[utoipa::path(
    get, path = "/api/v1/ledger/stripe-events", tag = "inbox", operation_id = "list_stripe_events",
    params(
        ("status" = Option<InboxStatus>, Query, description = "What became of them"),
        ("raised" = Option<bool>, Query, description = "Whether somebody should look"),
        ("type" = Option<String>, Query, description = "Stripe's type, `charge.succeeded`"),
        ("object" = Option<String>, Query, description = "The object that they are about, `ch_…`"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of webhooks.", body = Page<InboxItem>),
        (status = 400, description = "`cursor-invalid`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_stripe_events(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, crate::problem::Problem> {
    let filter = InboxFilter {
        status: params.filter("status", |text| {
            InboxStatus::from_text(text)
                .ok_or_else(|| "expected pending, translated, known or not_translated".to_owned())
        }),
        raised: params.filter("raised", |text| from_str(text, "expected true or false")),
        event_type: params.filter("type", |text| {
            let plain = (1..=200).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
            if plain {
                Ok(text.to_owned())
            } else {
                Err("expected a type of Stripe's, such as charge.succeeded".to_owned())
            }
        }),
        object: params.filter("object", |text| from_str(text, "expected the id of an object at Stripe, such as ch_1")),
    };
    let paging = params.paging::<u64>(&queries.cursors)?;
    let question = read::inbox(queries.pool(), &filter, paging.after, paging.limit);
    let Read { position, value } = queries.answer::<Slice<InboxItem, _>>(min_position, INBOX, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}
