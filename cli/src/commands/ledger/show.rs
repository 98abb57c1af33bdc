//! What finance reads. The JSON is the contract's, the same numbers as over HTTP.

use fanledger_gateway::read::{self, AsOf, Asked, By, Read, ReadError, Slice, Span};
use fanledger_gateway_api::{AwaitedPart, Entry, ManualEntryState, MinorNumber, Side, TrialBalance};
use fanledger_journal::database::Role;
use serde::Serialize;
use sqlx::PgPool;

use super::EntryArgs;
use super::asked::{AccountArgs, AskedArgs};
use super::periods::show_closing;
use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output, amount_of};
use crate::settings::{Need, Settings};

/// Lines asked for at a time.
pub(super) const PAGE: u32 = 500;

pub(super) async fn connect(settings: &Settings) -> Result<PgPool, Failure> {
    settings.require(&[Need::Database(Role::Finance)])?;
    Ok(connect::pool(&settings.database_url_for(Role::Finance)?, 1).await?)
}

/// A question without an answer is usage; a database that does not answer is not.
pub(super) fn failed(error: ReadError) -> Failure {
    match error {
        ReadError::Query { .. } | ReadError::NotBuilt { .. } | ReadError::StatementDiffers { .. } => {
            Failure::from(error)
        }
        ReadError::BeforeFirstEntry { .. }
        | ReadError::AsOfPositionAhead { .. }
        | ReadError::Period(_)
        | ReadError::UnknownAccount(_)
        | ReadError::UnknownCreator(_)
        | ReadError::UnknownEntry(_)
        | ReadError::UnknownManualEntry(_)
        | ReadError::UnknownPayoutRun(_)
        | ReadError::UnknownStripeEvent(_)
        | ReadError::UnknownRunner(_)
        | ReadError::NoOperation(_) => Failure::usage(error),
    }
}

pub(super) async fn trial_balance(args: &AskedArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let balance = match args.asked() {
        Asked::AsOf(as_of, by) => read::trial_balance::<MinorNumber>(&pool, as_of, by, args.currency()).await,
        Asked::Period(period, close) => read::closed_balance(&pool, period, close, args.currency()).await,
    };
    let balance = balance.map_err(failed)?.value;
    if output.is_json() {
        output.json(&balance)?;
    } else {
        show_balance(&balance, args, output)?;
    }
    Ok(verdict(&balance))
}

/// Books that do not balance are not handed on in silence, whoever reads them.
fn verdict(balance: &TrialBalance<MinorNumber>) -> Outcome {
    let mut outcome = Outcome::Fine;
    for currency in &balance.currencies {
        let Some(difference) = currency.imbalance_minor else { continue };
        eprintln!(
            "THE BOOKS DO NOT BALANCE: in {} debits and credits differ by {}. `fanledger journal verify` says whether the journal \
             does; if it does, `fanledger projections verify balances` says what is wrong with these sums.",
            currency.currency,
            amount_of(difference.0, &currency.currency)
        );
        outcome = Outcome::CheckFailed;
    }
    outcome
}

fn show_balance(balance: &TrialBalance<MinorNumber>, args: &AskedArgs, output: Output) -> Result<(), Failure> {
    output.line(format_args!("Trial balance at position {}{}", balance.position, args.text()))?;
    if let Some(closing) = &balance.closing {
        let with = closing.closed_with.as_ref().map_or_else(String::new, |month| format!(" of {month}"));
        output.line(format_args!(
            "closed    {} by {} (close {}{with})",
            closing.closed_at, closing.closed_by, closing.close
        ))?;
        show_closing(closing, output)?;
    }
    if balance.currencies.is_empty() {
        output.line(if balance.closing.is_some() { "Nothing was booked by then." } else { "The ledger is empty." })?;
    }
    for currency in &balance.currencies {
        output.line("")?;
        let money = |minor: MinorNumber| amount_of(minor.0, &currency.currency);
        let blank_if =
            |minor: MinorNumber, blank: bool| if blank { String::new() } else { money(MinorNumber(minor.0.abs())) };
        let mut rows: Vec<Vec<String>> = currency
            .accounts
            .iter()
            .map(|account| {
                let balance = account.balance_minor;
                vec![account.account.clone(), blank_if(balance, balance.0 < 0), blank_if(balance, balance.0 >= 0)]
            })
            .collect();
        // The columns show balances, so their sums are of balances; turnover is in --json.
        let sum = |sign: i128| {
            let positive =
                currency.accounts.iter().map(|account| account.balance_minor.0 * sign).filter(|minor| *minor > 0);
            money(MinorNumber(positive.sum()))
        };
        rows.push(vec!["total".to_owned(), sum(1), sum(-1)]);
        let title = format!("{} account", currency.currency);
        output.table(&[(&title, Align::Left), ("debit", Align::Right), ("credit", Align::Right)], rows)?;
    }
    Ok(())
}

pub(super) async fn account(args: &AccountArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let (from, asked) = args.span.span()?;
    let (start, as_of, by) = asked.resolve(&pool).await.map_err(failed)?;
    let span = Span { from: from.or(start), as_of, by };
    let statements =
        read::statement::<MinorNumber>(&pool, &args.account, args.span.asked.currency(), span).await.map_err(failed)?;
    if output.is_json() {
        output.json(&statements.value)?;
        return Ok(Outcome::Fine);
    }
    output.line(format_args!("{} at position {}{}", args.account, statements.position, args.span.text()))?;
    for statement in &statements.value {
        output.line("")?;
        let money = |minor: MinorNumber| amount_of(minor.0, &statement.currency);
        if span.from.is_some() {
            output.line(format_args!("opening balance {} {}", money(statement.opening_minor), statement.currency))?;
        }
        let rows = statement.postings.iter().map(|line| {
            let side = match line.side {
                Side::Debit => "debit",
                Side::Credit => "credit",
            };
            let at = match by {
                By::Effective => &line.effective_at,
                By::Occurred => &line.occurred_at,
                By::Recorded => &line.recorded_at,
            };
            vec![
                at.clone(),
                side.to_owned(),
                money(line.amount_minor),
                money(line.balance_minor),
                line.entry_id.clone(),
                line.description.clone(),
            ]
        });
        let columns = [
            (by.as_str(), Align::Left),
            ("", Align::Left),
            ("amount", Align::Right),
            ("balance", Align::Right),
            ("entry", Align::Left),
            ("", Align::Left),
        ];
        output.table(&columns, rows.collect())?;
        output.line(format_args!("balance {} {}", money(statement.balance_minor), statement.currency))?;
    }
    Ok(Outcome::Fine)
}

pub(super) async fn entry(args: &EntryArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let (as_of, by) = (args.as_of.as_of.unwrap_or(AsOf::Latest), args.as_of.by.into());
    let mut entry: Entry<MinorNumber> = read::entry(&pool, &args.entry_id, as_of, by).await.map_err(failed)?.value;
    if let Some(currency) = args.as_of.currency {
        entry.postings.retain(|posting| posting.currency == currency.as_str());
    }
    if output.is_json() {
        output.json(&entry)?;
        return Ok(Outcome::Fine);
    }
    output.line(format_args!("{}  {}", entry.entry_id, entry.description))?;
    output.line(format_args!("occurred   {}", entry.occurred_at))?;
    output.line(format_args!("effective  {}", entry.effective_at))?;
    output.line(format_args!("recorded   {}, position {}", entry.recorded_at, entry.position))?;
    output.line(format_args!("object     {} (stream {})", entry.cause.object, entry.stream))?;
    for fact in &entry.cause.facts {
        output.line(format_args!("fact       {} #{}, position {}", fact.fact, fact.sequence, fact.position))?;
    }
    for event in &entry.cause.stripe_events {
        let position =
            event.position.map_or_else(|| "not listed yet".to_owned(), |position| format!("position {position}"));
        output.line(format_args!("webhook    {}, {position}", event.id))?;
    }
    if let Some(act) = &entry.cause.act {
        let approved = act.approved_by.as_ref().map_or_else(String::new, |by| format!(", approved by {by}"));
        // Of an object's own entry it is whose word it follows.
        let by = if entry.stream.starts_with("manual_entry/") {
            "by hand    "
        } else if entry.stream.starts_with("payout_run/") {
            "proposed by "
        } else {
            "said by    "
        };
        output.line(format_args!("{by}{}{approved}: {}", act.proposed_by, act.reason))?;
        if let Some(reversed) = &act.reverses {
            output.line(format_args!("takes back {reversed}"))?;
        }
        if let Some(object) = &act.clears {
            output.line(format_args!("clears     what is in suspense of {object}"))?;
        }
    }
    match (&entry.reversed_by, entry.reversal_state) {
        (Some(reversal), Some(ManualEntryState::Proposed)) => {
            output.line(format_args!("stands     until {reversal}, which is to take it back, is approved"))?;
        }
        (Some(reversal), Some(ManualEntryState::Posted | ManualEntryState::Rejected) | None) => {
            output.line(format_args!("taken back by {reversal}"))?;
        }
        (None, _) => {}
    }
    output.line("")?;
    let rows = entry.postings.iter().map(|posting| {
        let money = amount_of(posting.amount_minor.0, &posting.currency);
        let (debit, credit) = match posting.side {
            Side::Debit => (money, String::new()),
            Side::Credit => (String::new(), money),
        };
        vec![posting.account.clone(), debit, credit, posting.currency.clone()]
    });
    let columns = [("account", Align::Left), ("debit", Align::Right), ("credit", Align::Right), ("", Align::Left)];
    output.table(&columns, rows.collect())?;
    Ok(Outcome::Fine)
}

pub(super) async fn awaited(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let items = in_pages(async |after| read::awaited::<MinorNumber>(&pool, after.as_ref(), PAGE).await).await?;
    let columns = [
        ("since", Align::Left),
        ("object", Align::Left),
        ("awaited", Align::Left),
        ("amount", Align::Right),
        ("", Align::Left),
        ("balance transaction", Align::Left),
    ];
    let nothing = "Nothing is awaited: every object that moved money has its balance transactions.";
    list(output, &items, nothing, &columns, |item| {
        let part = match item.part {
            AwaitedPart::Movement => "its own",
            AwaitedPart::Return => "its return",
        };
        vec![
            item.since.clone(),
            item.object.clone(),
            part.to_owned(),
            amount_of(item.amount_minor.0, &item.currency),
            item.currency.clone(),
            item.balance_transaction.clone().unwrap_or_else(|| "not named".to_owned()),
        ]
    })
}

pub(super) async fn suspense(args: &AskedArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let page = async |after: Option<_>| read::suspense::<MinorNumber>(&pool, args.asked(), after.as_ref(), PAGE).await;
    let mut items = in_pages(page).await?;
    if let Some(currency) = args.currency() {
        items.value.retain(|item| item.currency == currency.as_str());
    }
    let columns = [
        ("since", Align::Left),
        ("account", Align::Left),
        ("object", Align::Left),
        ("balance", Align::Right),
        ("", Align::Left),
    ];
    list(output, &items, "No money is in suspense.", &columns, |item| {
        vec![
            item.since.clone(),
            item.account.clone(),
            item.object.clone(),
            amount_of(item.balance_minor.0, &item.currency),
            item.currency.clone(),
        ]
    })
}

/// Everything that `page` gives, from the first page to the last; as of the position of the first.
pub(super) async fn in_pages<T, K>(
    page: impl AsyncFn(Option<K>) -> Result<Read<Slice<T, K>>, ReadError>,
) -> Result<Read<Vec<T>>, Failure> {
    let Read { position, value: Slice { mut items, next: mut after } } = page(None).await.map_err(failed)?;
    while after.is_some() {
        let slice = page(after).await.map_err(failed)?.value;
        items.extend(slice.items);
        after = slice.next;
    }
    Ok(Read { position, value: items })
}

/// Shows a list: as JSON, or as a table with a row for each item, or with a sentence where there is none, which says how far was
/// read: what was done a moment ago may not be there yet.
pub(super) fn list<T: Serialize>(
    output: Output,
    Read { position, value: items }: &Read<Vec<T>>,
    nothing: &str,
    columns: &[(&str, Align)],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<Outcome, Failure> {
    if output.is_json() {
        output.json(items)?;
    } else if items.is_empty() {
        output.line(format_args!("{nothing} (read up to position {position})"))?;
    } else {
        output.table(columns, items.iter().map(row).collect())?;
    }
    Ok(Outcome::Fine)
}
