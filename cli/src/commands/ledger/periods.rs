//! `fanledger ledger periods | close | reopen`.

use clap::Args;
use fanledger_domain::period::Month;
use fanledger_gateway::read;
use fanledger_gateway_api::{
    Closing, MinorNumber, OpenKind, OpenMoney, PeriodActKind, PeriodActed, PeriodReview, PeriodState, Periods,
    TrialBalance,
};
use serde::Serialize;
use serde_json::json;

use super::asked::parse_month;
use super::show::{connect, failed};
use crate::api_client::{ActorArgs, Answer, ApiClient};
use crate::failure::{Failure, Outcome, one_line};
use crate::output::{Align, Output, amount_of};
use crate::settings::Settings;

/// Which month to close.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// The month, in UTC: 2026-10. The first close may be of any month that has ended; then they follow one another.
    #[arg(value_parser = parse_month)]
    month: Month,
    /// Only show what is open by the end of the month.
    #[arg(long)]
    dry_run: bool,
    /// Who closes it.
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which month to open again.
#[derive(Debug, Args)]
pub struct ReopenArgs {
    /// The last closed month: 2026-10.
    #[arg(value_parser = parse_month)]
    month: Month,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Who opens it; another than who closed it.
    #[command(flatten)]
    actor: ActorArgs,
}

/// What a close prints. Without `position` it was a dry run. `closing` may be null of a month that was closed: then its balances
/// could not be read yet.
#[derive(Debug, Serialize)]
struct Closed {
    period: String,
    open: Vec<OpenMoney<MinorNumber>>,
    position: Option<u64>,
    closing: Option<Closing>,
}

/// Every close and reopening.
pub(super) async fn periods(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let periods = read::periods(&pool).await.map_err(failed)?.value;
    if output.is_json() {
        output.json(&periods)?;
        return Ok(Outcome::Fine);
    }
    match (&periods.first_open, &periods.next) {
        (Some(first_open), Some(next)) => {
            output.line(format_args!("Open from {first_open} on; the next month to close is {next}."))?;
        }
        _ => output.line("Nothing is closed: every month is open, and any that has ended can be closed first.")?,
    }
    if periods.periods.is_empty() {
        return Ok(Outcome::Fine);
    }
    output.line("")?;
    let rows = periods.periods.into_iter().flat_map(|period| {
        let state = match period.state {
            PeriodState::Open => "open",
            PeriodState::Closed => "closed",
        };
        period.acts.into_iter().enumerate().map(move |(number, act)| {
            let what = match act.act {
                PeriodActKind::Closed => format!("close {}", act.close),
                PeriodActKind::Reopened => format!("reopened after close {}", act.close),
            };
            let first = number == 0;
            let of_month = |text: &str| if first { text.to_owned() } else { String::new() };
            let reason = act.reason.unwrap_or_default();
            vec![of_month(&period.period), of_month(state), what, act.position.to_string(), act.at, act.by, reason]
        })
    });
    let columns = [
        ("month", Align::Left),
        ("now", Align::Left),
        ("", Align::Left),
        ("position", Align::Right),
        ("at", Align::Left),
        ("by", Align::Left),
        ("why", Align::Left),
    ];
    output.table(&columns, rows.collect())?;
    Ok(Outcome::Fine)
}

/// Shows what is open, and closes.
pub(super) async fn close(args: &CloseArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let month = args.month;
    let path = format!("/api/v1/ledger/periods/{month}");
    let review: Answer<PeriodReview> = client.get(&format!("{path}/review"), None).await?;
    let open: Vec<_> = review.value.open.into_iter().map(number).collect();
    if !output.is_json() {
        show_open(month, &open, output)?;
    }
    let period = month.to_string();
    if args.dry_run {
        if output.is_json() {
            output.json(&Closed { period, open, position: None, closing: None })?;
        }
        return Ok(Outcome::Fine);
    }
    let acted: Answer<PeriodActed> = client.post(&format!("{path}/close"), &json!({})).await?;
    // From here on it is done, whatever becomes of the rest.
    let position = acted.value.position;
    if !output.is_json() {
        output.line(format_args!("{month} is closed, at position {position}."))?;
    }
    let closing = closing_of(&client, month, position).await;
    if output.is_json() {
        output.json(&Closed { period, open, position: Some(position), closing })?;
    } else if let Some(closing) = closing {
        output.line(format_args!("close     {}, by {}", closing.close, closing.closed_by))?;
        show_closing(&closing, output)?;
    }
    Ok(Outcome::Fine)
}

/// What the close fixed, once it is read. That it cannot be read is no failure of the close, and is said with what to do.
async fn closing_of(client: &ApiClient, month: Month, position: u64) -> Option<Closing> {
    let path = format!("/api/v1/ledger/trial-balance?period={month}");
    match client.get::<TrialBalance>(&path, Some(position)).await {
        Ok(balance) => balance.value.closing,
        Err(failure) => {
            let why = one_line(failure.error());
            eprintln!(
                "{month} is closed, and what that fixed cannot be read now: {why}\n\
                 `fanledger ledger trial-balance --period {month}` shows it; do not close it again."
            );
            None
        }
    }
}

/// Opens the last closed month again.
pub(super) async fn reopen(args: &ReopenArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let path = format!("/api/v1/ledger/periods/{}/reopen", args.month);
    let acted: Answer<PeriodActed> = client.post(&path, &json!({ "reason": args.reason })).await?;
    if output.is_json() {
        output.json(&acted.value)?;
    } else {
        let (month, position) = (args.month, acted.value.position);
        let fixed = match reopened_close(&client, month, position).await {
            Some(close) => format!("What close {close} fixed stays to be read: --period {month} --close {close}."),
            None => {
                format!(
                    "What its close fixed stays to be read: --period {month} --close <the number in `fanledger ledger periods`>."
                )
            }
        };
        output.line(format_args!("{month} is open again, at position {position}. {fixed}"))?;
    }
    Ok(Outcome::Fine)
}

/// The number of the close that a reopening opened. That it cannot be read now is no failure of the reopening.
async fn reopened_close(client: &ApiClient, month: Month, position: u64) -> Option<u32> {
    let periods: Answer<Periods> = client.get("/api/v1/ledger/periods", Some(position)).await.ok()?;
    let month = month.to_string();
    let history = periods.value.periods.into_iter().find(|history| history.period == month)?;
    history.acts.into_iter().find(|act| act.position == position).map(|act| act.close)
}

/// What fixes a closed month: to be compared by phone.
pub(super) fn show_closing(closing: &Closing, output: Output) -> Result<(), Failure> {
    output.line(format_args!("position  {}", closing.position))?;
    output.line(format_args!("chain     {}", closing.chain))?;
    output.line(format_args!("digest    {}", closing.digest))?;
    Ok(())
}

fn number(open: OpenMoney) -> OpenMoney<MinorNumber> {
    let OpenMoney { kind, currency, account, count, balance_minor } = open;
    OpenMoney { kind, currency, account, count, balance_minor: MinorNumber(balance_minor.0) }
}

fn show_open(month: Month, open: &[OpenMoney<MinorNumber>], output: Output) -> Result<(), Failure> {
    if open.is_empty() {
        output.line(format_args!("Nothing is open by the end of {month}."))?;
        return Ok(());
    }
    output.line(format_args!("Open by the end of {month}:"))?;
    let rows = open.iter().map(|open| {
        let (what, unit) = match open.kind {
            OpenKind::Suspense => ("in suspense", "objects"),
            OpenKind::Awaited => ("balance transaction awaited", "objects"),
            OpenKind::Unconfirmed => ("unconfirmed, the balance", "balances"),
            OpenKind::NegativeAvailable => ("creators whose available is negative", "creators"),
            OpenKind::WaitingForApproval => ("waiting for approval", "proposals"),
        };
        let what = open.account.as_ref().map_or_else(|| what.to_owned(), |account| format!("{what}: {account}"));
        // What is awaited and what waits for approval are sums without a sign, and not to be read as balances.
        let amount = amount_of(open.balance_minor.0, &open.currency);
        let (balance, sum) = match open.kind {
            OpenKind::Suspense | OpenKind::Unconfirmed | OpenKind::NegativeAvailable => (amount, String::new()),
            OpenKind::Awaited | OpenKind::WaitingForApproval => (String::new(), amount),
        };
        vec![what, open.count.to_string(), unit.to_owned(), balance, sum, open.currency.clone()]
    });
    let columns = [
        ("", Align::Left),
        ("", Align::Right),
        ("", Align::Left),
        ("balance", Align::Right),
        ("amount", Align::Right),
        ("", Align::Left),
    ];
    output.table(&columns, rows.collect())?;
    output.line("")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};

    use super::*;

    /// A close that is committed is not undone by what fails afterwards: whoever is told otherwise does it again.
    #[tokio::test]
    async fn a_close_whose_balances_cannot_be_read_yet_is_a_close() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let closes = async || Json(json!({"period": "2026-01", "state": "closed", "position": 17}));
        let review = async || Json(json!({"period": "2026-01", "position": 16, "open": []}));
        let router = Router::new()
            .route("/api/v1/ledger/periods/2026-01/review", get(review))
            .route("/api/v1/ledger/periods/2026-01/close", post(closes))
            .route("/api/v1/ledger/trial-balance", get(async || StatusCode::BAD_GATEWAY));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let settings = [("GATEWAY_URL", url), ("TOKEN", "a.b.c".to_owned())].into();
        let settings = Settings::parse("", settings).unwrap();
        for json in [false, true] {
            let actor = ActorArgs::default();
            let args = CloseArgs { month: "2026-01".parse().unwrap(), dry_run: false, actor };
            assert_eq!(close(&args, &settings, Output::new(json)).await.unwrap(), Outcome::Fine);
        }
    }
}
