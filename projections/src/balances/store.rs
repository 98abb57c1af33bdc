//! What a [`Fold`] reads from the tables of `balances`, and writes there.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::fold::{AccountLines, Fold, Line};
use super::{FANOUT, LEVELS};
use crate::copy::Rows;

const LINES: &str = "balance_lines (account, currency, segment, positions, occurred, effective, recorded, amounts)";
const NODES: &str = "balance_nodes (account, currency, level, number, position_first, position_last, occurred_first, \
     occurred_last, effective_first, effective_last, recorded_first, recorded_last, debits, credits)";

/// Names of rows: an account, its currency, and the number of a segment or node.
#[derive(Default)]
struct Names {
    accounts: Vec<String>,
    currencies: Vec<String>,
    numbers: Vec<i64>,
}

impl Names {
    fn push(&mut self, (account, currency): (&str, &str), number: i64) {
        self.accounts.push(account.to_owned());
        self.currencies.push(currency.to_owned());
        self.numbers.push(number);
    }
}

impl Fold {
    /// Writes the segments that are complete, with their nodes.
    pub(super) async fn write_segments(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.read(connection).await?;
        let (mut lines, mut nodes) = (Rows::of(8), Rows::of(14));
        let (mut replaced, mut parents) = (Names::default(), Names::default());
        for &number in &self.changed {
            let Some(account) = self.accounts.get_mut(number).filter(|account| account.open.len() >= FANOUT) else {
                continue;
            };
            let Some((name, currency)) = self.names.get(number) else { continue };
            let names = (name.as_str(), currency.as_str());
            if std::mem::take(&mut account.open_is_stored) {
                replaced.push(names, account.segment);
            }
            let complete = account.open.len() / FANOUT * FANOUT;
            for segment in account.open.drain(..complete).as_slice().chunks(FANOUT) {
                push_lines(&mut lines, names, account.segment, segment);
                push_node(&mut nodes, names, account.segment, segment);
                account.segment += 1;
                if account.segment % FANOUT as i64 == 0 {
                    parents.push(names, account.segment / FANOUT as i64 - 1);
                }
            }
        }
        delete(replaced, connection).await?;
        lines.write(LINES, connection).await?;
        nodes.write(NODES, connection).await?;
        write_parents(parents, connection).await
    }

    /// Writes what changes with every line: the open segments and the totals.
    pub(super) async fn write_rest(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut lines = Rows::of(8);
        let mut replaced = Names::default();
        for &number in &self.changed {
            let Some(account) = self.accounts.get_mut(number) else { continue };
            let Some((name, currency)) = self.names.get(number) else { continue };
            let names = (name.as_str(), currency.as_str());
            if std::mem::replace(&mut account.open_is_stored, !account.open.is_empty()) {
                replaced.push(names, account.segment);
            }
            if !account.open.is_empty() {
                push_lines(&mut lines, names, account.segment, &account.open);
            }
        }
        delete(replaced, connection).await?;
        lines.write(LINES, connection).await?;
        self.write_totals(connection).await?;
        self.settle();
        Ok(())
    }

    /// What the tables hold of the keys that are new here.
    async fn read(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let is_unread = |number: &usize| self.accounts.get(*number).is_some_and(|account| !account.is_read);
        let unread: Vec<usize> = self.changed.iter().copied().filter(is_unread).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let (accounts, currencies): (Vec<_>, Vec<_>) = unread.iter().map(|number| self.name(*number)).unzip();
        // OFFSET 0 keeps the planner at one probe per key: the tables are large, and it knows nothing of them while they are new.
        let rows = sqlx::query(
            "SELECT d.number, t.lines, l.positions, l.occurred, l.effective, l.recorded, l.amounts
             FROM unnest($1::text[], $2::text[], $3::bigint[]) AS d (account, currency, number)
             CROSS JOIN LATERAL (
                 SELECT t.lines FROM balance_totals AS t WHERE t.account = d.account AND t.currency = d.currency OFFSET 0) AS t
             LEFT JOIN LATERAL (
                 SELECT l.* FROM balance_lines AS l
                 WHERE l.account = d.account AND l.currency = d.currency AND l.segment = t.lines / $4 OFFSET 0) AS l ON true",
        )
        .bind(accounts)
        .bind(currencies)
        .bind(unread.iter().map(|number| *number as i64).collect::<Vec<_>>())
        .bind(FANOUT as i64)
        .fetch_all(connection)
        .await?;
        for row in &rows {
            let number = usize::try_from(row.try_get::<i64, _>("number")?).unwrap_or(usize::MAX);
            let Some(account) = self.accounts.get_mut(number) else { continue };
            account.segment = row.try_get::<i64, _>("lines")? / FANOUT as i64;
            let stored = stored_lines(row)?;
            account.open_is_stored = !stored.is_empty();
            account.open.splice(0..0, stored);
        }
        for number in unread {
            if let Some(account) = self.accounts.get_mut(number) {
                account.is_read = true;
            }
        }
        Ok(())
    }

    async fn write_totals(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Some(firsts) = &self.firsts else { return Ok(()) };
        let (accounts, currencies): (Vec<_>, Vec<_>) = self.changed.iter().map(|number| self.name(*number)).unzip();
        let changed = || self.changed.iter().filter_map(|number| self.accounts.get(*number));
        let time = |micros| DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
        // Sums go as text: sqlx has no i128, and text is exact.
        sqlx::query(
            "WITH firsts AS (
                 INSERT INTO balance_firsts AS f (only_row, position, occurred, effective, recorded) VALUES (true, $6, $7, $8, $9)
                 ON CONFLICT (only_row) DO UPDATE
                 SET occurred = least(f.occurred, excluded.occurred), effective = least(f.effective, excluded.effective)
                 WHERE excluded.occurred < f.occurred OR excluded.effective < f.effective
             )
             INSERT INTO balance_totals AS t (account, currency, debits, credits, lines)
             SELECT d.account, d.currency, d.debits::numeric(38), d.credits::numeric(38), d.lines
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS d (account, currency, debits, credits, lines)
             ON CONFLICT (account, currency) DO UPDATE
             SET debits = t.debits + excluded.debits, credits = t.credits + excluded.credits, lines = excluded.lines",
        )
        .bind(accounts)
        .bind(currencies)
        .bind(changed().map(|account| account.debits.to_string()).collect::<Vec<_>>())
        .bind(changed().map(|account| account.credits.to_string()).collect::<Vec<_>>())
        .bind(changed().map(AccountLines::count).collect::<Vec<_>>())
        .bind(firsts.position)
        .bind(time(firsts.occurred))
        .bind(time(firsts.effective))
        .bind(time(firsts.recorded))
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn stored_lines(row: &PgRow) -> Result<Vec<Line>, sqlx::Error> {
    let Some(positions) = row.try_get::<Option<Vec<i64>>, _>("positions")? else { return Ok(Vec::new()) };
    let column = |name: &str| row.try_get::<Vec<i64>, _>(name);
    let (occurred, effective) = (column("occurred")?, column("effective")?);
    let (recorded, amounts) = (column("recorded")?, column("amounts")?);
    let lines = positions.into_iter().zip(occurred).zip(effective).zip(recorded).zip(amounts);
    Ok(lines
        .map(|((((position, occurred), effective), recorded), amount)| Line {
            position,
            occurred,
            effective,
            recorded,
            amount,
        })
        .collect())
}

fn push_lines(rows: &mut Rows, (account, currency): (&str, &str), segment: i64, lines: &[Line]) {
    rows.begin()
        .text(account)
        .text(currency)
        .bigint(segment)
        .bigints(lines.iter().map(|line| line.position))
        .bigints(lines.iter().map(|line| line.occurred))
        .bigints(lines.iter().map(|line| line.effective))
        .bigints(lines.iter().map(|line| line.recorded))
        .bigints(lines.iter().map(|line| line.amount));
}

fn push_node(rows: &mut Rows, (account, currency): (&str, &str), segment: i64, lines: &[Line]) {
    let least = |of: fn(&Line) -> i64| lines.iter().map(of).min().unwrap_or_default();
    let greatest = |of: fn(&Line) -> i64| lines.iter().map(of).max().unwrap_or_default();
    let sum = |sign: i64| lines.iter().map(|line| i128::from((line.amount * sign).max(0))).sum();
    rows.begin()
        .text(account)
        .text(currency)
        .smallint(1)
        .bigint(segment)
        .bigint(least(|line| line.position))
        .bigint(greatest(|line| line.position))
        .bigint(least(|line| line.occurred))
        .bigint(greatest(|line| line.occurred))
        .bigint(least(|line| line.effective))
        .bigint(greatest(|line| line.effective))
        .bigint(least(|line| line.recorded))
        .bigint(greatest(|line| line.recorded))
        .numeric(sum(1))
        .numeric(sum(-1));
}

/// Takes away rows of open segments that are about to be written again.
async fn delete(segments: Names, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if segments.numbers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        // By address, which leaves the planner no choice but one probe each: the table is large, and while it is new the planner
        // knows nothing of it.
        "DELETE FROM balance_lines WHERE ctid = ANY (ARRAY(
             SELECT l.ctid FROM unnest($1::text[], $2::text[], $3::bigint[]) AS d (account, currency, segment)
             CROSS JOIN LATERAL (
                 SELECT l.ctid FROM balance_lines AS l
                 WHERE l.account = d.account AND l.currency = d.currency AND l.segment = d.segment OFFSET 0) AS l))",
    )
    .bind(segments.accounts)
    .bind(segments.currencies)
    .bind(segments.numbers)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes nodes of the second level, whose children are there, and those above that they complete.
async fn write_parents(mut parents: Names, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for level in 2..=LEVELS {
        if parents.numbers.is_empty() {
            return Ok(());
        }
        sqlx::query(&format!(
            "INSERT INTO {NODES}
             SELECT d.account, d.currency, $4::smallint, d.number,
                    c.position_first, c.position_last, c.occurred_first, c.occurred_last,
                    c.effective_first, c.effective_last, c.recorded_first, c.recorded_last, c.debits, c.credits
             FROM unnest($1::text[], $2::text[], $3::bigint[]) AS d (account, currency, number)
             CROSS JOIN LATERAL (
                 -- An aggregate is not pulled up: one range of the index for each.
                 SELECT min(c.position_first), max(c.position_last), min(c.occurred_first), max(c.occurred_last),
                        min(c.effective_first), max(c.effective_last), min(c.recorded_first), max(c.recorded_last),
                        sum(c.debits), sum(c.credits)
                 FROM balance_nodes AS c
                 WHERE c.account = d.account AND c.currency = d.currency AND c.level = $4::smallint - 1::smallint
                   AND c.number >= d.number * $5 AND c.number < (d.number + 1) * $5)
                 AS c (position_first, position_last, occurred_first, occurred_last, effective_first, effective_last,
                       recorded_first, recorded_last, debits, credits)",
        ))
        .bind(&parents.accounts)
        .bind(&parents.currencies)
        .bind(&parents.numbers)
        .bind(level)
        .bind(FANOUT as i64)
        .execute(&mut *connection)
        .await?;
        let mut above = Names::default();
        for ((account, currency), number) in parents.accounts.into_iter().zip(parents.currencies).zip(parents.numbers) {
            if (number + 1) % FANOUT as i64 == 0 {
                above.accounts.push(account);
                above.currencies.push(currency);
                above.numbers.push((number + 1) / FANOUT as i64 - 1);
            }
        }
        parents = above;
    }
    Ok(())
}
