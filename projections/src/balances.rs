//! `balances`: exact balances as of any instant by occurrence, booking or recording, and by position, at any size.
//!
//! Sums are kept per account and currency in buckets of a month, a day and an hour on each of the three axes of time. As of an
//! instant is then: whole months before its month, whole days of the month before its day, whole hours of the day before its
//! hour, and the lines of its hour up to it. A fact that comes late touches three buckets per axis, whatever its age. As of a
//! position is the same on the axis of recording, since positions and recording times ascend together, with the lines of the
//! position's hour up to it.
//!
//! The lines are kept here, beside those of `postings`, so that one checkpoint covers the whole answer: sums at one position
//! and lines at another would add up to a balance that never was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use fanledger_domain::account::Account;
use fanledger_domain::entry::{EntryPosted, Side};
use fanledger_domain::money::Currency;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Balances;

const CREATE: &str = r#"
-- Everything up to the checkpoint. Rewritten with each batch that touches the account, so room is left for heap-only updates.
CREATE TABLE balance_totals (
    account  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    debits   numeric(38) NOT NULL,
    credits  numeric(38) NOT NULL,
    PRIMARY KEY (account, currency)
) WITH (fillfactor = 50);

-- The bucket comes before the account: a trial balance reads ranges of buckets, one account probes each of at most a few
-- hundred, and new rows go to the end of the index. A table per grain: among the many rows of hours, the few of months, which
-- every question reads, would lie one to a page.
CREATE TABLE balance_sums (
    axis     text COLLATE "C" NOT NULL CHECK (axis IN ('occurred', 'effective', 'recorded')),
    grain    text COLLATE "C" NOT NULL,
    bucket   timestamptz NOT NULL,
    account  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    debits   numeric(38) NOT NULL,
    credits  numeric(38) NOT NULL,
    PRIMARY KEY (axis, grain, bucket, account, currency)
) PARTITION BY LIST (grain);
CREATE TABLE balance_sums_month PARTITION OF balance_sums FOR VALUES IN ('month') WITH (fillfactor = 70);
CREATE TABLE balance_sums_day PARTITION OF balance_sums FOR VALUES IN ('day') WITH (fillfactor = 70);
CREATE TABLE balance_sums_hour PARTITION OF balance_sums FOR VALUES IN ('hour') WITH (fillfactor = 70);

-- What one entry did to one account in one currency. The axis of recording needs no index of its own: it is the primary
-- key's order, entered by balance_hours.
CREATE TABLE balance_lines (
    account      text COLLATE "C" NOT NULL,
    currency     text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    occurred_at  timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    debits       numeric(38) NOT NULL,
    credits      numeric(38) NOT NULL,
    PRIMARY KEY (account, currency, position)
);
CREATE INDEX balance_lines_occurred ON balance_lines (account, currency, occurred_at);
CREATE INDEX balance_lines_effective ON balance_lines (account, currency, effective_at);

-- The first entry's position in each hour of recording in which there was one.
CREATE TABLE balance_hours (
    hour           timestamptz PRIMARY KEY,
    first_position bigint NOT NULL UNIQUE
);

-- The first instant on each axis: a question about the time before it has no answer.
CREATE TABLE balance_firsts (
    axis     text COLLATE "C" PRIMARY KEY,
    first_at timestamptz NOT NULL
);
"#;

#[async_trait]
impl Projection for Balances {
    fn name(&self) -> &'static str {
        "balances"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema {
            create: CREATE,
            views: &["balance_totals", "balance_sums", "balance_lines", "balance_hours", "balance_firsts"],
        }
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == decode::ENTRY_POSTED
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut fold = Fold::default();
        for recorded in batch {
            fold.add(recorded.position, recorded.recorded_at, &decode::entry(recorded)?);
        }
        fold.write(connection).await?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Occurred,
    Effective,
    Recorded,
}

impl Axis {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Occurred => "occurred",
            Self::Effective => "effective",
            Self::Recorded => "recorded",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grain {
    Month,
    Day,
    Hour,
}

impl Grain {
    const ALL: [Self; 3] = [Self::Month, Self::Day, Self::Hour];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// The start of the bucket that holds `at`, in UTC. Unix time has no leap seconds, so days and hours are of one length,
    /// also before 1970.
    fn start(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let since = |length: TimeDelta| {
            let length = length.num_seconds();
            let micros = at.timestamp().rem_euclid(length) * 1_000_000 + i64::from(at.timestamp_subsec_micros());
            at - TimeDelta::microseconds(micros)
        };
        match self {
            Self::Hour => since(TimeDelta::hours(1)),
            Self::Day => since(TimeDelta::days(1)),
            Self::Month => since(TimeDelta::days(1)) - TimeDelta::days(i64::from(at.day0())),
        }
    }
}

/// A posting is at most 2^53 − 1 and a batch holds thousands of them, so these sums stay far below i128's bounds.
#[derive(Clone, Copy, Debug, Default)]
struct Turnover {
    debits: i128,
    credits: i128,
}

impl Turnover {
    fn add(&mut self, other: Self) {
        self.debits += other.debits;
        self.credits += other.credits;
    }
}

/// An account and a currency, by their number in [`Fold::keys`].
type Key = usize;

struct Line {
    key: Key,
    position: Position,
    /// In the order of [`Axis`].
    times: [DateTime<Utc>; 3],
    turnover: Turnover,
}

/// A batch, summed up.
#[derive(Default)]
struct Fold {
    keys: Vec<(String, String)>,
    numbers: HashMap<(Account, Currency), Key>,
    totals: BTreeMap<Key, Turnover>,
    sums: BTreeMap<(Axis, Grain, DateTime<Utc>, Key), Turnover>,
    lines: Vec<Line>,
    hours: BTreeMap<DateTime<Utc>, Position>,
    firsts: BTreeMap<Axis, DateTime<Utc>>,
}

impl Fold {
    fn add(&mut self, position: Position, recorded_at: DateTime<Utc>, entry: &EntryPosted) {
        let times = [entry.occurred_at.to_chrono(), entry.effective_at.to_chrono(), recorded_at];
        let axes = [Axis::Occurred, Axis::Effective, Axis::Recorded];
        let mut by_key: BTreeMap<Key, Turnover> = BTreeMap::new();
        for posting in &entry.postings {
            let minor = i128::from(posting.money.minor());
            by_key.entry(self.key(&posting.account, posting.money.currency())).or_default().add(match posting.side {
                Side::Debit => Turnover { debits: minor, credits: 0 },
                Side::Credit => Turnover { debits: 0, credits: minor },
            });
        }
        for (axis, at) in axes.into_iter().zip(times) {
            let first = self.firsts.entry(axis).or_insert(at);
            *first = at.min(*first);
            for grain in Grain::ALL {
                let bucket = grain.start(at);
                for (key, turnover) in &by_key {
                    self.sums.entry((axis, grain, bucket, *key)).or_default().add(*turnover);
                }
            }
        }
        self.hours.entry(Grain::Hour.start(recorded_at)).or_insert(position);
        for (key, turnover) in by_key {
            self.totals.entry(key).or_default().add(turnover);
            self.lines.push(Line { key, position, times, turnover });
        }
    }

    fn key(&mut self, account: &Account, currency: Currency) -> Key {
        let keys = &mut self.keys;
        *self.numbers.entry((account.clone(), currency)).or_insert_with(|| {
            keys.push((account.to_string(), currency.to_string()));
            keys.len() - 1
        })
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.write_totals(connection).await?;
        self.write_sums(connection).await?;
        self.write_lines(connection).await?;
        self.write_bounds(connection).await
    }

    fn names(&self, keys: impl Iterator<Item = Key>) -> (Vec<&str>, Vec<&str>) {
        keys.filter_map(|key| self.keys.get(key))
            .map(|(account, currency)| (account.as_str(), currency.as_str()))
            .unzip()
    }

    async fn write_totals(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (accounts, currencies) = self.names(self.totals.keys().copied());
        let (debits, credits) = texts(self.totals.values());
        sqlx::query(
            "INSERT INTO balance_totals AS t (account, currency, debits, credits)
             SELECT d.account, d.currency, d.debits::numeric(38), d.credits::numeric(38)
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS d (account, currency, debits, credits)
             ON CONFLICT (account, currency) DO UPDATE SET debits = t.debits + excluded.debits, credits = t.credits + excluded.credits",
        )
        .bind(accounts)
        .bind(currencies)
        .bind(debits)
        .bind(credits)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn write_sums(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (accounts, currencies) = self.names(self.sums.keys().map(|(_, _, _, key)| *key));
        let (debits, credits) = texts(self.sums.values());
        sqlx::query(
            "INSERT INTO balance_sums AS s (axis, grain, bucket, account, currency, debits, credits)
             SELECT d.axis, d.grain, d.bucket, d.account, d.currency, d.debits::numeric(38), d.credits::numeric(38)
             FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[])
                 AS d (axis, grain, bucket, account, currency, debits, credits)
             ON CONFLICT (axis, grain, bucket, account, currency)
             DO UPDATE SET debits = s.debits + excluded.debits, credits = s.credits + excluded.credits",
        )
        .bind(self.sums.keys().map(|(axis, ..)| axis.as_str()).collect::<Vec<_>>())
        .bind(self.sums.keys().map(|(_, grain, ..)| grain.as_str()).collect::<Vec<_>>())
        .bind(self.sums.keys().map(|(_, _, bucket, _)| *bucket).collect::<Vec<_>>())
        .bind(accounts)
        .bind(currencies)
        .bind(debits)
        .bind(credits)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn write_lines(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (accounts, currencies) = self.names(self.lines.iter().map(|line| line.key));
        let (debits, credits) = texts(self.lines.iter().map(|line| &line.turnover));
        let [occurred, effective, recorded] =
            [0, 1, 2].map(|axis| self.lines.iter().map(|line| line.times[axis]).collect::<Vec<_>>());
        sqlx::query(
            "INSERT INTO balance_lines (account, currency, position, occurred_at, effective_at, recorded_at, debits, credits)
             SELECT d.account, d.currency, d.position, d.occurred_at, d.effective_at, d.recorded_at,
                    d.debits::numeric(38), d.credits::numeric(38)
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[])
                 AS d (account, currency, position, occurred_at, effective_at, recorded_at, debits, credits)",
        )
        .bind(accounts)
        .bind(currencies)
        .bind(self.lines.iter().map(|line| line.position.as_i64()).collect::<Vec<_>>())
        .bind(occurred)
        .bind(effective)
        .bind(recorded)
        .bind(debits)
        .bind(credits)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn write_bounds(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO balance_hours (hour, first_position)
             SELECT d.hour, d.first_position FROM unnest($1::timestamptz[], $2::bigint[]) AS d (hour, first_position)
             ON CONFLICT (hour) DO NOTHING",
        )
        .bind(self.hours.keys().copied().collect::<Vec<_>>())
        .bind(self.hours.values().map(|position| position.as_i64()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO balance_firsts AS f (axis, first_at)
             SELECT d.axis, d.first_at FROM unnest($1::text[], $2::timestamptz[]) AS d (axis, first_at)
             ON CONFLICT (axis) DO UPDATE SET first_at = excluded.first_at WHERE excluded.first_at < f.first_at",
        )
        .bind(self.firsts.keys().map(|axis| axis.as_str()).collect::<Vec<_>>())
        .bind(self.firsts.values().copied().collect::<Vec<_>>())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// As text: sqlx has no i128, and text is exact.
fn texts<'a>(turnovers: impl Iterator<Item = &'a Turnover>) -> (Vec<String>, Vec<String>) {
    turnovers.map(|turnover| (turnover.debits.to_string(), turnover.credits.to_string())).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_start_where_the_calendar_says() {
        let cases = [
            ("2024-02-29T23:59:59.999999Z", "2024-02-01T00:00:00Z", "2024-02-29T00:00:00Z", "2024-02-29T23:00:00Z"),
            ("2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("1969-12-31T23:00:00.000001Z", "1969-12-01T00:00:00Z", "1969-12-31T00:00:00Z", "1969-12-31T23:00:00Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.5Z", "9999-12-01T00:00:00Z", "9999-12-31T00:00:00Z", "9999-12-31T23:00:00Z"),
        ];
        for (at, month, day, hour) in cases {
            let parse = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
            let starts = Grain::ALL.map(|grain| grain.start(parse(at)));
            assert_eq!(starts, [month, day, hour].map(parse), "{at}");
        }
    }
}
