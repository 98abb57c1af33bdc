//! `suspense`: open money in suspense, per account (which names the reason), object and currency, with its age.
//!
//! The object is the one whose books the entry is of; of an entry by hand that clears another's suspense, that one, so that what
//! was moved is gone from the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::account::Account;
use fanledger_domain::entry::EntryPosted;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::{PgConnection, Row};

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Suspense;

const CREATE: &str = r#"
-- Only what is open has a row. `balance` is debits minus credits; `since` is the earliest occurrence among the entries since
-- it was last zero.
CREATE TABLE suspense (
    account       text COLLATE "C" NOT NULL,
    object        text COLLATE "C" NOT NULL,
    currency      text COLLATE "C" NOT NULL,
    balance       numeric(38) NOT NULL CHECK (balance <> 0),
    since         timestamptz NOT NULL,
    last_position bigint NOT NULL,
    PRIMARY KEY (account, object, currency)
);
CREATE INDEX suspense_since ON suspense (since, account, object, currency);
"#;

/// Account, object, currency.
type Key = (String, String, String);

/// Money that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    balance: i128,
    since: DateTime<Utc>,
    last_position: Position,
}

#[async_trait]
impl Projection for Suspense {
    fn name(&self) -> &'static str {
        "suspense"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["suspense"] }
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
        let mut moves = Vec::new();
        for recorded in batch {
            let entry = decode::entry(recorded)?;
            let at = entry.occurred_at.to_chrono();
            moves.extend(deltas(&entry).into_iter().map(|(key, delta)| (key, recorded.position, at, delta)));
        }
        if moves.is_empty() {
            return Ok(());
        }
        // Where money was cleared and came again, its age begins anew. That depends on each entry in turn, so what is there
        // is read first; sums alone would depend on where batches end.
        let mut state = load(moves.iter().map(|(key, ..)| key), connection).await?;
        for (key, position, at, delta) in moves {
            let open = state.entry(key).or_default();
            *open = step(*open, position, at, delta);
        }
        write(&state, connection).await?;
        Ok(())
    }
}

/// What one entry does to suspense.
fn deltas(entry: &EntryPosted) -> BTreeMap<Key, i128> {
    let mut deltas = BTreeMap::new();
    for posting in entry.postings.iter().filter(|posting| matches!(posting.account, Account::Suspense(_))) {
        let key = (
            posting.account.to_string(),
            entry.cause.suspense_object().to_string(),
            posting.money.currency().to_string(),
        );
        *deltas.entry(key).or_default() += i128::from(posting.signed_minor());
    }
    deltas
}

fn step(open: Option<Open>, position: Position, at: DateTime<Utc>, delta: i128) -> Option<Open> {
    let balance = open.map_or(0, |open| open.balance) + delta;
    let since = open.map_or(at, |open| open.since.min(at));
    (balance != 0).then_some(Open { balance, since, last_position: position })
}

async fn load<'a>(
    keys: impl Iterator<Item = &'a Key>,
    connection: &mut PgConnection,
) -> Result<BTreeMap<Key, Option<Open>>, ApplyError> {
    let mut state: BTreeMap<Key, Option<Open>> = keys.map(|key| (key.clone(), None)).collect();
    let (accounts, objects, currencies) = columns(state.keys());
    let rows = sqlx::query(
        "SELECT s.account, s.object, s.currency, s.balance::text AS balance, s.since, s.last_position
         FROM suspense AS s JOIN unnest($1::text[], $2::text[], $3::text[]) AS d (account, object, currency) USING (account, object, currency)",
    )
    .bind(accounts)
    .bind(objects)
    .bind(currencies)
    .fetch_all(connection)
    .await?;
    for row in rows {
        let balance: String = row.try_get("balance")?;
        let balance = balance
            .parse()
            .map_err(|error| sqlx::Error::ColumnDecode { index: "balance".to_owned(), source: Box::new(error) })?;
        let open = Open {
            balance,
            since: row.try_get("since")?,
            last_position: Position::from_i64(row.try_get("last_position")?),
        };
        state.insert((row.try_get("account")?, row.try_get("object")?, row.try_get("currency")?), Some(open));
    }
    Ok(state)
}

fn columns<'a>(keys: impl Iterator<Item = &'a Key>) -> (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for (account, object, currency) in keys {
        columns.0.push(account.as_str());
        columns.1.push(object.as_str());
        columns.2.push(currency.as_str());
    }
    columns
}

async fn write(state: &BTreeMap<Key, Option<Open>>, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (accounts, objects, currencies) = columns(state.iter().filter(|(_, open)| open.is_none()).map(|(key, _)| key));
    sqlx::query(
        "DELETE FROM suspense AS s USING unnest($1::text[], $2::text[], $3::text[]) AS d (account, object, currency)
         WHERE s.account = d.account AND s.object = d.object AND s.currency = d.currency",
    )
    .bind(accounts)
    .bind(objects)
    .bind(currencies)
    .execute(&mut *connection)
    .await?;

    let (keys, open): (Vec<_>, Vec<_>) = state.iter().filter_map(|(key, open)| open.map(|open| (key, open))).unzip();
    let (accounts, objects, currencies) = columns(keys.into_iter());
    sqlx::query(
        "INSERT INTO suspense (account, object, currency, balance, since, last_position)
         SELECT d.account, d.object, d.currency, d.balance::numeric(38), d.since, d.last_position
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
             AS d (account, object, currency, balance, since, last_position)
         ON CONFLICT (account, object, currency)
         DO UPDATE SET balance = excluded.balance, since = excluded.since, last_position = excluded.last_position",
    )
    .bind(accounts)
    .bind(objects)
    .bind(currencies)
    .bind(open.iter().map(|open| open.balance.to_string()).collect::<Vec<_>>())
    .bind(open.iter().map(|open| open.since).collect::<Vec<_>>())
    .bind(open.iter().map(|open| open.last_position.as_i64()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_begins_anew_after_zero_and_reaches_back_for_late_facts() {
        let at = |day: u32| format!("2026-01-{day:02}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
        let open = step(None, Position::new(1), at(10), -100);
        let open = step(open, Position::new(2), at(5), -20);
        assert_eq!(open, Some(Open { balance: -120, since: at(5), last_position: Position::new(2) }));
        let cleared = step(open, Position::new(3), at(10), 120);
        assert_eq!(cleared, None);
        assert_eq!(step(cleared, Position::new(4), at(12), -7).unwrap().since, at(12));
        assert_eq!(step(None, Position::new(5), at(1), 0), None);
    }
}
