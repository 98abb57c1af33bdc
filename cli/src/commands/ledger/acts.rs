//! `fanledger ledger post | approve | reject | reverse | manual-entries`: what finance books by hand.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use fanledger_domain::account::Account;
use fanledger_domain::entry::POSTING_MINOR_MAX;
use fanledger_domain::id::{EntryId, StripeId};
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, Read};
use fanledger_gateway_api::{
    EntryPosting, ManualEntry, ManualEntryReceipt, ManualEntryRequest, ManualEntryState, Minor, MinorNumber,
    ReasonRequest, ReversalRequest, Side,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::show::{PAGE, connect, in_pages, list};
use crate::api_client::{ActorArgs, Answer, ApiClient};
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output, amount_of};
use crate::settings::Settings;

const PATH: &str = "/api/v1/ledger/manual-entries";

/// What an act came to, with the position at which whoever waits for it may read it.
#[derive(Serialize)]
pub(super) struct Done<T> {
    position: Option<u64>,
    #[serde(flatten)]
    pub(super) receipt: T,
}

impl<T> From<Answer<T>> for Done<T> {
    fn from(answer: Answer<T>) -> Self {
        Self { position: answer.position, receipt: answer.value }
    }
}

impl<T> Done<T> {
    /// `, at position 17`.
    pub(super) fn at(&self) -> String {
        self.position.map_or_else(String::new, |position| format!(", at position {position}"))
    }
}

/// An id of ours, by its form.
pub(super) fn parse_id<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// An entry by hand.
#[derive(Debug, Args)]
pub struct PostArgs {
    /// The entry as JSON, as the API takes it: description, reason, occurred_at, postings, clears.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["debit", "credit", "currency", "description", "reason", "occurred", "clears"])]
    file: Option<PathBuf>,
    /// An account and an amount of minor units, such as assets:bank=10000; may be repeated.
    #[arg(long, value_name = "ACCOUNT=MINOR", value_parser = parse_line, required_unless_present = "file")]
    debit: Vec<Line>,
    /// Likewise, on the other side.
    #[arg(long, value_name = "ACCOUNT=MINOR", value_parser = parse_line, required_unless_present = "file")]
    credit: Vec<Line>,
    /// The currency of all lines; a file may have several.
    #[arg(long, value_parser = super::parse_currency, required_unless_present = "file")]
    currency: Option<Currency>,
    /// One line for people.
    #[arg(long, required_unless_present = "file")]
    description: Option<String>,
    /// Why; it stays in the journal, so name no person.
    #[arg(long, required_unless_present = "file")]
    reason: Option<String>,
    /// When what it books happened (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_id::<Timestamp>, required_unless_present = "file")]
    occurred: Option<Timestamp>,
    /// The object whose suspense it clears, as `ledger suspense` names it.
    #[arg(long, value_name = "OBJECT", value_parser = parse_id::<StripeId>)]
    clears: Option<StripeId>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// One line of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    account: Account,
    minor: i64,
}

fn parse_line(text: &str) -> Result<Line, String> {
    let expected = || "expected an account and minor units, such as assets:bank=10000".to_owned();
    let (account, minor) = text.split_once('=').ok_or_else(expected)?;
    let minor = minor.parse().ok().filter(|minor| (1..=POSTING_MINOR_MAX).contains(minor)).ok_or_else(|| {
        format!("expected whole minor units from 1 to {POSTING_MINOR_MAX} after the account; the side gives the sign")
    })?;
    Ok(Line {
        account: account.parse().map_err(|error: fanledger_domain::account::AccountError| error.to_string())?,
        minor,
    })
}

/// Which manual entry.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// mne_…
    #[arg(value_parser = parse_id::<StripeId>)]
    id: StripeId,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which manual entry, and why not.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// mne_…
    #[arg(value_parser = parse_id::<StripeId>)]
    id: StripeId,
    /// Why.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which entry, and why.
#[derive(Debug, Args)]
pub struct ReverseArgs {
    /// The entry, as `ledger account` lists it.
    #[arg(value_parser = parse_id::<EntryId>)]
    entry_id: EntryId,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Until when the entry stood (RFC 3339); now where it is not given.
    #[arg(long, value_name = "TIME", value_parser = parse_id::<Timestamp>)]
    occurred: Option<Timestamp>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which manual entries.
#[derive(Debug, Args)]
pub struct ManualEntriesArgs {
    /// Only those that stand so.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
}

/// Where a manual entry stands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StateArg {
    /// It waits for a second person.
    Proposed,
    /// It is in the books.
    Posted,
    /// It never will be.
    Rejected,
}

impl From<StateArg> for ManualEntryState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Proposed => Self::Proposed,
            StateArg::Posted => Self::Posted,
            StateArg::Rejected => Self::Rejected,
        }
    }
}

/// Why a file is no entry.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is no JSON object", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

fn read_file(path: &PathBuf) -> Result<Value, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.clone(), source })?;
    let object: Map<String, Value> =
        serde_json::from_str(&text).map_err(|source| FileError::Json { path: path.clone(), source })?;
    Ok(Value::Object(object))
}

impl PostArgs {
    fn written(&self) -> ManualEntryRequest {
        let currency = self.currency.map_or_else(String::new, |currency| currency.to_string());
        let lines = |lines: &[Line], side: Side| -> Vec<EntryPosting> {
            let posting = |line: &Line| EntryPosting {
                account: line.account.to_string(),
                side,
                amount_minor: Minor(i128::from(line.minor)),
                currency: currency.clone(),
            };
            lines.iter().map(posting).collect()
        };
        // clap requires what is not in a file.
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ManualEntryRequest {
            description: text(&self.description),
            reason: text(&self.reason),
            occurred_at: self.occurred.map_or_else(String::new, |at| at.to_string()),
            clears: self.clears.as_ref().map(ToString::to_string),
            postings: [lines(&self.debit, Side::Debit), lines(&self.credit, Side::Credit)].concat(),
        }
    }
}

pub(super) async fn post(args: &PostArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let body = match &args.file {
        Some(path) => read_file(path).map_err(Failure::usage)?,
        None => serde_json::to_value(args.written())?,
    };
    let client = ApiClient::new(settings, &args.actor)?;
    show(client.post(PATH, &body).await?, output)
}

pub(super) async fn approve(args: &ApproveArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    show(client.post(&format!("{PATH}/{}/approve", args.id), &Map::new()).await?, output)
}

pub(super) async fn reject(args: &RejectArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let body = ReasonRequest { reason: args.reason.clone() };
    show(client.post(&format!("{PATH}/{}/reject", args.id), &body).await?, output)
}

pub(super) async fn reverse(args: &ReverseArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let body = ReversalRequest { reason: args.reason.clone(), occurred_at: args.occurred.map(|at| at.to_string()) };
    show(client.post(&format!("/api/v1/ledger/entries/{}/reverse", args.entry_id), &body).await?, output)
}

fn show(answer: Answer<ManualEntryReceipt>, output: Output) -> Result<Outcome, Failure> {
    let done = Done::from(answer);
    if output.is_json() {
        output.json(&done)?;
        return Ok(Outcome::Fine);
    }
    let ManualEntryReceipt { id, state, entry_id, .. } = &done.receipt;
    match (state, entry_id) {
        (ManualEntryState::Posted, entry_id) => {
            let entry = entry_id.as_deref().unwrap_or_default();
            output.line(format_args!("{id} is posted{}: entry {entry}", done.at()))?;
        }
        (ManualEntryState::Proposed, _) => {
            output.line(format_args!("{id} is proposed{}. It moves more than one person may alone;", done.at()))?;
            output.line(format_args!("somebody else posts it with `fanledger ledger approve {id}`."))?;
        }
        (ManualEntryState::Rejected, _) => output.line(format_args!("{id} is rejected{}.", done.at()))?,
    }
    Ok(Outcome::Fine)
}

pub(super) async fn manual_entries(
    args: &ManualEntriesArgs,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let state = args.state.map(ManualEntryState::from);
    let page = async |after| read::manual_entries::<MinorNumber>(&pool, state, after, PAGE).await;
    let items: Read<Vec<ManualEntry<MinorNumber>>> = in_pages(page).await?;
    let columns = [
        ("proposed", Align::Left),
        ("entry by hand", Align::Left),
        ("state", Align::Left),
        ("moves", Align::Right),
        ("by", Align::Left),
        ("decided by", Align::Left),
        ("last refusal", Align::Left),
        ("description", Align::Left),
    ];
    list(output, &items, "Finance has booked nothing by hand.", &columns, |item| {
        // Who said no is shown with it, also once it is proposed again.
        let rejected = item
            .rejected_by
            .as_ref()
            .map(|by| format!("rejected by {by}: {}", item.rejection_reason.as_deref().unwrap_or_default()));
        vec![
            item.proposed_at.clone(),
            item.id.clone(),
            item.state.as_str().to_owned(),
            moved(item),
            item.proposed_by.clone(),
            item.decided_by.clone().unwrap_or_default(),
            rejected.unwrap_or_default(),
            item.description.clone(),
        ]
    })
}

/// What it debits, by currency.
fn moved(item: &ManualEntry<MinorNumber>) -> String {
    let mut sums: Vec<(&str, i128)> = Vec::new();
    for posting in item.postings.iter().filter(|posting| posting.side == Side::Debit) {
        match sums.iter_mut().find(|(currency, _)| *currency == posting.currency) {
            Some((_, sum)) => *sum += posting.amount_minor.0,
            None => sums.push((&posting.currency, posting.amount_minor.0)),
        }
    }
    let text = |(currency, minor): (&str, i128)| format!("{} {currency}", amount_of(minor, currency));
    sums.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_account_and_an_amount() {
        let line = parse_line("liabilities:creators:crt_a:available=10000").unwrap();
        assert_eq!((line.account.to_string().as_str(), line.minor), ("liabilities:creators:crt_a:available", 10_000));
        for bad in [
            "assets:bank",
            "assets:bank=",
            "assets:bank=0",
            "assets:bank=-5",
            "assets:bank=1.5",
            "assets:nowhere=5",
            "=5",
        ] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }
}
