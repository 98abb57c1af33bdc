//! The lines of an account, newest first, each with the balance right after it.
//!
//! The balance after the newest line of a page comes from the sums of `balances`, the lines from `postings`; from there each
//! older line's follows by subtraction. The two projections may be at different positions, so the answer is of the lower one:
//! lines above it are left out, and what the sums have beyond it is taken off again, which is a short range of positions.
//! A page's cursor pins that position, so that a late fact does not move the pages that follow.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use fanledger_domain::account::Account;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{AccountStatement, LineCause, PostingLine, Side};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::cut::Cut;
use super::query::{bigint, decoding, fetch, integer, time, unsigned};
use super::{AsOf, By, Read, ReadError, Slice};

const WHAT: &str = "an account's lines";
/// Lines per statement when all are read.
const PAGE: u32 = 5_000;

/// The last line of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostingKey {
    /// The position that the pages reflect.
    pub pin: u64,
    /// Its time on the axis of the list, in microseconds since 1970.
    pub at: i64,
    /// Its entry's position.
    pub position: u64,
    /// Its number within the entry.
    pub line: i32,
}

/// Which of an account's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first instant, inclusive, on the axis of `by`; none from the beginning.
    pub from: Option<Timestamp>,
    /// The end.
    pub as_of: AsOf,
    /// Which time counts, and orders the lines.
    pub by: By,
}

impl Span {
    /// From the beginning.
    pub const fn up_to(as_of: AsOf, by: By) -> Self {
        Self { from: None, as_of, by }
    }
}

/// The lines of an account, newest first by the given time, and where that is the same by position; as of a position, by
/// recording.
///
/// # Errors
/// As [`super::trial_balance`], and for an account to which nothing was ever posted.
pub async fn postings<M: From<i128>>(
    pool: &PgPool,
    account: &Account,
    currency: Option<Currency>,
    span: Span,
    after: Option<&PostingKey>,
    limit: u32,
) -> Result<Read<Slice<PostingLine<M>, PostingKey>>, ReadError> {
    let page = Page::new(span, after)?;
    let sql = page.sql();
    let rows = fetch(pool, WHAT, &sql, |query| {
        page.cut
            .bind(query.bind(account.to_string()).bind(currency.map(|currency| currency.to_string())))
            .bind(page.at)
            .bind(page.position)
            .bind(page.line)
            .bind(page.pin.map(bigint))
            .bind(i64::from(limit))
    })
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    let (there, position, known) = decoding(WHAT, || {
        Ok((unsigned(first, "there")?, unsigned(first, "position")?, first.try_get::<bool, _>("known")?))
    })?;
    page.cut.check(WHAT, first, there)?;
    if !known {
        return Err(ReadError::UnknownAccount(account.clone()));
    }
    let value = decoding(WHAT, || page.slice(&rows, position, limit))?;
    // What was known at a close is that whatever came later; all else is pinned where its first page was.
    let position = match span.as_of {
        AsOf::Known { .. } => there,
        AsOf::Latest | AsOf::Instant(_) | AsOf::Position(_) => position,
    };
    Ok(Read { position, value })
}

/// The statement of an account, per currency: what stood before, every line, oldest first, and what stands after.
///
/// # Errors
/// As [`postings`].
pub async fn statement<M: From<i128>>(
    pool: &PgPool,
    account: &Account,
    currency: Option<Currency>,
    span: Span,
) -> Result<Read<Vec<AccountStatement<M>>>, ReadError> {
    let mut by_currency: BTreeMap<String, Vec<PostingLine<Exact>>> = BTreeMap::new();
    let mut after = None;
    let position = loop {
        let page = postings::<Exact>(pool, account, currency, span, after.as_ref(), PAGE).await?;
        for line in page.value.items {
            by_currency.entry(line.currency.clone()).or_default().push(line);
        }
        match page.value.next {
            Some(next) => after = Some(next),
            None => break page.position,
        }
    };
    // What stood at the beginning, as far as the lines reflect: where there are lines it must lead to the first of them.
    let opening = match span.from {
        None => BTreeMap::new(),
        Some(from) => {
            let instant = Timestamp::from_unix_micros(from.as_unix_micros() - 1).unwrap_or(from);
            let position = match span.as_of {
                AsOf::Latest | AsOf::Instant(_) => position,
                AsOf::Position(last) | AsOf::Known { position: last, .. } => last.min(position),
            };
            account_balances(pool, account, AsOf::Known { instant, position }, span.by).await?
        }
    };
    let wanted = |code: &String| currency.is_none_or(|currency| currency.as_str() == code);
    let currencies: BTreeSet<String> =
        by_currency.keys().chain(opening.keys()).filter(|code| wanted(code)).cloned().collect();
    let value = currencies
        .into_iter()
        .map(|currency| {
            let opening = opening.get(&currency).copied().unwrap_or(0);
            let lines = by_currency.remove(&currency).unwrap_or_default();
            AccountStatement {
                account: account.to_string(),
                opening_minor: opening.into(),
                balance_minor: lines.first().map_or(opening, |newest| newest.balance_minor.0).into(),
                postings: lines.into_iter().rev().map(|line| line.map_minor(|exact| exact.0.into())).collect(),
                currency,
            }
        })
        .collect();
    Ok(Read { position, value })
}

/// Balances are wanted as numbers to hand on the newest line's, and another type need not be one.
struct Exact(i128);

impl From<i128> for Exact {
    fn from(minor: i128) -> Self {
        Self(minor)
    }
}

async fn account_balances(
    pool: &PgPool,
    account: &Account,
    as_of: AsOf,
    by: By,
) -> Result<BTreeMap<String, i128>, ReadError> {
    let balances = super::account::<Exact>(pool, account, as_of, by).await?.value.currencies;
    Ok(balances.into_iter().map(|balance| (balance.currency, balance.balance_minor.0)).collect())
}

/// What one page asks for.
struct Page {
    /// What the balance before the page's first line is of.
    cut: Cut,
    /// Lines at this instant or later.
    from: Option<Timestamp>,
    /// The position that nothing shown is beyond; none where it is for the first page to say.
    pin: Option<u64>,
    /// Lines before this key; beyond all lines on the first page.
    at: DateTime<Utc>,
    position: i64,
    line: i32,
}

impl Page {
    fn new(Span { from, as_of, by }: Span, after: Option<&PostingKey>) -> Result<Self, ReadError> {
        let unreadable = |error| ReadError::Query { what: WHAT, source: sqlx::Error::Encode(Box::new(error)) };
        let cut = Cut { as_of, by };
        let Some(key) = after else {
            let last = Timestamp::from_unix_micros(253_402_300_799_999_999).map_err(unreadable)?;
            let (at, pin) = match as_of {
                AsOf::Instant(at) => (at, None),
                AsOf::Known { instant, position } => (instant, Some(position)),
                AsOf::Latest | AsOf::Position(_) => (last, None),
            };
            return Ok(Self { cut, from, pin, at: at.to_chrono(), position: i64::MAX, line: i32::MAX });
        };
        // Everything up to the key's own instant or position, from which the page's statement takes off what is not before it.
        let at = Timestamp::from_unix_micros(key.at).map_err(unreadable)?;
        let as_of = match cut.axis() {
            By::Occurred | By::Effective => AsOf::Known { instant: at, position: key.pin },
            By::Recorded => AsOf::Position(key.position),
        };
        let (at, position) = (at.to_chrono(), bigint(key.position));
        Ok(Self { cut: Cut { as_of, by }, from, pin: Some(key.pin), at, position, line: key.line })
    }

    /// The time by which the list is ordered; positions come in the order of recording, and have the index.
    fn order(&self) -> &'static str {
        match self.cut.axis() {
            By::Occurred => "l.occurred_at DESC, l.position DESC, l.line DESC",
            By::Effective => "l.effective_at DESC, l.position DESC, l.line DESC",
            By::Recorded => "l.position DESC, l.line DESC",
        }
    }

    /// $1 account, $2 currency, $3 the cut, $4 to $6 the key, $7 the pinned position, $8 the limit.
    fn sql(&self) -> String {
        let (before, same) = match self.cut.axis() {
            By::Occurred => (
                "(l.occurred_at, l.position, l.line) < ($4::timestamptz, $5::bigint, $6::integer)",
                "l.occurred_at = $4::timestamptz AND (l.position, l.line) >= ($5::bigint, $6::integer)",
            ),
            By::Effective => (
                "(l.effective_at, l.position, l.line) < ($4::timestamptz, $5::bigint, $6::integer)",
                "l.effective_at = $4::timestamptz AND (l.position, l.line) >= ($5::bigint, $6::integer)",
            ),
            By::Recorded => (
                "(l.position, l.line) < ($5::bigint, $6::integer) AND $4::timestamptz IS NOT NULL",
                "l.position = $5::bigint AND l.line >= $6::integer",
            ),
        };
        // On the axis of recording the cut is no part of the key.
        let bounded = match (self.cut.axis(), self.cut.as_of) {
            (By::Recorded, AsOf::Instant(_) | AsOf::Position(_) | AsOf::Known { .. }) => {
                "l.position <= (SELECT t.last_position FROM turnover AS t WHERE t.account = k.account AND t.currency = k.currency)"
            }
            (By::Recorded, AsOf::Latest) | (By::Occurred | By::Effective, _) => "true",
        };
        format!(
            "WITH RECURSIVE at AS (
                 SELECT least(b.position, p.position) AS there, least(b.position, p.position, $7::bigint) AS position
                 FROM read.positions AS b, read.positions AS p WHERE b.name = 'balances' AND p.name = 'postings'
             ), keys AS (
                 SELECT t.account, t.currency, t.debits, t.credits, t.lines FROM read.balance_totals AS t
                 WHERE t.account = $1::text AND ($2::text IS NULL OR t.currency = $2)
             ), {turnover}, newest AS MATERIALIZED (
                 SELECT k.currency,
                        coalesce(cut.debits - cut.credits, 0) - coalesce(beyond.balance, 0) - coalesce(shown.balance, 0) AS balance
                 FROM at CROSS JOIN keys AS k
                 LEFT JOIN turnover AS cut ON cut.account = k.account AND cut.currency = k.currency
                 CROSS JOIN LATERAL ({beyond}) AS beyond
                 CROSS JOIN LATERAL (
                     SELECT sum(CASE l.side WHEN 'debit' THEN l.amount ELSE -l.amount END) AS balance FROM read.postings AS l
                     WHERE l.account = k.account AND l.currency = k.currency AND l.position <= at.position AND {same}) AS shown
             ), lines AS (
                 SELECT l.*
                 FROM at CROSS JOIN keys AS k
                 CROSS JOIN LATERAL (
                     SELECT l.currency, l.position, l.line, l.entry_id, l.side, l.amount, l.occurred_at, l.effective_at, l.recorded_at,
                            l.description, l.object, l.stripe_event
                     FROM read.postings AS l
                     WHERE l.account = k.account AND l.currency = k.currency AND l.position <= at.position AND {before} AND {bounded}
                     ORDER BY {order} LIMIT $8::bigint) AS l
                 ORDER BY {order} LIMIT $8::bigint
             )
             SELECT at.there::bigint AS there, at.position::bigint AS position, {firsts},
                    EXISTS (SELECT FROM read.balance_totals AS t WHERE t.account = $1::text) AS known,
                    l.currency::text AS currency, l.position::bigint AS entry_position, l.line::integer AS line, l.entry_id::text AS entry_id,
                    l.side::text AS side, l.amount::bigint AS amount, l.occurred_at::timestamptz AS occurred_at,
                    l.effective_at::timestamptz AS effective_at, l.recorded_at::timestamptz AS recorded_at,
                    l.description::text AS description, l.object::text AS object, l.stripe_event::text AS stripe_event,
                    n.balance::text AS newest
             FROM at LEFT JOIN lines AS l ON true LEFT JOIN newest AS n ON n.currency = l.currency
             ORDER BY {order}",
            turnover = self.cut.turnover("$3"),
            beyond = self.cut.balance_beyond("$3", "at.position"),
            firsts = self.cut.firsts(),
            order = self.order(),
        )
    }

    fn slice<M: From<i128>>(
        &self,
        rows: &[PgRow],
        pin: u64,
        limit: u32,
    ) -> Result<Slice<PostingLine<M>, PostingKey>, sqlx::Error> {
        let mut running: BTreeMap<String, i128> = BTreeMap::new();
        let mut slice = Slice { items: Vec::new(), next: None };
        for row in rows {
            let Some(currency) = row.try_get::<Option<String>, _>("currency")? else { continue };
            let amount: i64 = row.try_get("amount")?;
            let side = match row.try_get("side")? {
                "debit" => Side::Debit,
                _ => Side::Credit,
            };
            let newest = integer(row, "newest")?;
            let balance = running.entry(currency.clone()).or_insert(newest);
            let after = *balance;
            *balance -= match side {
                Side::Debit => i128::from(amount),
                Side::Credit => -i128::from(amount),
            };
            let (occurred_at, effective_at, recorded_at) =
                (time(row, "occurred_at")?, time(row, "effective_at")?, time(row, "recorded_at")?);
            let position = unsigned(row, "entry_position")?;
            let at = match self.cut.axis() {
                By::Occurred => occurred_at,
                By::Effective => effective_at,
                By::Recorded => recorded_at,
            };
            // All that follow are older.
            if self.from.is_some_and(|from| at < from) {
                break;
            }
            slice.next = Some(PostingKey { pin, at: at.as_unix_micros(), position, line: row.try_get("line")? });
            slice.items.push(PostingLine {
                entry_id: row.try_get("entry_id")?,
                position,
                currency,
                occurred_at: occurred_at.to_string(),
                effective_at: effective_at.to_string(),
                recorded_at: recorded_at.to_string(),
                side,
                amount_minor: i128::from(amount).into(),
                balance_minor: after.into(),
                description: row.try_get("description")?,
                cause: LineCause { object: row.try_get("object")?, stripe_event: row.try_get("stripe_event")? },
            });
        }
        if u32::try_from(slice.items.len()).is_ok_and(|lines| lines < limit) {
            slice.next = None;
        }
        Ok(slice)
    }
}
