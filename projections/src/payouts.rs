//! `payouts`: who can be paid (connected accounts, holds), the runs of transfers with their lines, and what became of each
//! transfer since.
//!
//! What the books owe is not here: it stands in `balances`, and a proposal reads both in one statement. Nor is whether a transfer
//! was confirmed by its balance transaction: `awaited` knows.

use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::event::{Event, TransferObserved};
use fanledger_domain::money::Money;
use fanledger_domain::payout_run::{
    ConnectedAccountObserved, CreatorPayoutsHeld, CreatorPayoutsResumed, PayoutRunApproved, PayoutRunCanceled,
    PayoutRunFinished, PayoutRunProposed, PayoutRunStopped, PayoutTransferFailed, PayoutTransferSent,
};
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Payouts;

const CREATE: &str = r#"
-- Each connected account as it looked last, by the stamp of the event that showed it.
CREATE TABLE payout_accounts (
    account          text COLLATE "C" PRIMARY KEY,
    creator          text COLLATE "C",
    transfers_active boolean NOT NULL,
    payouts_enabled  boolean NOT NULL,
    requirements_due bigint NOT NULL,
    disabled_reason  text COLLATE "C",
    stamp_created    timestamptz NOT NULL,
    stamp_event      text COLLATE "C" NOT NULL
);
CREATE INDEX payout_accounts_creator ON payout_accounts (creator);

-- Every hold; `resumed_*` are null while it lasts.
CREATE TABLE payout_holds (
    position      bigint PRIMARY KEY,
    creator       text COLLATE "C" NOT NULL,
    held_at       timestamptz NOT NULL,
    held_by       text NOT NULL,
    reason        text NOT NULL,
    resumed_at    timestamptz,
    resumed_by    text,
    resume_reason text
);
CREATE UNIQUE INDEX payout_holds_that_last ON payout_holds (creator) WHERE resumed_at IS NULL;

CREATE TABLE payout_runs (
    run            bigint PRIMARY KEY,
    stage          text COLLATE "C" NOT NULL CHECK (stage IN ('proposed', 'approved', 'stopped', 'canceled', 'finished')),
    as_of_position bigint NOT NULL,
    needs_approval boolean NOT NULL,
    -- [{"minor", "currency"}]: what the proposer paid out alone before.
    paid_alone     json NOT NULL,
    proposed_at    timestamptz NOT NULL,
    proposed_by    text NOT NULL,
    -- Of the approval or the cancellation.
    decided_at     timestamptz,
    decided_by     text,
    -- Of the cancellation or the stop.
    reason         text,
    stopped_at     timestamptz,
    stopped_by     text,
    finished_at    timestamptz,
    withheld_count bigint NOT NULL,
    last_position  bigint NOT NULL
);

-- `ended` is null while the line waits; `position` is that of its end.
CREATE TABLE payout_lines (
    run         bigint NOT NULL,
    line        bigint NOT NULL,
    creator     text COLLATE "C" NOT NULL,
    destination text COLLATE "C" NOT NULL,
    minor       bigint NOT NULL,
    currency    text COLLATE "C" NOT NULL,
    ended       text COLLATE "C" CHECK (ended IN ('sent', 'failed')),
    ended_at    timestamptz,
    transfer    text COLLATE "C",
    code        text COLLATE "C",
    position    bigint,
    PRIMARY KEY (run, line)
);
CREATE INDEX payout_lines_creator ON payout_lines (creator, run);

CREATE TABLE payout_recoveries (
    run      bigint NOT NULL,
    creator  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    recovery text COLLATE "C" NOT NULL CHECK (recovery IN ('claimed', 'recovered')),
    minor    bigint NOT NULL,
    PRIMARY KEY (run, creator, currency)
);

CREATE TABLE payout_withheld (
    run      bigint NOT NULL,
    creator  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    minor    bigint NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, creator, currency)
);

-- How much of each transfer came back, whoever made it. It never shrinks.
CREATE TABLE payout_transfers (
    transfer       text COLLATE "C" PRIMARY KEY,
    minor          bigint NOT NULL,
    reversed_minor bigint NOT NULL
);
"#;

#[async_trait]
impl Projection for Payouts {
    fn name(&self) -> &'static str {
        "payouts"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self) -> Schema {
        Schema {
            create: CREATE,
            views: &[
                "payout_accounts",
                "payout_holds",
                "payout_runs",
                "payout_lines",
                "payout_recoveries",
                "payout_withheld",
                "payout_transfers",
            ],
        }
    }

    fn wants(&self, event_type: &str) -> bool {
        matches!(
            event_type,
            ConnectedAccountObserved::TYPE
                | CreatorPayoutsHeld::TYPE
                | CreatorPayoutsResumed::TYPE
                | PayoutRunProposed::TYPE
                | PayoutRunApproved::TYPE
                | PayoutRunCanceled::TYPE
                | PayoutRunStopped::TYPE
                | PayoutRunFinished::TYPE
                | PayoutTransferSent::TYPE
                | PayoutTransferFailed::TYPE
                | TransferObserved::TYPE
        )
    }

    /// Few events and each a row or a few: one statement for each is soon enough.
    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        for recorded in batch {
            let event = decode::event(recorded)?;
            let at = recorded.position;
            match &event {
                Event::ConnectedAccountObserved(seen) => account(seen, connection).await?,
                Event::CreatorPayoutsHeld(held) => hold(held, at, connection).await?,
                Event::CreatorPayoutsResumed(resumed) => resume(resumed, connection).await?,
                Event::PayoutRunProposed(proposed) => propose(proposed, at, connection).await?,
                Event::PayoutRunApproved(approved) => approve(approved, at, connection).await?,
                Event::PayoutRunCanceled(canceled) => cancel(canceled, at, connection).await?,
                Event::PayoutRunStopped(stopped) => stop(stopped, at, connection).await?,
                Event::PayoutRunFinished(finished) => finish(finished, at, connection).await?,
                Event::PayoutTransferSent(sent) => line_sent(sent, at, connection).await?,
                Event::PayoutTransferFailed(failed) => line_failed(failed, at, connection).await?,
                Event::TransferObserved(seen) => transfer(seen, connection).await?,
                Event::StripeEventReceived(_)
                | Event::StripeEventBodyDiffered(_)
                | Event::StripeEventNotTranslated(_)
                | Event::StripeObjectsLinked(_)
                | Event::AttributionSourceObserved(_)
                | Event::AttributionOffered(_)
                | Event::CreatorAttributed(_)
                | Event::ChargeObserved(_)
                | Event::RefundObserved(_)
                | Event::DisputeObserved(_)
                | Event::BalanceTransactionObserved(_)
                | Event::ChargeReleased(_)
                | Event::PayoutObserved(_)
                | Event::ApplicationFeeObserved(_)
                | Event::TopupObserved(_)
                | Event::EntryPosted(_)
                | Event::ProjectionEventSkipped(_)
                | Event::StripeEventOpened(_)
                | Event::PeriodClosed(_)
                | Event::PeriodReopened(_)
                | Event::ManualEntryProposed(_)
                | Event::ManualEntryApproved(_)
                | Event::ManualEntryRejected(_) => return Err(decode::unwanted(recorded, &event)),
            }
        }
        Ok(())
    }
}

/// A run's number as a column holds it; there are no runs that many.
fn number(run: fanledger_domain::payout_run::PayoutRunId) -> i64 {
    i64::try_from(run.number()).unwrap_or(i64::MAX)
}

/// The newest snapshot stays, whichever came first.
async fn account(seen: &ConnectedAccountObserved, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let account = &seen.account;
    sqlx::query(
        "INSERT INTO payout_accounts (account, creator, transfers_active, payouts_enabled, requirements_due, disabled_reason,
             stamp_created, stamp_event)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (account) DO UPDATE SET creator = excluded.creator, transfers_active = excluded.transfers_active,
             payouts_enabled = excluded.payouts_enabled, requirements_due = excluded.requirements_due,
             disabled_reason = excluded.disabled_reason, stamp_created = excluded.stamp_created,
             stamp_event = excluded.stamp_event
         WHERE (payout_accounts.stamp_created, payout_accounts.stamp_event) <= (excluded.stamp_created, excluded.stamp_event)",
    )
    .bind(account.id.as_str())
    .bind(account.creator.as_ref().map(|creator| creator.as_str()))
    .bind(account.transfers_active)
    .bind(account.payouts_enabled)
    .bind(i64::from(account.requirements_due))
    .bind(&account.disabled_reason)
    .bind(seen.stamp.created.to_chrono())
    .bind(seen.stamp.event.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// A creator is held once, unless an operator had this projection skip the end of a hold: then the next one ends it.
async fn hold(held: &CreatorPayoutsHeld, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE payout_holds SET resumed_at = $2 WHERE creator = $1 AND resumed_at IS NULL")
        .bind(held.creator.as_str())
        .bind(held.at.to_chrono())
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO payout_holds (creator, held_at, held_by, reason, position) VALUES ($1, $2, $3, $4, $5)")
        .bind(held.creator.as_str())
        .bind(held.at.to_chrono())
        .bind(held.by.as_str())
        .bind(&held.reason)
        .bind(at.as_i64())
        .execute(connection)
        .await?;
    Ok(())
}

async fn resume(resumed: &CreatorPayoutsResumed, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_holds SET resumed_at = $2, resumed_by = $3, resume_reason = $4 WHERE creator = $1 AND resumed_at IS NULL",
    )
    .bind(resumed.creator.as_str())
    .bind(resumed.at.to_chrono())
    .bind(resumed.by.as_str())
    .bind(&resumed.reason)
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("write what a proposer paid out before as JSON")]
struct Unwritable(#[source] serde_json::Error);

async fn propose(proposed: &PayoutRunProposed, at: Position, connection: &mut PgConnection) -> Result<(), ApplyError> {
    let run = number(proposed.run);
    let poison = |error| ApplyError::poison(at, Unwritable(error));
    let paid_alone = serde_json::to_string(&proposed.paid_alone).map_err(poison)?;
    sqlx::query(
        "INSERT INTO payout_runs (run, stage, as_of_position, needs_approval, paid_alone, proposed_at, proposed_by, withheld_count,
             last_position)
         VALUES ($1, 'proposed', $2, $3, $8::json, $4, $5, $6, $7)",
    )
    .bind(run)
    .bind(i64::try_from(proposed.as_of_position).unwrap_or(i64::MAX))
    .bind(proposed.needs_approval)
    .bind(proposed.at.to_chrono())
    .bind(proposed.by.as_str())
    .bind(i64::from(proposed.withheld_count))
    .bind(at.as_i64())
    .bind(paid_alone)
    .execute(&mut *connection)
    .await?;
    let lines = &proposed.lines;
    sqlx::query(
        "INSERT INTO payout_lines (run, line, creator, destination, minor, currency)
         SELECT $1, d.line, d.creator, d.destination, d.minor, d.currency
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[]) AS d (line, creator, destination, minor, currency)",
    )
    .bind(run)
    .bind(lines.iter().map(|line| i64::from(line.line)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.creator.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.destination.as_str()).collect::<Vec<_>>())
    .bind(minors(lines.iter().map(|line| line.money)))
    .bind(currencies(lines.iter().map(|line| line.money)))
    .execute(&mut *connection)
    .await?;
    let recoveries = &proposed.recoveries;
    sqlx::query(
        "INSERT INTO payout_recoveries (run, creator, currency, recovery, minor)
         SELECT $1, d.creator, d.currency, d.recovery, d.minor
         FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS d (creator, currency, recovery, minor)",
    )
    .bind(run)
    .bind(recoveries.iter().map(|recovery| recovery.creator.as_str()).collect::<Vec<_>>())
    .bind(currencies(recoveries.iter().map(|recovery| recovery.money)))
    .bind(recoveries.iter().map(|recovery| recovery.recovery.as_str()).collect::<Vec<_>>())
    .bind(minors(recoveries.iter().map(|recovery| recovery.money)))
    .execute(&mut *connection)
    .await?;
    let withheld = &proposed.withheld;
    sqlx::query(
        "INSERT INTO payout_withheld (run, creator, currency, minor, reason)
         SELECT $1, d.creator, d.currency, d.minor, d.reason
         FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) AS d (creator, currency, minor, reason)",
    )
    .bind(run)
    .bind(withheld.iter().map(|withheld| withheld.creator.as_str()).collect::<Vec<_>>())
    .bind(currencies(withheld.iter().map(|withheld| withheld.money)))
    .bind(minors(withheld.iter().map(|withheld| withheld.money)))
    .bind(withheld.iter().map(|withheld| withheld.reason.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

fn minors(moneys: impl Iterator<Item = Money>) -> Vec<i64> {
    moneys.map(Money::minor).collect()
}

fn currencies(moneys: impl Iterator<Item = Money>) -> Vec<String> {
    moneys.map(|money| money.currency().to_string()).collect()
}

async fn approve(approved: &PayoutRunApproved, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_runs SET stage = 'approved', decided_at = $2, decided_by = $3, last_position = $4 WHERE run = $1",
    )
    .bind(number(approved.run))
    .bind(approved.at.to_chrono())
    .bind(approved.by.as_str())
    .bind(at.as_i64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn cancel(canceled: &PayoutRunCanceled, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_runs SET stage = 'canceled', decided_at = $2, decided_by = $3, reason = $4, last_position = $5 WHERE run = $1",
    )
    .bind(number(canceled.run))
    .bind(canceled.at.to_chrono())
    .bind(canceled.by.as_str())
    .bind(&canceled.reason)
    .bind(at.as_i64())
    .execute(connection)
    .await?;
    Ok(())
}

/// It may be said again, in case that nobody listened; it was stopped the first time.
async fn stop(stopped: &PayoutRunStopped, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_runs SET stage = 'stopped', stopped_at = coalesce(stopped_at, $2), stopped_by = coalesce(stopped_by, $3),
             reason = coalesce(reason, $4), last_position = $5 WHERE run = $1",
    )
    .bind(number(stopped.run))
    .bind(stopped.at.to_chrono())
    .bind(stopped.by.as_str())
    .bind(&stopped.reason)
    .bind(at.as_i64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn finish(finished: &PayoutRunFinished, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE payout_runs SET stage = 'finished', finished_at = $2, last_position = $3 WHERE run = $1")
        .bind(number(finished.run))
        .bind(finished.at.to_chrono())
        .bind(at.as_i64())
        .execute(connection)
        .await?;
    Ok(())
}

async fn line_sent(sent: &PayoutTransferSent, at: Position, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_lines SET ended = 'sent', ended_at = $3, transfer = $4, position = $5 WHERE run = $1 AND line = $2",
    )
    .bind(number(sent.run))
    .bind(i64::from(sent.line))
    .bind(sent.at.to_chrono())
    .bind(sent.transfer.as_str())
    .bind(at.as_i64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn line_failed(
    failed: &PayoutTransferFailed,
    at: Position,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE payout_lines SET ended = 'failed', ended_at = $3, code = $4, position = $5 WHERE run = $1 AND line = $2",
    )
    .bind(number(failed.run))
    .bind(i64::from(failed.line))
    .bind(failed.at.to_chrono())
    .bind(&failed.code)
    .bind(at.as_i64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn transfer(seen: &TransferObserved, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let transfer = &seen.transfer;
    sqlx::query(
        "INSERT INTO payout_transfers (transfer, minor, reversed_minor) VALUES ($1, $2, $3)
         ON CONFLICT (transfer) DO UPDATE SET minor = excluded.minor,
             reversed_minor = greatest(payout_transfers.reversed_minor, excluded.reversed_minor)",
    )
    .bind(transfer.id.as_str())
    .bind(transfer.amount)
    .bind(transfer.amount_reversed)
    .execute(connection)
    .await?;
    Ok(())
}
