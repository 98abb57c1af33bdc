//! Creators: what each has, their statements, and the entries behind every figure of one.
//!
//! A statement's lines come from `creator_activity`, and where its closing balance is from `postings`; the two may be at
//! different positions, so both are read up to the lower one. What they say must agree, or there is no statement.

mod activity;

use fanledger_domain::account::{Account, Bucket};
use fanledger_domain::entry::StatementLine;
use fanledger_domain::id::CreatorId;
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{
    CreatorBalance, CreatorBuckets, CreatorCurrency, CreatorKind, CreatorLine, CreatorStatement,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::answered_from::CREATOR_STATEMENT;
use super::periods::Closed;
use super::query::{self, bigint, decoding, fetch, integer, unsigned};
use super::{AsOf, Asked, By, PeriodError, Read, ReadError, Slice, Span};

pub use activity::{ActivityFilter, ActivityKey, creator_activity};

/// Which entries a statement is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatorSpan {
    span: Span,
    /// The month that was asked for, and the close that has fixed it, where one has.
    period: Option<(Month, Option<FixedBy>)>,
    /// How far `periods` had come when that was looked up in it: nothing that is said is of a later position.
    decided_at: Option<u64>,
}

/// What of a month's close a statement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FixedBy {
    close: u32,
    closed_with: Option<Month>,
    is_superseded: bool,
}

impl CreatorSpan {
    /// From and to any instants, or a month: as its close fixed it, or, while it is open, by effective date as it is.
    ///
    /// # Errors
    /// When the month was not closed so often, or lies beyond what times can hold; or Postgres.
    pub async fn resolve(pool: &PgPool, from: Option<Timestamp>, asked: Asked) -> Result<Self, ReadError> {
        let (month, close) = match asked {
            Asked::AsOf(as_of, by) => {
                return Ok(Self { span: Span { from, as_of, by }, period: None, decided_at: None });
            }
            Asked::Period(month, close) => (month, close),
        };
        let unheld = |error| ReadError::Query { what: STATEMENT, source: sqlx::Error::Encode(Box::new(error)) };
        let Read { position, value: closed } = Closed::find(pool, month, close).await?;
        let (as_of, fixed_by) = match closed {
            Ok(closed) => {
                let Closed { close, closed_with, is_superseded, .. } = closed;
                (closed.as_of(), Some(FixedBy { close, closed_with, is_superseded }))
            }
            Err(PeriodError::NeverClosed(_) | PeriodError::Reopened { .. }) if close.is_none() => {
                let end = month.end().map_err(unheld)?.as_unix_micros();
                (AsOf::Instant(Timestamp::from_unix_micros(end - 1).map_err(unheld)?), None)
            }
            Err(error) => return Err(error.into()),
        };
        let from = Some(month.start().map_err(unheld)?);
        let span = Span { from, as_of, by: By::Effective };
        Ok(Self { span, period: Some((month, fixed_by)), decided_at: Some(position) })
    }

    /// Which of an entry's times counts.
    pub const fn by(&self) -> By {
        self.span.by
    }
}

/// The span, taken apart for SQL.
#[derive(Clone, Copy)]
struct Window {
    from: Option<Timestamp>,
    /// The last instant, inclusive.
    to: Option<Timestamp>,
    by: By,
    /// The position that the books were known at.
    known_at: Option<u64>,
    /// The position beyond which nothing is read, since it is not known what the month is there.
    decided_at: Option<u64>,
}

impl From<CreatorSpan> for Window {
    fn from(CreatorSpan { span: Span { from, as_of, by }, decided_at, .. }: CreatorSpan) -> Self {
        let (to, known_at) = match as_of {
            AsOf::Latest => (None, None),
            AsOf::Instant(at) => (Some(at), None),
            AsOf::Position(position) => (None, Some(position)),
            AsOf::Known { instant, position } => (Some(instant), Some(position)),
        };
        Self { from, to, by, known_at, decided_at }
    }
}

impl Window {
    /// The column of `creator_activity` and `postings` that the instants are compared with.
    const fn time(self) -> &'static str {
        match self.by {
            By::Effective => "effective_at",
            By::Occurred => "occurred_at",
            By::Recorded => "recorded_at",
        }
    }

    /// The column that has an index and goes in the same order: positions come in the order of recording.
    const fn order(self) -> &'static str {
        match self.by {
            By::Effective | By::Occurred => self.time(),
            By::Recorded => "position",
        }
    }

    /// Refuses what the creator's books, whose first entry `row` tells, have no answer to. That a closed month had nothing is an
    /// answer, and stays one.
    fn check(self, what: &'static str, row: &PgRow, creator: &CreatorId, position: u64) -> Result<(), ReadError> {
        let (known, first_at, first_position) = decoding(what, || {
            let first_position: Option<i64> = row.try_get("first_position")?;
            let first_position = first_position.and_then(|first| u64::try_from(first).ok());
            Ok((row.try_get::<bool, _>("known")?, query::optional_time(row, "first_at")?, first_position))
        })?;
        if !known {
            return Err(ReadError::UnknownCreator(creator.clone()));
        }
        match (self.to, self.known_at) {
            (to, Some(asked)) if asked > position => {
                let known = |instant| AsOf::Known { instant, position: asked };
                Err(ReadError::AsOfPositionAhead { as_of: to.map_or(AsOf::Position(asked), known), position })
            }
            (None, Some(asked)) if first_position.is_some_and(|first| asked < first) => {
                let (as_of, first) = (AsOf::Position(asked), first_position.map(AsOf::Position));
                Err(ReadError::BeforeFirstEntry { as_of, first })
            }
            (Some(to), None) if first_at.is_some_and(|first| to < first) => {
                let (as_of, first) = (AsOf::Instant(to), first_at.map(AsOf::Instant));
                Err(ReadError::BeforeFirstEntry { as_of, first })
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }
}

/// A creator and currency, after which a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatorKey {
    creator: String,
    currency: String,
}

/// Whether anything is known of a creator: the books hold something of theirs, or an account at Stripe says that it is theirs. What
/// was theirs by a slip and is not any more leaves a balance of zero, and nothing known.
///
/// # Errors
/// Postgres.
pub async fn is_known_creator(pool: &PgPool, creator: &CreatorId) -> Result<bool, ReadError> {
    const WHAT: &str = "whether a creator is known";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT EXISTS (SELECT FROM read.creator_balances WHERE creator = $1::text
                     AND (pending, available, held, receivable) <> (0, 0, 0, 0))
             OR EXISTS (SELECT FROM read.payout_accounts WHERE creator = $1::text) AS is_known",
        |query| query.bind(creator.as_str()),
    )
    .await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || row.try_get("is_known"))
}

/// What each creator has, in the order of their ids.
///
/// # Errors
/// Postgres.
pub async fn creators<M: From<i128>>(
    pool: &PgPool,
    after: Option<&CreatorKey>,
    limit: u32,
) -> Result<Read<Slice<CreatorBalance<M>, CreatorKey>>, ReadError> {
    const WHAT: &str = "creators";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS position, b.creator::text AS creator, b.currency::text AS currency, b.pending::text AS pending,
                b.available::text AS available, b.held::text AS held, b.receivable::text AS receivable
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT b.* FROM read.creator_balances AS b
             WHERE (b.creator, b.currency) > ($1::text, $2::text) ORDER BY b.creator, b.currency LIMIT $3::bigint) AS b ON true
         WHERE p.name = 'creator_activity'
         ORDER BY b.creator, b.currency",
        |query| {
            query
                .bind(after.map_or("", |key| &key.creator))
                .bind(after.map_or("", |key| &key.currency))
                .bind(i64::from(limit))
        },
    )
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let mut slice = Slice { items: Vec::new(), next: None };
        for row in &rows {
            let Some(creator) = row.try_get::<Option<String>, _>("creator")? else { continue };
            let buckets = Buckets::read(row)?;
            let currency: String = row.try_get("currency")?;
            slice.next = Some(CreatorKey { creator: creator.clone(), currency: currency.clone() });
            let balance_minor = buckets.total().into();
            slice.items.push(CreatorBalance { creator, currency, buckets: buckets.on_the_wire(), balance_minor });
        }
        if u32::try_from(slice.items.len()).is_ok_and(|items| items < limit) {
            slice.next = None;
        }
        Ok(Read { position: unsigned(first, "position")?, value: slice })
    })
}

#[derive(Clone, Copy, Default)]
struct Buckets {
    pending: i128,
    available: i128,
    held: i128,
    receivable: i128,
}

impl Buckets {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            pending: integer(row, "pending")?,
            available: integer(row, "available")?,
            held: integer(row, "held")?,
            receivable: integer(row, "receivable")?,
        })
    }

    fn total(self) -> i128 {
        self.pending + self.available + self.held - self.receivable
    }

    fn on_the_wire<M: From<i128>>(self) -> CreatorBuckets<M> {
        CreatorBuckets {
            pending_minor: self.pending.into(),
            available_minor: self.available.into(),
            held_minor: self.held.into(),
            receivable_minor: self.receivable.into(),
        }
    }
}

/// Common table expressions: `cut`, how far the answer can go and up to where it is read; `own`, what is known of the
/// creator's entries at all. $1 the creator, $2 the position that the books were known at, `decided_at` the parameter of the
/// position that the month's state is known at; both may be null.
fn known_of(window: Window, projections: &[&str], decided_at: &str) -> String {
    let first = |column: &str, order: &str| {
        format!(
            "(SELECT a.{column} FROM read.creator_activity AS a WHERE a.creator = $1::text ORDER BY a.{order} LIMIT 1)"
        )
    };
    format!(
        "cut AS (
             SELECT least(min(p.position), {decided_at}::bigint) AS there,
                    least(min(p.position), {decided_at}::bigint, $2::bigint) AS position
             FROM read.positions AS p WHERE p.name IN ('{names}') HAVING count(*) = {count}
         ), own AS (
             SELECT EXISTS (SELECT FROM read.creator_balances AS b WHERE b.creator = $1::text) AS known,
                    {first_at}::timestamptz AS first_at, {first_position}::bigint AS first_position
         )",
        names = projections.join("', '"),
        count = projections.len(),
        first_at = first(window.time(), window.order()),
        first_position = first("position", "position"),
    )
}

const STATEMENT: &str = "a creator's statement";

/// The creator's statement, by currency.
///
/// # Errors
/// A creator whom no entry names, a span that ends before their first entry, a position that is not there yet, books that
/// contradict themselves, or Postgres.
pub async fn creator_statement<M: From<i128>>(
    pool: &PgPool,
    creator: &CreatorId,
    span: CreatorSpan,
    currency: Option<Currency>,
) -> Result<Read<CreatorStatement<M>>, ReadError> {
    let window = Window::from(span);
    let sql = statement_sql(window);
    let accounts: Vec<String> = [
        Account::Creator(creator.clone(), Bucket::Pending),
        Account::Creator(creator.clone(), Bucket::Available),
        Account::Creator(creator.clone(), Bucket::Held),
        Account::CreatorReceivable(creator.clone()),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let rows = fetch(pool, STATEMENT, &sql, |query| {
        query
            .bind(creator.as_str())
            .bind(window.known_at.map(bigint))
            .bind(window.from.map(Timestamp::to_chrono))
            .bind(window.to.map(Timestamp::to_chrono))
            .bind(currency.map(|currency| currency.to_string()))
            .bind(accounts.clone())
            .bind(window.decided_at.map(bigint))
    })
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: STATEMENT })?;
    let (there, position) = decoding(STATEMENT, || Ok((unsigned(first, "there")?, unsigned(first, "cut_position")?)))?;
    window.check(STATEMENT, first, creator, there)?;
    let figures = decoding(STATEMENT, || rows.iter().filter_map(|row| Figures::read(row).transpose()).collect())?;
    let currencies = assemble(creator, figures)?;
    let fixed_by = span.period.and_then(|(_, fixed_by)| fixed_by);
    let value = CreatorStatement {
        creator: creator.to_string(),
        position,
        period: span.period.map(|(month, _)| month.to_string()),
        closed: fixed_by.is_some(),
        close: fixed_by.map(|by| by.close),
        closed_with: fixed_by.and_then(|by| by.closed_with).map(|month| month.to_string()),
        superseded: fixed_by.is_some_and(|by| by.is_superseded),
        from: window.from.map(|from| from.to_string()),
        to: window.to.map(|to| to.to_string()),
        by: window.by.as_str().to_owned(),
        currencies,
    };
    Ok(Read { position: there, value })
}

/// $1 the creator, $2 the position that the books were known at, $3 and $4 the window, $5 the currency, $6 the creator's four
/// accounts, $7 the position that the month's state is known at.
fn statement_sql(window: Window) -> String {
    let within = |row: &str| {
        format!(
            "{row}.position <= cut.position AND ($4::timestamptz IS NULL OR {row}.{time} <= $4)
             AND ($5::text IS NULL OR {row}.currency = $5)",
            time = window.time()
        )
    };
    let in_bucket = |number: u32, sign: &str| {
        format!(
            "coalesce({sign} sum(CASE p.side WHEN 'debit' THEN p.amount ELSE -p.amount END)
                 FILTER (WHERE p.account = ($6::text[])[{number}]), 0)"
        )
    };
    format!(
        "WITH {known}, activity AS (
             SELECT a.currency, a.line, a.kind, a.position, a.minor, $3::timestamptz IS NOT NULL AND a.{time} < $3 AS is_before
             FROM cut, read.creator_activity AS a WHERE a.creator = $1::text AND {activity_within}
         ), figures AS (
             -- A row for each kind of payment of a line, for each line, and for the whole.
             SELECT a.currency, a.line, a.kind, grouping(a.line, a.kind) AS level,
                    coalesce(sum(a.minor) FILTER (WHERE a.is_before), 0) AS opening,
                    coalesce(sum(a.minor) FILTER (WHERE NOT a.is_before), 0) AS minor,
                    count(DISTINCT a.position) FILTER (WHERE NOT a.is_before) AS entries
             FROM activity AS a GROUP BY GROUPING SETS ((a.currency, a.line, a.kind), (a.currency, a.line), (a.currency))
         ), buckets AS (
             SELECT p.currency, {pending} AS pending, {available} AS available, {held} AS held, {receivable} AS receivable
             FROM cut, read.postings AS p WHERE p.account = ANY($6::text[]) AND {postings_within} GROUP BY p.currency
         ), both_ways AS (
             SELECT currency, f.line, f.kind, f.level, f.opening, f.minor, f.entries, b.pending, b.available, b.held, b.receivable
             FROM figures AS f FULL JOIN buckets AS b USING (currency)
         )
         SELECT cut.there::bigint AS there, cut.position::bigint AS cut_position, own.known, own.first_at, own.first_position,
                s.currency::text AS currency, s.line::text AS line, s.kind::text AS kind, s.level::integer AS level,
                coalesce(s.opening, 0)::text AS opening, coalesce(s.minor, 0)::text AS minor, coalesce(s.entries, 0)::bigint AS entries,
                coalesce(s.pending, 0)::text AS pending, coalesce(s.available, 0)::text AS available,
                coalesce(s.held, 0)::text AS held, coalesce(s.receivable, 0)::text AS receivable
         FROM cut CROSS JOIN own LEFT JOIN both_ways AS s ON true
         ORDER BY s.currency, s.level DESC, s.line, s.kind NULLS LAST",
        known = known_of(window, CREATOR_STATEMENT, "$7"),
        time = window.time(),
        activity_within = within("a"),
        postings_within = within("p"),
        pending = in_bucket(1, "-"),
        available = in_bucket(2, "-"),
        held = in_bucket(3, "-"),
        receivable = in_bucket(4, ""),
    )
}

/// One row of a statement's answer.
struct Figures {
    currency: String,
    /// `None` in the row of the whole.
    line: Option<StatementLine>,
    of: Of,
    opening: i128,
    minor: i128,
    entries: u64,
    closing: Buckets,
}

/// What a row sums up.
enum Of {
    Currency,
    Line,
    Kind(Option<String>),
}

impl Figures {
    fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(currency) = row.try_get("currency")? else { return Ok(None) };
        let line: Option<&str> = row.try_get("line")?;
        let line = line
            .map(|line| StatementLine::from_text(line).ok_or_else(|| query::undecodable("line", UnknownLine)))
            .transpose()?;
        let of = match row.try_get::<Option<i32>, _>("level")? {
            Some(0) => Of::Kind(row.try_get("kind")?),
            Some(1) => Of::Line,
            // The whole; or none, of a currency that money only moved about in.
            Some(_) | None => Of::Currency,
        };
        Ok(Some(Self {
            currency,
            line,
            of,
            opening: integer(row, "opening")?,
            minor: integer(row, "minor")?,
            entries: unsigned(row, "entries")?,
            closing: Buckets::read(row)?,
        }))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no line of a statement has this name")]
struct UnknownLine;

/// Puts the rows of a statement together; the row of a currency's whole comes before those of its lines, and a line's before
/// those of its kinds.
fn assemble<M: From<i128>>(creator: &CreatorId, figures: Vec<Figures>) -> Result<Vec<CreatorCurrency<M>>, ReadError> {
    let mut currencies: Vec<CreatorCurrency<M>> = Vec::new();
    for figure in figures {
        let Figures { currency, line, of, opening, minor, entries, closing } = figure;
        match of {
            Of::Currency => {
                let total = closing.total();
                if opening + minor != total {
                    return Err(ReadError::StatementDiffers { creator: creator.clone(), currency });
                }
                let line = |line: StatementLine| CreatorLine {
                    line: line.as_str().to_owned(),
                    amount_minor: 0.into(),
                    entries: 0,
                    kinds: Vec::new(),
                };
                currencies.push(CreatorCurrency {
                    currency,
                    opening_minor: opening.into(),
                    lines: StatementLine::ALL.map(line).into(),
                    closing_minor: total.into(),
                    closing: closing.on_the_wire(),
                    entries,
                });
            }
            Of::Line => {
                if let Some(known) = line_of(&mut currencies, line) {
                    known.amount_minor = minor.into();
                    known.entries = entries;
                }
            }
            Of::Kind(kind) => {
                // Of a kind that was only there before, the opening balance tells.
                if let Some(known) = line_of(&mut currencies, line).filter(|_| entries > 0) {
                    known.kinds.push(CreatorKind { kind, amount_minor: minor.into(), entries });
                }
            }
        }
    }
    Ok(currencies)
}

fn line_of<M>(currencies: &mut [CreatorCurrency<M>], line: Option<StatementLine>) -> Option<&mut CreatorLine<M>> {
    let line = line?.as_str();
    currencies.last_mut()?.lines.iter_mut().find(|known| known.line == line)
}
