//! `fanledger ledger payouts propose | approve | cancel | list | show | holds | hold | resume`.

use std::str::FromStr;

use clap::{Args, Subcommand};
use fanledger_domain::id::CreatorId;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, Read};
use fanledger_gateway_api::{
    MinorNumber, PayoutHold, PayoutHoldReceipt, PayoutLineState, PayoutProposal, PayoutRecovery, PayoutRun,
    PayoutRunReceipt, PayoutRunState, PayoutRunSummary, PayoutTotal, PayoutWithheld, ReasonRequest, RecoveryKind,
    WithheldReason,
};
use serde_json::json;

use super::show::{self, PAGE, connect, failed, in_pages};
use crate::api_client::{ActorArgs, ApiClient};
use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output, amount_of};
use crate::settings::Settings;

/// Pay creators: a run is proposed, approved, and sent by itself.
#[derive(Debug, Subcommand)]
pub enum PayoutsCommand {
    /// Propose the next run, or with --dry-run only show it
    #[command(after_help = "Examples:\n  fanledger ledger payouts propose --dry-run\n  \
        FANLEDGER_TOKEN=$(fanledger token mint --role finance --subject ada) fanledger ledger payouts propose")]
    Propose(ProposeArgs),
    /// Approve a run: it is sent from now on. Above the limit, by another person than who proposed it; what the
    /// proposer paid out alone in the weeks before counts too
    #[command(
        after_help = "Example:\n  fanledger ledger payouts approve por_1 --token $(fanledger token mint --role finance --subject grace)"
    )]
    Approve(RunArgs),
    /// Cancel a run; of one that is approved nothing more is sent
    #[command(after_help = "Example:\n  fanledger ledger payouts cancel por_1 --reason 'the wrong month'")]
    Cancel(CancelArgs),
    /// The runs, newest first
    List,
    /// One run, and what became of each of its transfers; exit code 1 if any was refused or came back
    Show(ShowArgs),
    /// To whom nothing is paid until it is resumed: since when, by whom and why
    Holds(HoldsArgs),
    /// Pay nothing to a creator until it is resumed
    #[command(after_help = "Example:\n  fanledger ledger payouts hold crt_aurora --reason 'a claim is open'")]
    Hold(HoldArgs),
    /// Pay a creator again
    Resume(HoldArgs),
}

/// Whether to write.
#[derive(Debug, Args)]
pub struct ProposeArgs {
    /// Show who would get how much and who would not, and write nothing. Needs no token.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which run.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run, such as por_1.
    #[arg(value_parser = parse::<PayoutRunId>)]
    run: PayoutRunId,
}

/// Which run, and who decides.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The run, such as por_1.
    #[arg(value_parser = parse::<PayoutRunId>)]
    run: PayoutRunId,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Which run, who decides, and why.
#[derive(Debug, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Why; kept in the journal for good, so name no person.
    #[arg(long)]
    reason: String,
}

/// Which holds.
#[derive(Debug, Args)]
pub struct HoldsArgs {
    /// Also those that are over, with who ended each and why.
    #[arg(long)]
    all: bool,
}

/// Which creator, who says so, and why.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// The creator, such as crt_aurora.
    #[arg(value_parser = parse::<CreatorId>)]
    creator: CreatorId,
    /// Why; kept in the journal for good, so name no person.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    actor: ActorArgs,
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Why a proposal cannot be reckoned.
#[derive(Debug, thiserror::Error)]
#[error("tell the time")]
struct ClockError(#[source] fanledger_domain::time::TimestampError);

/// Runs one of them.
///
/// # Errors
/// When the gateway refuses, or nothing can be asked.
pub async fn run(command: PayoutsCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    match command {
        PayoutsCommand::Propose(args) if args.dry_run => dry_run(settings, output).await,
        PayoutsCommand::Propose(args) => {
            let client = ApiClient::new(settings, &args.actor)?;
            acted(&client, "", &json!({}), output).await
        }
        PayoutsCommand::Approve(args) => {
            let client = ApiClient::new(settings, &args.actor)?;
            acted(&client, &format!("/{}/approve", args.run), &json!({}), output).await
        }
        PayoutsCommand::Cancel(args) => {
            let client = ApiClient::new(settings, &args.run.actor)?;
            let body = ReasonRequest { reason: args.reason };
            acted(&client, &format!("/{}/cancel", args.run.run), &body, output).await
        }
        PayoutsCommand::List => list(settings, output).await,
        PayoutsCommand::Show(args) => show_run(args.run, settings, output).await,
        PayoutsCommand::Holds(args) => holds(&args, settings, output).await,
        PayoutsCommand::Hold(args) => say(args, "hold", settings, output).await,
        PayoutsCommand::Resume(args) => say(args, "resume", settings, output).await,
    }
}

async fn dry_run(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let now =
        Timestamp::from_chrono(clock::now()).map_err(|error| Failure::CouldNotRun(Box::new(ClockError(error))))?;
    let proposal: PayoutProposal<MinorNumber> = read::payout_proposal(&pool, now).await.map_err(failed)?.value;
    if output.is_json() {
        output.json(&proposal)?;
        return Ok(Outcome::Fine);
    }
    let position = proposal.as_of_position;
    if proposal.lines.is_empty() && proposal.recoveries.is_empty() {
        output.line(format_args!("As of position {position} there is nothing to pay, to claim or to recover."))?;
    } else {
        let needs =
            if proposal.needs_approval { "needs a second person's approval" } else { "may be approved by one person" };
        output.line(format_args!("A run as of position {position} would be; it {needs}. Nothing was written."))?;
    }
    for paid in proposal.paid_alone.iter().filter(|paid| paid.needs_approval && !proposal.needs_approval) {
        let amount = amount_of(paid.amount_minor.0, &paid.currency);
        output.line(format_args!(
            "But {} paid out {amount} {} alone since {}: proposed by them, it needs a second person's approval.",
            paid.by, paid.currency, proposal.alone_since
        ))?;
    }
    if let Some(open) = &proposal.open_run {
        output.line(format_args!("{open} is open: it must be sent or cancelled before another is proposed."))?;
    }
    let rows = proposal.lines.iter().map(|line| {
        vec![
            line.line.to_string(),
            line.creator.clone(),
            line.destination.clone(),
            amount_of(line.amount_minor.0, &line.currency),
            line.currency.clone(),
        ]
    });
    if !proposal.lines.is_empty() {
        output.line("")?;
        output.table(
            &[
                ("line", Align::Right),
                ("creator", Align::Left),
                ("to", Align::Left),
                ("amount", Align::Right),
                ("", Align::Left),
            ],
            rows.collect(),
        )?;
        totals(&proposal.totals, output)?;
    }
    recoveries(&proposal.recoveries, output)?;
    withheld(&proposal.withheld, proposal.withheld_count, output)?;
    Ok(Outcome::Fine)
}

fn totals(totals: &[PayoutTotal<MinorNumber>], output: Output) -> Result<(), Failure> {
    for total in totals {
        let amount = amount_of(total.amount_minor.0, &total.currency);
        let transfers = if total.lines == 1 { "transfer" } else { "transfers" };
        output.line(format_args!("{} {transfers}, {amount} {} in all", total.lines, total.currency))?;
    }
    Ok(())
}

/// Sums in one cell or line.
fn sums(totals: &[PayoutTotal<MinorNumber>]) -> String {
    let sums =
        totals.iter().map(|total| format!("{} {}", amount_of(total.amount_minor.0, &total.currency), total.currency));
    sums.collect::<Vec<_>>().join(", ")
}

fn recoveries(recoveries: &[PayoutRecovery<MinorNumber>], output: Output) -> Result<(), Failure> {
    if recoveries.is_empty() {
        return Ok(());
    }
    let rows = recoveries.iter().map(|recovery| {
        let kind = match recovery.recovery {
            RecoveryKind::Claimed => "claimed: paid out more than is theirs",
            RecoveryKind::Recovered => "recovered from what is available",
        };
        let amount = amount_of(recovery.amount_minor.0, &recovery.currency);
        vec![recovery.creator.clone(), amount, recovery.currency.clone(), kind.to_owned()]
    });
    output.line("")?;
    output.table(
        &[("owed by", Align::Left), ("amount", Align::Right), ("", Align::Left), ("", Align::Left)],
        rows.collect(),
    )?;
    Ok(())
}

fn withheld(withheld: &[PayoutWithheld<MinorNumber>], count: u64, output: Output) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    let rows = withheld.iter().map(|one| {
        let why = match one.reason {
            WithheldReason::Held => "held by finance",
            WithheldReason::PendingNegative => "what is pending is negative and takes it",
            WithheldReason::BelowMinimum => "below the least that is sent",
            WithheldReason::NoAccount => "no connected account is known",
            WithheldReason::SeveralAccounts => "more than one connected account says it is theirs",
            WithheldReason::AccountRestricted => "Stripe restricts the account, or wants something of its owner",
            WithheldReason::RunFull => "the run is full; the next one takes it",
        };
        let amount = amount_of(one.amount_minor.0, &one.currency);
        vec![one.creator.clone(), amount, one.currency.clone(), why.to_owned()]
    });
    output.line("")?;
    output.table(
        &[("left out", Align::Left), ("available", Align::Right), ("", Align::Left), ("why", Align::Left)],
        rows.collect(),
    )?;
    let more = count.saturating_sub(withheld.len() as u64);
    if more > 0 {
        output.line(format_args!("and {more} more"))?;
    }
    Ok(())
}

/// Posts an act on runs, and says what to do next.
async fn acted(
    client: &ApiClient,
    path: &str,
    body: &impl serde::Serialize,
    output: Output,
) -> Result<Outcome, Failure> {
    let answer = client.post::<PayoutRunReceipt>(&format!("/api/v1/ledger/payout-runs{path}"), body).await?;
    let PayoutRunReceipt { run, state, needs_approval } = answer.value;
    if output.is_json() {
        let mut told = json!({"run": run, "state": state, "position": answer.position});
        if let Some(needs) = needs_approval {
            told["needs_approval"] = needs.into();
        }
        output.json(&told)?;
        return Ok(Outcome::Fine);
    }
    let next = match state {
        PayoutRunState::Proposed if needs_approval == Some(true) => format!(
            "Look at it with `fanledger ledger payouts show {run}`. It moves more than you may alone, together with anything that you \
             paid out alone before: somebody else approves it, or anybody cancels it."
        ),
        PayoutRunState::Proposed => {
            format!("Look at it with `fanledger ledger payouts show {run}`, then approve or cancel it.")
        }
        PayoutRunState::Approved | PayoutRunState::Sending => {
            format!("It is being sent; `fanledger ledger payouts show {run}` says how far it is.")
        }
        PayoutRunState::Stopping => format!(
            "Nothing more of it is sent. In a few minutes, when what was asked of Stripe before has come to its end, the sender ends it; \
             `fanledger ledger payouts show {run}` says what was sent. A sender that is halted must be resumed for it."
        ),
        PayoutRunState::Canceled | PayoutRunState::Finished => "Another can be proposed.".to_owned(),
    };
    output.line(format_args!("{run} is {}. {next}", state_text(state)))?;
    Ok(Outcome::Fine)
}

async fn say(args: HoldArgs, what: &str, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let client = ApiClient::new(settings, &args.actor)?;
    let path = format!("/api/v1/ledger/creators/{}/payouts/{what}", args.creator);
    let answer = client.post::<PayoutHoldReceipt>(&path, &ReasonRequest { reason: args.reason }).await?;
    let PayoutHoldReceipt { creator, held, creator_is_new } = answer.value;
    if output.is_json() {
        output.json(&json!({
            "creator": creator, "held": held, "creator_is_new": creator_is_new, "position": answer.position,
        }))?;
    } else if held {
        output.line(format_args!("Nothing is sent to {creator} until it is resumed."))?;
        if creator_is_new {
            output.line(format_args!(
                "The books hold nothing of {creator}, and no account at Stripe says it is theirs: is the id a slip? Then resume it, and \
                 hold the one you mean."
            ))?;
        }
    } else {
        output.line(format_args!("Payouts to {creator} go on, also of a run that is approved and not sent yet."))?;
    }
    Ok(Outcome::Fine)
}

async fn holds(args: &HoldsArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let page = async |after| read::payout_holds(&pool, args.all, after, PAGE).await;
    let items: Read<Vec<PayoutHold>> = in_pages(page).await?;
    let nothing = if args.all { "Nobody's payouts were ever held." } else { "Nobody's payouts are held." };
    let columns = [("creator", Align::Left), ("since", Align::Left), ("by", Align::Left), ("why", Align::Left)];
    let over = [("resumed", Align::Left), ("by", Align::Left), ("why", Align::Left)];
    let columns: Vec<_> = columns.into_iter().chain(over.into_iter().filter(|_| args.all)).collect();
    show::list(output, &items, nothing, &columns, |hold| {
        let cells = [&hold.creator, &hold.held_at, &hold.held_by, &hold.reason].map(Clone::clone);
        let over =
            [&hold.resumed_at, &hold.resumed_by, &hold.resume_reason].map(|cell| cell.clone().unwrap_or_default());
        cells.into_iter().chain(over.into_iter().filter(|_| args.all)).collect()
    })
}

/// How a run stands; a stopped one is told from one that was sent to its end.
const fn run_text(run: &PayoutRunSummary<MinorNumber>) -> &'static str {
    match run.state {
        PayoutRunState::Finished if run.stopped_by.is_some() => "finished (stopped)",
        PayoutRunState::Proposed
        | PayoutRunState::Approved
        | PayoutRunState::Sending
        | PayoutRunState::Stopping
        | PayoutRunState::Canceled
        | PayoutRunState::Finished => state_text(run.state),
    }
}

const fn state_text(state: PayoutRunState) -> &'static str {
    match state {
        PayoutRunState::Proposed => "proposed",
        PayoutRunState::Approved => "approved",
        PayoutRunState::Sending => "being sent",
        PayoutRunState::Stopping => "stopped and being ended",
        PayoutRunState::Canceled => "cancelled",
        PayoutRunState::Finished => "finished",
    }
}

async fn list(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let page = async |after| read::payout_runs::<MinorNumber>(&pool, after, PAGE).await;
    let runs: Read<Vec<PayoutRunSummary<MinorNumber>>> = in_pages(page).await?;
    let nothing =
        "There is no payout run yet: `fanledger ledger payouts propose --dry-run` shows what the first would be.";
    let row = |run: &PayoutRunSummary<MinorNumber>| {
        let lines: u64 = run.totals.iter().map(|total| total.lines).sum();
        vec![
            run.run.clone(),
            run_text(run).to_owned(),
            run.proposed_at.clone(),
            run.proposed_by.clone(),
            run.decided_by.clone().unwrap_or_default(),
            run.stopped_by.clone().unwrap_or_default(),
            lines.to_string(),
            run.sent.to_string(),
            run.failed.to_string(),
            sums(&run.totals),
            sums(&run.sent_totals),
        ]
    };
    let columns = [
        ("run", Align::Left),
        ("state", Align::Left),
        ("proposed", Align::Left),
        ("proposed by", Align::Left),
        ("decided by", Align::Left),
        ("stopped by", Align::Left),
        ("lines", Align::Right),
        ("sent", Align::Right),
        ("failed", Align::Right),
        ("planned", Align::Left),
        ("sent in all", Align::Left),
    ];
    show::list(output, &runs, nothing, &columns, row)
}

async fn show_run(run: PayoutRunId, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let pool = connect(settings).await?;
    let run: PayoutRun<MinorNumber> = read::payout_run(&pool, run).await.map_err(failed)?.value;
    let is_fine = |state| match state {
        PayoutLineState::Waiting | PayoutLineState::Sent | PayoutLineState::Confirmed => true,
        PayoutLineState::PartlyReversed | PayoutLineState::Reversed | PayoutLineState::Failed => false,
    };
    let outcome = if run.lines.iter().all(|line| is_fine(line.state)) { Outcome::Fine } else { Outcome::CheckFailed };
    if output.is_json() {
        output.json(&run)?;
        return Ok(outcome);
    }
    let PayoutRunSummary { run: id, state, as_of_position, proposed_at, proposed_by, needs_approval, .. } =
        &run.summary;
    output.line(format_args!("{id} is {}; reckoned as of position {as_of_position}", run_text(&run.summary)))?;
    output.line(format_args!("proposed {proposed_at} by {proposed_by}"))?;
    for paid in &run.summary.paid_alone {
        let amount = amount_of(paid.amount_minor.0, &paid.currency);
        output
            .line(format_args!("           who had paid out {amount} {} alone in the weeks before", paid.currency))?;
    }
    match (&run.summary.decided_by, &run.summary.decided_at) {
        (Some(by), Some(at)) => {
            let what = if *state == PayoutRunState::Canceled { "cancelled" } else { "approved" };
            let why = run.summary.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            match (&run.summary.stopped_by, &run.summary.stopped_at) {
                (Some(stopped_by), Some(stopped_at)) => {
                    output.line(format_args!("{what} {at} by {by}"))?;
                    output.line(format_args!("stopped {stopped_at} by {stopped_by}{why}"))?;
                }
                (_, _) => output.line(format_args!("{what} {at} by {by}{why}"))?,
            }
        }
        (_, _) if *needs_approval => output.line("waits for another person's approval")?,
        (_, _) => output.line("waits for approval, which may be the proposer's")?,
    }
    let is_canceled = *state == PayoutRunState::Canceled;
    let rows = run.lines.iter().map(|line| {
        let state = match line.state {
            PayoutLineState::Waiting if is_canceled => "not sent".to_owned(),
            PayoutLineState::Waiting if line.held => "held: nothing is sent of it".to_owned(),
            PayoutLineState::Waiting => "waiting".to_owned(),
            PayoutLineState::Sent => "sent".to_owned(),
            PayoutLineState::Confirmed => "confirmed".to_owned(),
            PayoutLineState::PartlyReversed => {
                format!("partly reversed: {}", amount_of(line.reversed_minor.0, &line.currency))
            }
            PayoutLineState::Reversed => "reversed".to_owned(),
            PayoutLineState::Failed => format!("failed: {}", line.code.as_deref().unwrap_or("unknown")),
        };
        vec![
            line.line.to_string(),
            line.creator.clone(),
            line.destination.clone(),
            amount_of(line.amount_minor.0, &line.currency),
            line.currency.clone(),
            state,
            line.transfer.clone().unwrap_or_default(),
        ]
    });
    let columns = [
        ("line", Align::Right),
        ("creator", Align::Left),
        ("to", Align::Left),
        ("amount", Align::Right),
        ("", Align::Left),
        ("state", Align::Left),
        ("transfer", Align::Left),
    ];
    if !run.lines.is_empty() {
        output.line("")?;
        output.table(&columns, rows.collect())?;
    }
    totals(&run.summary.totals, output)?;
    if !run.summary.sent_totals.is_empty() {
        output.line(format_args!("{} sent, {}", run.summary.sent, sums(&run.summary.sent_totals)))?;
    }
    recoveries(&run.recoveries, output)?;
    withheld(&run.withheld, run.summary.withheld_count, output)?;
    Ok(outcome)
}
