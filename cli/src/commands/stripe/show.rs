//! `fanledger stripe show`: what Stripe sent, opened in a person's name.

use clap::Args;
use fanledger_domain::id::StripeId;
use fanledger_gateway_api::{OpenedStripeEvent, ReasonRequest};

use crate::api_client::{ActorArgs, ApiClient};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::Settings;

/// Which webhook, and why.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// evt_…
    #[arg(value_parser = parse_id)]
    id: StripeId,
    /// Why it is opened; stays in the journal, with who opened it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    actor: ActorArgs,
}

fn parse_id(text: &str) -> Result<StripeId, String> {
    text.parse().map_err(|error: fanledger_domain::id::IdError| error.to_string())
}

/// What was received is no JSON, nor any text.
#[derive(Debug, thiserror::Error)]
#[error("the webhook's body is no JSON; --json has it in base64")]
struct NoJson;

pub(super) async fn run(args: &ShowArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let body = ReasonRequest { reason: args.reason.clone() };
    let path = format!("/api/v1/ledger/stripe-events/{}/open", args.id);
    let opened = client.post::<OpenedStripeEvent>(&path, &body).await?.value;
    if output.is_json() {
        output.json(&opened)?;
        return Ok(Outcome::Fine);
    }
    // The body alone on standard output, for `jq`; what was recorded beside it.
    eprintln!("{} opened by {} at {}; SHA-256 {}", opened.id, opened.opened_by, opened.opened_at, opened.sha256);
    let Some(body) = &opened.body else { return Err(NoJson.into()) };
    let value: serde_json::Value = serde_json::from_str(body.get())?;
    output.json(&value)?;
    Ok(Outcome::Fine)
}
