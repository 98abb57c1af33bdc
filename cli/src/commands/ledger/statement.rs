//! Creators: what each has, their statements, and the entries behind a statement's figures.

use std::collections::BTreeMap;

use clap::Args;
use fanledger_domain::entry::StatementLine;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::CreatorId;
use fanledger_gateway::read::{self, ActivityFilter, By, CreatorSpan};
use fanledger_gateway_api::{CreatorActivity, CreatorCurrency, CreatorStatement, MinorNumber};
use sqlx::PgPool;

use super::asked::SpanArgs;
use super::show::{PAGE, connect, failed, in_pages, list};
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output, amount_of};
use crate::settings::Settings;

/// Whose statement, and when.
#[derive(Debug, Args)]
pub struct StatementArgs {
    /// The creator, such as crt_aurora.
    #[arg(value_parser = parse_creator)]
    creator: CreatorId,
    /// When.
    #[command(flatten)]
    span: SpanArgs,
}

/// Whose entries, and which.
#[derive(Debug, Args)]
pub struct ActivityArgs {
    /// Whose, and when.
    #[command(flatten)]
    statement: StatementArgs,
    /// Only this line of the statement: sales, platform_fees, refunds, disputes, payouts or adjustments.
    #[arg(long, value_parser = parse_line)]
    line: Option<StatementLine>,
    /// Only what was paid for this: subscription, tip or unlock; or none, what is about no payment.
    #[arg(long, value_parser = parse_kind)]
    kind: Option<KindArg>,
}

/// What was paid for; `None` where it is about no payment.
#[derive(Clone, Copy, Debug)]
struct KindArg(Option<PaymentKind>);

fn parse_creator(text: &str) -> Result<CreatorId, String> {
    text.parse::<CreatorId>().map_err(|error| error.to_string())
}

fn parse_line(text: &str) -> Result<StatementLine, String> {
    let expected = || format!("expected one of {}", StatementLine::ALL.map(StatementLine::as_str).join(", "));
    StatementLine::from_text(text).ok_or_else(expected)
}

fn parse_kind(text: &str) -> Result<KindArg, String> {
    if text == "none" {
        return Ok(KindArg(None));
    }
    let kind = PaymentKind::from_text(text).map(|kind| KindArg(Some(kind)));
    kind.ok_or_else(|| "expected subscription, tip, unlock or none".to_owned())
}

impl StatementArgs {
    async fn span(&self, pool: &PgPool) -> Result<CreatorSpan, Failure> {
        let (from, asked) = self.span.span()?;
        CreatorSpan::resolve(pool, from, asked).await.map_err(failed)
    }
}

pub(super) async fn creators(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let items = in_pages(async |after| read::creators::<MinorNumber>(&pool, after.as_ref(), PAGE).await).await?;
    let columns = [
        ("creator", Align::Left),
        ("", Align::Left),
        ("pending", Align::Right),
        ("available", Align::Right),
        ("held", Align::Right),
        ("owed by them", Align::Right),
        ("balance", Align::Right),
    ];
    list(output, &items, "No entry names a creator.", &columns, |item| {
        let money = |minor: MinorNumber| amount_of(minor.0, &item.currency);
        vec![
            item.creator.clone(),
            item.currency.clone(),
            money(item.buckets.pending_minor),
            money(item.buckets.available_minor),
            money(item.buckets.held_minor),
            money(item.buckets.receivable_minor),
            money(item.balance_minor),
        ]
    })
}

pub(super) async fn statement(args: &StatementArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let span = args.span(&pool).await?;
    let statement = read::creator_statement::<MinorNumber>(&pool, &args.creator, span, args.span.asked.currency())
        .await
        .map_err(failed)?
        .value;
    if output.is_json() {
        output.json(&statement)?;
        return Ok(Outcome::Fine);
    }
    output.line(title(&statement))?;
    if statement.currencies.is_empty() {
        output.line("Nothing was booked by then.")?;
    }
    for currency in &statement.currencies {
        output.line("")?;
        if is_cancelled(currency) {
            // As where a charge stood in its own currency until its settlement in another was known.
            output.line(format_args!("{}: {} entries, which cancel", currency.currency, currency.entries))?;
            continue;
        }
        let columns = [(currency.currency.as_str(), Align::Left), ("entries", Align::Right), ("amount", Align::Right)];
        output.table(&columns, rows(currency))?;
    }
    Ok(Outcome::Fine)
}

fn is_cancelled(currency: &CreatorCurrency<MinorNumber>) -> bool {
    let closing = &currency.closing;
    let buckets = [closing.pending_minor, closing.available_minor, closing.held_minor, closing.receivable_minor];
    let lines = currency.lines.iter().map(|line| line.amount_minor);
    lines.chain(buckets).chain([currency.opening_minor]).all(|minor| minor.0 == 0)
}

fn title(statement: &CreatorStatement<MinorNumber>) -> String {
    let CreatorStatement { creator, position, period, close, closed_with, superseded, from, to, by, .. } = statement;
    let when = match (period, close, from, to) {
        (Some(period), Some(close), ..) => match closed_with {
            Some(with) => format!("{period} as it was closed with {with}"),
            None if *superseded => format!("{period} as its close {close} left it"),
            None => format!("{period} as it was closed"),
        },
        (Some(period), None, ..) => format!("{period}, which is open"),
        (None, _, Some(from), Some(to)) => format!("{from} to {to} by {by} time"),
        (None, _, Some(from), None) => format!("from {from} by {by} time"),
        (None, _, None, Some(to)) => format!("to {to} by {by} time"),
        (None, _, None, None) => "from the beginning".to_owned(),
    };
    format!("Statement of {creator}, {when}, at position {position}")
}

fn rows(currency: &CreatorCurrency<MinorNumber>) -> Vec<Vec<String>> {
    let money = |minor: MinorNumber| amount_of(minor.0, &currency.currency);
    let row = |text: &str, entries: Option<u64>, minor| {
        vec![text.to_owned(), entries.map_or_else(String::new, |entries| entries.to_string()), money(minor)]
    };
    let mut rows = vec![row("opening balance", None, currency.opening_minor)];
    for line in &currency.lines {
        // Every statement has the other lines; an adjustment is worth a line where there is one.
        if line.line == StatementLine::Adjustments.as_str() && line.entries == 0 {
            continue;
        }
        rows.push(row(&line.line.replace('_', " "), Some(line.entries), line.amount_minor));
        let is_by_kind = line.kinds.iter().any(|kind| kind.kind.is_some());
        for kind in line.kinds.iter().filter(|_| is_by_kind) {
            let name = kind.kind.as_deref().unwrap_or("no payment");
            rows.push(row(&format!("  {name}"), Some(kind.entries), kind.amount_minor));
        }
    }
    rows.push(row("closing balance", None, currency.closing_minor));
    let closing = &currency.closing;
    for (name, minor) in [
        ("  pending", closing.pending_minor),
        ("  available", closing.available_minor),
        ("  held", closing.held_minor),
        ("  owed by the creator", MinorNumber(-closing.receivable_minor.0)),
    ] {
        if minor.0 != 0 {
            rows.push(row(name, None, minor));
        }
    }
    rows
}

pub(super) async fn activity(args: &ActivityArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let StatementArgs { creator, span } = &args.statement;
    let resolved = args.statement.span(&pool).await?;
    let filter =
        ActivityFilter { line: args.line, kind: args.kind.map(|KindArg(kind)| kind), currency: span.asked.currency() };
    let items = in_pages(async |after| {
        read::creator_activity::<MinorNumber>(&pool, creator, resolved, filter, after.as_ref(), PAGE).await
    })
    .await?;
    let by = resolved.by();
    let columns = [
        (by.as_str(), Align::Left),
        ("amount", Align::Right),
        ("", Align::Left),
        ("line", Align::Left),
        ("kind", Align::Left),
        ("entry", Align::Left),
        ("description", Align::Left),
    ];
    let outcome = list(output, &items, "No entry of theirs is like that.", &columns, |item| activity_row(item, by))?;
    if !output.is_json() && !items.value.is_empty() {
        output.line("")?;
        for (currency, sum) in sums(&items.value) {
            output.line(format_args!("total {} {currency}", amount_of(sum, currency)))?;
        }
    }
    Ok(outcome)
}

fn activity_row(item: &CreatorActivity<MinorNumber>, by: By) -> Vec<String> {
    let at = match by {
        By::Effective => &item.effective_at,
        By::Occurred => &item.occurred_at,
        By::Recorded => &item.recorded_at,
    };
    vec![
        at.clone(),
        amount_of(item.amount_minor.0, &item.currency),
        item.currency.clone(),
        item.line.replace('_', " "),
        item.kind.clone().unwrap_or_default(),
        item.entry_id.clone(),
        item.description.clone(),
    ]
}

fn sums(items: &[CreatorActivity<MinorNumber>]) -> BTreeMap<&str, i128> {
    let mut sums = BTreeMap::new();
    for item in items {
        *sums.entry(item.currency.as_str()).or_insert(0) += item.amount_minor.0;
    }
    sums
}
