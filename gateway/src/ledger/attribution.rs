//! `POST /api/v1/ledger/charges/{charge}/attribution`, and the same of a transfer and of an application fee;
//! `GET /api/v1/ledger/attributions`.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::IntoResponse;
use fanledger_domain::facts::{Attribution, PaymentKind};
use fanledger_domain::id::{IdError, StripeId, StripeKind};
use fanledger_domain::split::BasisPoints;
use fanledger_gateway_api::{
    AttributionReceipt, AttributionRequest, Page, Problem as Document, ReasonRequest, SaidAttribution,
};
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{Fields, digits, invalid, parsed, reason, text};
use crate::params::{MinPosition, Params, Positioned, path_part};
use crate::ports::Acted;
use crate::problem::Problem;
use crate::read::{self, Read, Slice, answered_from::ATTRIBUTIONS};
use crate::state::{Commands, Queries};

/// Whose money a transfer or application fee is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read field by field")]
pub(crate) struct CreatorRequest {
    /// `crt_…`.
    creator: String,
    #[schema(inline)]
    #[serde(flatten)]
    why: ReasonRequest,
}

/// Attributes a charge.
///
/// Finance says whose money it is. That beats metadata, and the last word stands. What is left out of fan, kind and tax stays as it
/// stands; of the share, it is what was agreed with this creator; and by policy where there is nothing. The books converge at the date
/// of the charge: money leaves suspense, or another creator. The same again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/ledger/charges/{charge}/attribution", tag = "finance", operation_id = "attribute_charge",
    params(("charge" = String, Path, description = "`ch_…` or `py_…`")),
    request_body = AttributionRequest,
    responses((status = 200, description = "It is in the journal.", body = AttributionReceipt))
)]
pub(crate) async fn attribute_charge(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(charge): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let creator = fields.required("creator", parsed);
    let fan = fields.optional("fan", parsed);
    let kind = fields.optional("kind", |value| {
        PaymentKind::from_text(&text(value)?).ok_or_else(|| "expected subscription, tip or unlock".to_owned())
    });
    let share = fields.optional("creator_share_bps", share);
    let tax_minor = fields.optional("tax_minor", tax_minor);
    let tax_jurisdiction = fields.optional("tax_jurisdiction", parsed);
    let reason = fields.required("reason", reason);
    let attribution = creator.map(|creator| Attribution { creator, fan, kind, share, tax_minor, tax_jurisdiction });
    let (attribution, reason) = fields.finish(attribution.zip(reason))?;
    attribute(&commands, &caller, object("charge", &charge, StripeKind::Charge)?, attribution, reason).await
}

/// Attributes a transfer.
///
/// Finance says to whom it was sent, where neither its metadata nor the connected account's does.
#[utoipa::path(
    post, path = "/api/v1/ledger/transfers/{transfer}/attribution", tag = "finance", operation_id = "attribute_transfer",
    params(("transfer" = String, Path, description = "`tr_…`")),
    request_body = CreatorRequest,
    responses((status = 200, description = "It is in the journal.", body = AttributionReceipt))
)]
pub(crate) async fn attribute_transfer(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(transfer): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let (attribution, reason) = creator_alone(fields)?;
    attribute(&commands, &caller, object("transfer", &transfer, StripeKind::Transfer)?, attribution, reason).await
}

/// Attributes an application fee.
///
/// Finance says whose destination charge it was taken out of, where the connected account's metadata does not.
#[utoipa::path(
    post, path = "/api/v1/ledger/application-fees/{fee}/attribution", tag = "finance", operation_id = "attribute_application_fee",
    params(("fee" = String, Path, description = "`fee_…`")),
    request_body = CreatorRequest,
    responses((status = 200, description = "It is in the journal.", body = AttributionReceipt))
)]
pub(crate) async fn attribute_application_fee(
    State(commands): State<Commands>,
    Extension(caller): Extension<Caller>,
    Path(fee): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let (attribution, reason) = creator_alone(fields)?;
    attribute(&commands, &caller, object("fee", &fee, StripeKind::ApplicationFee)?, attribution, reason).await
}

/// Attributions.
///
/// What finance said of whose money an object moves, newest first: who said it, when and why.
#[utoipa::path(
    get, path = "/api/v1/ledger/attributions", tag = "finance", operation_id = "list_attributions",
    params(
        ("object" = Option<String>, Query, description = "Of this charge, transfer or application fee only"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same path and filters"),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50", minimum = 1, maximum = 500)
    ),
    responses(
        (status = 200, description = "A page of attributions.", body = Page<SaidAttribution>),
        (status = 400, description = "`cursor-invalid`", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "`parameters-invalid`", body = Document, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list_attributions(
    State(queries): State<Queries>,
    MinPosition(min_position): MinPosition,
    mut params: Params,
) -> Result<impl IntoResponse, Problem> {
    let object: Option<StripeId> =
        params.filter("object", |text| text.parse().map_err(|error: IdError| error.to_string()));
    let paging = params.paging::<u64>(&queries.cursors)?;
    let question = read::attributions(queries.pool(), object.as_ref(), paging.after, paging.limit);
    let Read { position, value } =
        queries.answer::<Slice<SaidAttribution, _>>(min_position, ATTRIBUTIONS, question).await?;
    Ok(Positioned(position, paging.page(&queries.cursors, value)?))
}

fn creator_alone(mut fields: Fields) -> Result<(Attribution, String), Problem> {
    let creator = fields.required("creator", parsed);
    let reason = fields.required("reason", reason);
    let attribution = creator.map(|creator| Attribution {
        creator,
        fan: None,
        kind: None,
        share: None,
        tax_minor: None,
        tax_jurisdiction: None,
    });
    fields.finish(attribution.zip(reason))
}

/// The object that the path names, which must be of this kind.
fn object(name: &str, text: &str, kind: StripeKind) -> Result<StripeId, Problem> {
    let id: StripeId = path_part(name, text)?;
    if id.kind() == kind {
        return Ok(id);
    }
    Err(invalid([(
        name.to_owned(),
        format!("expected the id of a {} at Stripe", name.replace("fee", "application fee")),
    )]))
}

fn share(value: &Value) -> Result<BasisPoints, String> {
    let bps = value.as_u64().and_then(|bps| u16::try_from(bps).ok());
    bps.and_then(|bps| BasisPoints::new(bps).ok()).ok_or_else(|| "expected a whole number from 0 to 10000".to_owned())
}

fn tax_minor(value: &Value) -> Result<i64, String> {
    let text = digits(value)?;
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let minor = text.parse().ok().filter(|_| is_plain);
    minor.ok_or_else(|| "expected whole minor units, zero or more".to_owned())
}

async fn attribute(
    commands: &Commands,
    caller: &Caller,
    object: StripeId,
    attribution: Attribution,
    reason: String,
) -> Result<impl IntoResponse + use<>, Problem> {
    let acted = commands.desks.finance.attribute(caller.subject()?, object, attribution, reason).await;
    let Acted { position, value } = acted?;
    Ok(Positioned(position, Json(value)))
}
