//! `fanledger ledger attribute | attributions`: whose money it is, by finance's word.

use clap::Args;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::{CreatorId, FanId, Jurisdiction, StripeId, StripeKind};
use fanledger_domain::split::BasisPoints;
use fanledger_gateway::read::{self, Read};
use fanledger_gateway_api::{AttributionReceipt, AttributionRequest, Minor, MinorNumber, SaidAttribution};

use super::acts::{Done, parse_id};
use super::show::{self, PAGE, connect, in_pages};
use crate::api_client::{ActorArgs, ApiClient};
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output};
use crate::settings::Settings;

/// Whose money an object is. What is left out stays as it stands, where metadata or finance have said it.
#[derive(Debug, Args)]
pub struct AttributeArgs {
    /// The charge (ch_…, py_…), transfer (tr_…) or application fee (fee_…).
    #[arg(value_parser = parse_id::<StripeId>)]
    object: StripeId,
    /// Whose money it is: crt_…
    #[arg(long, value_parser = parse_id::<CreatorId>)]
    creator: CreatorId,
    /// Who paid, where it is known: fan_… Of a charge only, as all that follows but the reason.
    #[arg(long, value_parser = parse_id::<FanId>)]
    fan: Option<FanId>,
    /// What was paid for: subscription, tip or unlock; where nothing stands: subscription where there is an invoice, else a tip.
    #[arg(long, value_parser = parse_kind)]
    kind: Option<PaymentKind>,
    /// The creator's share of the net in basis points, 0 to 10000; else what was agreed with this creator, else
    /// the policy's.
    #[arg(long, value_name = "BPS", value_parser = parse_share)]
    share_bps: Option<BasisPoints>,
    /// The tax inside what was paid, in minor units; where nothing stands: what the invoice states.
    #[arg(long, value_name = "MINOR", value_parser = clap::value_parser!(i64).range(0..))]
    tax: Option<i64>,
    /// Whose tax, such as us-ca.
    #[arg(long, value_parser = parse_id::<Jurisdiction>)]
    jurisdiction: Option<Jurisdiction>,
    /// Why; it stays in the journal, so name no person.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    actor: ActorArgs,
}

fn parse_kind(text: &str) -> Result<PaymentKind, String> {
    PaymentKind::from_text(text).ok_or_else(|| "expected subscription, tip or unlock".to_owned())
}

fn parse_share(text: &str) -> Result<BasisPoints, String> {
    let bps = text.parse::<u16>().ok().and_then(|bps| BasisPoints::new(bps).ok());
    bps.ok_or_else(|| "expected a whole number from 0 to 10000".to_owned())
}

/// Why it was not even asked for.
#[derive(Debug, thiserror::Error)]
enum AttributeError {
    #[error("{0} is no charge, transfer or application fee: its money cannot be a creator's")]
    NotAttributable(StripeId),
    #[error("{0} is no charge: leave out --fan, --kind, --share-bps, --tax and --jurisdiction")]
    OfAChargeOnly(StripeId),
}

impl AttributeArgs {
    fn path(&self) -> Result<String, AttributeError> {
        let of_a_charge = self.fan.is_some()
            || self.kind.is_some()
            || self.share_bps.is_some()
            || self.tax.is_some()
            || self.jurisdiction.is_some();
        let kind = self.object.kind();
        let group = if kind == StripeKind::Charge {
            "charges"
        } else if kind == StripeKind::Transfer {
            "transfers"
        } else if kind == StripeKind::ApplicationFee {
            "application-fees"
        } else {
            return Err(AttributeError::NotAttributable(self.object.clone()));
        };
        if kind != StripeKind::Charge && of_a_charge {
            return Err(AttributeError::OfAChargeOnly(self.object.clone()));
        }
        Ok(format!("/api/v1/ledger/{group}/{}/attribution", self.object))
    }

    fn request(&self) -> AttributionRequest {
        AttributionRequest {
            creator: self.creator.to_string(),
            fan: self.fan.as_ref().map(ToString::to_string),
            kind: self.kind.map(|kind| kind.as_str().to_owned()),
            creator_share_bps: self.share_bps.map(BasisPoints::get),
            tax_minor: self.tax.map(|minor| Minor(i128::from(minor))),
            tax_jurisdiction: self.jurisdiction.as_ref().map(ToString::to_string),
            reason: self.reason.clone(),
        }
    }
}

/// Which attributions.
#[derive(Debug, Args)]
pub struct AttributionsArgs {
    /// Only of this charge, transfer or application fee.
    #[arg(long, value_parser = parse_id::<StripeId>)]
    object: Option<StripeId>,
}

pub(super) async fn list(args: &AttributionsArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let object = args.object.as_ref();
    let page = async |after| read::attributions::<MinorNumber>(&pool, object, after, PAGE).await;
    let items: Read<Vec<SaidAttribution<MinorNumber>>> = in_pages(page).await?;
    let nothing = match object {
        Some(object) => format!("Finance has not said whose {object} is."),
        None => "Finance has said of nothing whose it is.".to_owned(),
    };
    let columns = [
        ("said", Align::Left),
        ("object", Align::Left),
        ("is of", Align::Left),
        ("kind", Align::Left),
        ("share", Align::Right),
        ("fan", Align::Left),
        ("tax", Align::Left),
        ("by", Align::Left),
        ("why", Align::Left),
        ("position", Align::Right),
    ];
    show::list(output, &items, &nothing, &columns, |item| {
        let tax = item
            .tax_minor
            .map(|minor| format!("{} {}", minor.0, item.tax_jurisdiction.as_deref().unwrap_or("unknown")));
        vec![
            item.said_at.clone(),
            item.object.clone(),
            item.creator.clone(),
            item.kind.clone().unwrap_or_default(),
            item.creator_share_bps.map(|bps| format!("{bps} bps")).unwrap_or_default(),
            item.fan.clone().unwrap_or_default(),
            tax.unwrap_or_default(),
            item.said_by.clone().unwrap_or_default(),
            item.reason.clone(),
            item.position.to_string(),
        ]
    })
}

pub(super) async fn run(args: &AttributeArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let path = args.path().map_err(Failure::usage)?;
    let client = ApiClient::new(settings, &args.actor)?;
    let done = Done::from(client.post::<AttributionReceipt>(&path, &args.request()).await?);
    if output.is_json() {
        output.json(&done)?;
        return Ok(Outcome::Fine);
    }
    if !done.receipt.changed {
        output.line(format_args!(
            "{} was said to be {}'s before, just so: nothing changed.",
            args.object, args.creator
        ))?;
        return Ok(Outcome::Fine);
    }
    if done.receipt.creator_is_new {
        output.line(format_args!(
            "The books held nothing of {} before, and no account at Stripe says it is theirs. If the id is a slip, attribute {} again.",
            args.creator, args.object
        ))?;
    }
    let follow = if done.receipt.entries.is_empty() { "no balance changes by it now." } else { "the books follow:" };
    output.line(format_args!("{} is {}'s{}; {follow}", args.object, args.creator, done.at()))?;
    for entry in &done.receipt.entries {
        output.line(format_args!("  {entry}"))?;
    }
    Ok(Outcome::Fine)
}
