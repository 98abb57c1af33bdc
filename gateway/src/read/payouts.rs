//! Payouts: whom the books owe and how they can be paid, in one snapshot; the runs that there were.

use std::collections::BTreeMap;

use fanledger_domain::facts::ConnectedAccountSnapshot;
use fanledger_domain::id::Subject;
use fanledger_domain::money::{Currency, Money};
use fanledger_domain::payout_run::proposal::{PaidAlone, Payable, propose};
use fanledger_domain::payout_run::{PayoutRunId, Recovery, Withheld};
use fanledger_domain::policy;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{
    PaidBefore, PayoutHold, PayoutLine, PayoutLineState, PayoutProposal, PayoutRecovery, PayoutRun, PayoutRunState,
    PayoutRunSummary, PayoutTotal, PayoutWithheld, ProposedPayout, RecoveryKind, WithheldReason,
};
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{bigint, decoding, fetch, integer, json, optional_time, parsed, time, undecodable, unsigned};
use super::{Read, ReadError, Slice};

/// What a proposal is reckoned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payables {
    /// How far the accounts, holds and runs are read, which another projection keeps than the balances.
    pub payouts_position: u64,
    /// Every creator and currency with a balance that matters.
    pub payables: Vec<Payable>,
    /// What each person paid out alone of late.
    pub paid_alone: Vec<PaidAlone>,
    /// The last run that was proposed, and whether it is open.
    pub last_run: Option<(PayoutRunId, bool)>,
}

/// Whom the books owe, who owes, and how each can be paid; as of the position of the creators' balances. Who has nothing available
/// is neither paid nor left out, whatever is owed. And what each person paid out alone of late, at `now`.
///
/// # Errors
/// Postgres.
pub async fn payables(pool: &PgPool, now: Timestamp) -> Result<Read<Payables>, ReadError> {
    const WHAT: &str = "what creators may be paid";
    let alone_since = policy::in_force(now).alone_since(now).to_chrono();
    let rows = fetch(
        pool,
        WHAT,
        r#"SELECT b.position::bigint AS at, p.position::bigint AS payouts_at, o.creator::text AS creator, o.currency::text AS currency,
                o.pending::text AS pending, o.available::text AS available, o.held::text AS held, o.receivable::text AS receivable,
                (SELECT coalesce(json_agg(json_build_object('id', a.account, 'creator', a.creator,
                            'transfers_active', a.transfers_active, 'payouts_enabled', a.payouts_enabled,
                            'requirements_due', a.requirements_due, 'disabled_reason', a.disabled_reason) ORDER BY a.account), '[]')
                   FROM read.payout_accounts AS a WHERE a.creator = o.creator)::text AS accounts,
                EXISTS (SELECT FROM read.payout_holds AS h WHERE h.creator = o.creator AND h.resumed_at IS NULL) AS on_hold,
                (SELECT coalesce(json_agg(json_build_object('by', t.proposed_by, 'currency', t.currency, 'minor', t.minor::text)
                            ORDER BY t.proposed_by, t.currency), '[]')
                   FROM (SELECT min(d.proposed_by) AS proposed_by, l.currency, sum(l.minor) AS minor
                         FROM read.payout_runs AS d JOIN read.payout_lines AS l ON l.run = d.run
                         WHERE d.stage IN ('approved', 'stopped', 'finished') AND lower(d.decided_by COLLATE "C") = lower(d.proposed_by COLLATE "C") AND l.ended IS DISTINCT FROM 'failed'
                           AND coalesce(l.ended_at, 'infinity') > $1::timestamptz
                         GROUP BY lower(d.proposed_by COLLATE "C"), l.currency) AS t)::text AS paid_alone,
                r.run::bigint AS last_run, (r.stage IN ('proposed', 'approved', 'stopped'))::boolean AS is_open
         FROM read.positions AS b
         JOIN read.positions AS p ON p.name = 'payouts'
         LEFT JOIN read.creator_balances AS o ON o.available <> 0
         LEFT JOIN LATERAL (SELECT r.run, r.stage FROM read.payout_runs AS r ORDER BY r.run DESC LIMIT 1) AS r ON true
         WHERE b.name = 'creator_activity'
         ORDER BY o.creator, o.currency"#,
        |query| query.bind(alone_since),
    )
    .await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let last_run = match row.try_get::<Option<i64>, _>("last_run")? {
            Some(_) => Some((run_id(row, "last_run")?, row.try_get("is_open")?)),
            None => None,
        };
        let mut payables = Vec::new();
        for row in &rows {
            payables.extend(payable(row)?);
        }
        let payouts_position = unsigned(row, "payouts_at")?;
        let paid_alone = json::<Vec<PaidAloneRow>>(row, "paid_alone")?.into_iter().map(paid_alone);
        let paid_alone = paid_alone.collect::<Result<_, _>>()?;
        Ok(Read {
            position: unsigned(row, "at")?,
            value: Payables { payouts_position, payables, paid_alone, last_run },
        })
    })
}

#[derive(Deserialize)]
struct PaidAloneRow {
    by: Subject,
    currency: Currency,
    minor: String,
}

fn paid_alone(PaidAloneRow { by, currency, minor }: PaidAloneRow) -> Result<PaidAlone, sqlx::Error> {
    let minor = minor.parse().map_err(|error| undecodable("paid_alone", error))?;
    Ok(PaidAlone { by, currency, minor })
}

fn payable(row: &PgRow) -> Result<Option<Payable>, sqlx::Error> {
    if row.try_get::<Option<&str>, _>("creator")?.is_none() {
        return Ok(None);
    }
    Ok(Some(Payable {
        creator: parsed(row, "creator")?,
        currency: parsed(row, "currency")?,
        pending: integer(row, "pending")?,
        available: integer(row, "available")?,
        held: integer(row, "held")?,
        receivable: integer(row, "receivable")?,
        accounts: json::<Vec<ConnectedAccountSnapshot>>(row, "accounts")?,
        on_hold: row.try_get("on_hold")?,
    }))
}

/// A run as it would be proposed at `now`.
///
/// # Errors
/// Postgres.
pub async fn payout_proposal<M: From<i128>>(
    pool: &PgPool,
    now: Timestamp,
) -> Result<Read<PayoutProposal<M>>, ReadError> {
    let Read { position, value: Payables { payables, paid_alone, last_run, .. } } = payables(pool, now).await?;
    let policy = policy::in_force(now);
    let proposal = propose(&payables, &policy);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in &proposal.lines {
        *counts.entry(line.money.currency().to_string()).or_default() += 1;
    }
    let total = |(currency, minor): (Currency, i128)| PayoutTotal {
        lines: counts.get(currency.as_str()).copied().unwrap_or_default(),
        currency: currency.to_string(),
        amount_minor: minor.into(),
    };
    let value = PayoutProposal {
        as_of_position: position,
        open_run: last_run.filter(|(_, is_open)| *is_open).map(|(run, _)| run.to_string()),
        needs_approval: proposal.needs_approval(&BTreeMap::new(), &policy),
        alone_since: policy.alone_since(now).to_string(),
        paid_alone: paid_alone
            .iter()
            .map(|paid| fanledger_gateway_api::PaidAlone {
                by: paid.by.to_string(),
                currency: paid.currency.to_string(),
                amount_minor: paid.minor.into(),
                needs_approval: proposal.needs_approval(&BTreeMap::from([(paid.currency, paid.minor)]), &policy),
            })
            .collect(),
        totals: proposal.totals().into_iter().map(total).collect(),
        lines: proposal
            .lines
            .iter()
            .map(|line| ProposedPayout {
                line: line.line,
                creator: line.creator.to_string(),
                destination: line.destination.to_string(),
                amount_minor: i128::from(line.money.minor()).into(),
                currency: line.money.currency().to_string(),
            })
            .collect(),
        recoveries: proposal
            .recoveries
            .iter()
            .map(|recovery| PayoutRecovery {
                creator: recovery.creator.to_string(),
                recovery: recovery_kind(recovery.recovery),
                amount_minor: i128::from(recovery.money.minor()).into(),
                currency: recovery.money.currency().to_string(),
            })
            .collect(),
        withheld: proposal
            .withheld
            .iter()
            .map(|withheld| PayoutWithheld {
                creator: withheld.creator.to_string(),
                amount_minor: i128::from(withheld.money.minor()).into(),
                currency: withheld.money.currency().to_string(),
                reason: withheld_reason(withheld.reason),
            })
            .collect(),
        withheld_count: proposal.withheld_count.into(),
    };
    Ok(Read { position, value })
}

const fn recovery_kind(recovery: Recovery) -> RecoveryKind {
    match recovery {
        Recovery::Claimed => RecoveryKind::Claimed,
        Recovery::Recovered => RecoveryKind::Recovered,
    }
}

const fn withheld_reason(reason: Withheld) -> WithheldReason {
    match reason {
        Withheld::Held => WithheldReason::Held,
        Withheld::PendingNegative => WithheldReason::PendingNegative,
        Withheld::BelowMinimum => WithheldReason::BelowMinimum,
        Withheld::NoAccount => WithheldReason::NoAccount,
        Withheld::SeveralAccounts => WithheldReason::SeveralAccounts,
        Withheld::AccountRestricted => WithheldReason::AccountRestricted,
        Withheld::RunFull => WithheldReason::RunFull,
    }
}

/// What is told of a run, of `r` in `read.payout_runs`.
const SUMMARY: &str = "r.run::bigint AS run, r.stage::text AS stage, r.as_of_position::bigint AS as_of_position,
    r.needs_approval::boolean AS needs_approval, r.paid_alone::text AS paid_alone, r.proposed_at::timestamptz AS proposed_at, r.proposed_by::text AS proposed_by,
    r.decided_at::timestamptz AS decided_at, r.decided_by::text AS decided_by, r.reason::text AS reason,
    r.stopped_at::timestamptz AS stopped_at, r.stopped_by::text AS stopped_by,
    r.finished_at::timestamptz AS finished_at, r.withheld_count::bigint AS withheld_count, r.last_position::bigint AS last_position,
    (SELECT count(*) FROM read.payout_lines AS l WHERE l.run = r.run AND l.ended = 'sent')::bigint AS sent,
    (SELECT count(*) FROM read.payout_lines AS l WHERE l.run = r.run AND l.ended = 'failed')::bigint AS failed,
    (SELECT coalesce(json_agg(json_build_object('currency', t.currency, 'minor', t.minor::text, 'lines', t.lines,
                'sent_minor', t.sent_minor::text, 'sent_lines', t.sent_lines) ORDER BY t.currency), '[]')
       FROM (SELECT l.currency, sum(l.minor) AS minor, count(*) AS lines,
                    coalesce(sum(l.minor) FILTER (WHERE l.ended = 'sent'), 0) AS sent_minor,
                    count(*) FILTER (WHERE l.ended = 'sent') AS sent_lines
             FROM read.payout_lines AS l WHERE l.run = r.run GROUP BY l.currency) AS t)::text AS totals";

/// The runs, newest first; `after` is the last one that the reader has.
///
/// # Errors
/// Postgres.
pub async fn payout_runs<M: From<i128>>(
    pool: &PgPool,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Slice<PayoutRunSummary<M>, u64>>, ReadError> {
    const WHAT: &str = "payout runs";
    let sql = format!(
        "SELECT p.position::bigint AS at, {SUMMARY}
         FROM read.positions AS p
         LEFT JOIN LATERAL (SELECT r.* FROM read.payout_runs AS r WHERE r.run < $1::bigint ORDER BY r.run DESC LIMIT $2::bigint) AS r ON true
         WHERE p.name = 'payouts'
         ORDER BY r.run DESC"
    );
    let rows =
        fetch(pool, WHAT, &sql, |query| query.bind(after.map_or(i64::MAX, bigint)).bind(i64::from(limit))).await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let mut items = Vec::new();
        let mut last = None;
        for row in &rows {
            if row.try_get::<Option<i64>, _>("run")?.is_some() {
                items.push(summary(row)?);
                last = Some(unsigned(row, "run")?);
            }
        }
        let next = last.filter(|_| items.len() == limit as usize);
        Ok(Read { position: unsigned(first, "at")?, value: Slice { items, next } })
    })
}

/// Holds, newest first: those that last, or all that there were; `after` is the position of the last one that the reader has.
///
/// # Errors
/// Postgres.
pub async fn payout_holds(
    pool: &PgPool,
    all: bool,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Slice<PayoutHold, u64>>, ReadError> {
    const WHAT: &str = "held payouts";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS at, h.creator::text AS creator, h.held_at::timestamptz AS held_at, h.held_by::text AS held_by,
                h.reason::text AS reason, h.resumed_at::timestamptz AS resumed_at, h.resumed_by::text AS resumed_by,
                h.resume_reason::text AS resume_reason, h.position::bigint AS position
         FROM read.positions AS p
         LEFT JOIN LATERAL (SELECT h.* FROM read.payout_holds AS h
                            WHERE h.position < $1::bigint AND ($3::boolean OR h.resumed_at IS NULL)
                            ORDER BY h.position DESC LIMIT $2::bigint) AS h ON true
         WHERE p.name = 'payouts'
         ORDER BY h.position DESC",
        |query| query.bind(after.map_or(i64::MAX, bigint)).bind(i64::from(limit)).bind(all),
    )
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let items = rows.iter().filter_map(|row| hold(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        let next = items.last().filter(|_| items.len() == limit as usize).map(|hold: &PayoutHold| hold.position);
        Ok(Read { position: unsigned(first, "at")?, value: Slice { items, next } })
    })
}

fn hold(row: &PgRow) -> Result<Option<PayoutHold>, sqlx::Error> {
    let Some(creator) = row.try_get("creator")? else { return Ok(None) };
    Ok(Some(PayoutHold {
        creator,
        held_at: time(row, "held_at")?.to_string(),
        held_by: row.try_get("held_by")?,
        reason: row.try_get("reason")?,
        resumed_at: optional_time(row, "resumed_at")?.map(|at| at.to_string()),
        resumed_by: row.try_get("resumed_by")?,
        resume_reason: row.try_get("resume_reason")?,
        position: unsigned(row, "position")?,
    }))
}

/// One run with its transfers.
///
/// # Errors
/// Postgres, or when there is no such run.
pub async fn payout_run<M: From<i128>>(pool: &PgPool, run: PayoutRunId) -> Result<Read<PayoutRun<M>>, ReadError> {
    const WHAT: &str = "a payout run";
    // Whether a transfer is confirmed is another projection's to say, and counts once that has come by the line's end.
    let sql = format!(
        "SELECT p.position::bigint AS at, {SUMMARY},
                (SELECT coalesce(json_agg(json_build_object('line', l.line, 'creator', l.creator, 'destination', l.destination,
                            'minor', l.minor, 'currency', l.currency, 'ended', l.ended, 'transfer', l.transfer, 'code', l.code,
                            'ended_micros', (extract(epoch FROM l.ended_at) * 1000000)::bigint,
                            'reversed', coalesce(t.reversed_minor, 0),
                            'held', EXISTS (SELECT FROM read.payout_holds AS h WHERE h.creator = l.creator AND h.resumed_at IS NULL),
                            'confirmed', l.position <= (SELECT a.position FROM read.positions AS a WHERE a.name = 'awaited')
                                AND NOT EXISTS (SELECT FROM read.awaited AS w WHERE w.object = l.transfer AND w.part = 'movement'))
                            ORDER BY l.line), '[]')
                   FROM read.payout_lines AS l LEFT JOIN read.payout_transfers AS t ON t.transfer = l.transfer
                  WHERE l.run = r.run)::text AS lines,
                (SELECT coalesce(json_agg(json_build_object('creator', c.creator, 'kind', c.recovery, 'minor', c.minor,
                            'currency', c.currency) ORDER BY c.creator, c.currency), '[]')
                   FROM read.payout_recoveries AS c WHERE c.run = r.run)::text AS recoveries,
                (SELECT coalesce(json_agg(json_build_object('creator', w.creator, 'kind', w.reason, 'minor', w.minor,
                            'currency', w.currency) ORDER BY w.creator, w.currency), '[]')
                   FROM read.payout_withheld AS w WHERE w.run = r.run)::text AS withheld
         FROM read.positions AS p
         LEFT JOIN read.payout_runs AS r ON r.run = $1::bigint
         WHERE p.name = 'payouts'"
    );
    let rows = fetch(pool, WHAT, &sql, |query| query.bind(bigint(run.number()))).await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    let read = decoding(WHAT, || {
        if row.try_get::<Option<i64>, _>("run")?.is_none() {
            return Ok(None);
        }
        let summary = summary(row)?;
        let is_canceled = summary.state == PayoutRunState::Canceled;
        let lines = json::<Vec<LineRow>>(row, "lines")?.into_iter().map(|row| line(row, is_canceled));
        let value = PayoutRun {
            lines: lines.collect::<Result<_, _>>()?,
            summary,
            recoveries: json::<Vec<PartRow<RecoveryKind>>>(row, "recoveries")?
                .into_iter()
                .map(|part| PayoutRecovery {
                    creator: part.creator,
                    recovery: part.kind,
                    amount_minor: i128::from(part.minor).into(),
                    currency: part.currency,
                })
                .collect(),
            withheld: json::<Vec<PartRow<WithheldReason>>>(row, "withheld")?
                .into_iter()
                .map(|part| PayoutWithheld {
                    creator: part.creator,
                    reason: part.kind,
                    amount_minor: i128::from(part.minor).into(),
                    currency: part.currency,
                })
                .collect(),
        };
        Ok(Some(Read { position: unsigned(row, "at")?, value }))
    })?;
    read.ok_or(ReadError::UnknownPayoutRun(run))
}

fn run_id(row: &PgRow, column: &str) -> Result<PayoutRunId, sqlx::Error> {
    PayoutRunId::new(unsigned(row, column)?).ok_or_else(|| undecodable(column, NoRun))
}

#[derive(Debug, thiserror::Error)]
#[error("runs are numbered from 1")]
struct NoRun;

#[derive(Debug, thiserror::Error)]
#[error("no stage of a payout run: {0}")]
struct NoStage(String);

#[derive(Deserialize)]
struct TotalRow {
    currency: String,
    minor: String,
    lines: u64,
    sent_minor: String,
    sent_lines: u64,
}

impl TotalRow {
    fn total<M: From<i128>>(&self, minor: &str, lines: u64) -> Result<PayoutTotal<M>, sqlx::Error> {
        let minor: i128 = minor.parse().map_err(|error| undecodable("totals", error))?;
        Ok(PayoutTotal { currency: self.currency.clone(), amount_minor: minor.into(), lines })
    }
}

#[derive(Deserialize)]
struct LineRow {
    line: u32,
    creator: String,
    destination: String,
    minor: i64,
    currency: String,
    ended: Option<LineEnded>,
    ended_micros: Option<i64>,
    transfer: Option<String>,
    code: Option<String>,
    reversed: i64,
    held: bool,
    confirmed: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineEnded {
    Sent,
    Failed,
}

/// A recovery, or somebody who is withheld.
#[derive(Deserialize)]
struct PartRow<K> {
    creator: String,
    kind: K,
    minor: i64,
    currency: String,
}

fn summary<M: From<i128>>(row: &PgRow) -> Result<PayoutRunSummary<M>, sqlx::Error> {
    let (sent, failed) = (unsigned(row, "sent")?, unsigned(row, "failed")?);
    let stage: &str = row.try_get("stage")?;
    let state = match stage {
        "proposed" => PayoutRunState::Proposed,
        "approved" if sent + failed == 0 => PayoutRunState::Approved,
        "approved" => PayoutRunState::Sending,
        "stopped" => PayoutRunState::Stopping,
        "canceled" => PayoutRunState::Canceled,
        "finished" => PayoutRunState::Finished,
        _ => return Err(undecodable("stage", NoStage(stage.to_owned()))),
    };
    let rows = json::<Vec<TotalRow>>(row, "totals")?;
    let totals = rows.iter().map(|of| of.total(&of.minor, of.lines));
    let sent_totals = rows.iter().filter(|of| of.sent_lines > 0).map(|of| of.total(&of.sent_minor, of.sent_lines));
    Ok(PayoutRunSummary {
        run: run_id(row, "run")?.to_string(),
        state,
        needs_approval: row.try_get("needs_approval")?,
        paid_alone: json::<Vec<Money>>(row, "paid_alone")?
            .into_iter()
            .map(|paid| PaidBefore {
                currency: paid.currency().to_string(),
                amount_minor: i128::from(paid.minor()).into(),
            })
            .collect(),
        as_of_position: unsigned(row, "as_of_position")?,
        proposed_at: time(row, "proposed_at")?.to_string(),
        proposed_by: row.try_get("proposed_by")?,
        decided_at: optional_time(row, "decided_at")?.map(|at| at.to_string()),
        decided_by: row.try_get("decided_by")?,
        reason: row.try_get("reason")?,
        stopped_at: optional_time(row, "stopped_at")?.map(|at| at.to_string()),
        stopped_by: row.try_get("stopped_by")?,
        finished_at: optional_time(row, "finished_at")?.map(|at| at.to_string()),
        totals: totals.collect::<Result<_, _>>()?,
        sent_totals: sent_totals.collect::<Result<_, _>>()?,
        sent,
        failed,
        withheld_count: unsigned(row, "withheld_count")?,
        last_position: unsigned(row, "last_position")?,
    })
}

fn line<M: From<i128>>(line: LineRow, is_canceled: bool) -> Result<PayoutLine<M>, sqlx::Error> {
    let state = match line.ended {
        None => PayoutLineState::Waiting,
        Some(LineEnded::Failed) => PayoutLineState::Failed,
        Some(LineEnded::Sent) if line.reversed >= line.minor => PayoutLineState::Reversed,
        Some(LineEnded::Sent) if line.reversed > 0 => PayoutLineState::PartlyReversed,
        Some(LineEnded::Sent) if line.confirmed == Some(true) => PayoutLineState::Confirmed,
        Some(LineEnded::Sent) => PayoutLineState::Sent,
    };
    let ended_at = line.ended_micros.map(Timestamp::from_unix_micros).transpose();
    Ok(PayoutLine {
        line: line.line,
        creator: line.creator,
        destination: line.destination,
        amount_minor: i128::from(line.minor).into(),
        currency: line.currency,
        state,
        ended_at: ended_at.map_err(|error| undecodable("ended_at", error))?.map(|at| at.to_string()),
        transfer: line.transfer,
        reversed_minor: i128::from(line.reversed).into(),
        held: line.held && line.ended.is_none() && !is_canceled,
        code: line.code,
    })
}
