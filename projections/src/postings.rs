//! `postings`: the lines of statements, in the order of any of the three times.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::event::DecodeError;
use fanledger_domain::id::{EntryId, IdError, StripeId};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::load::{Loader, Page};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use serde::Deserialize;
use sqlx::PgConnection;

use crate::ahead::Ahead;
use crate::copy::Rows;
use crate::decode::{self, Keys, Move, Payload, PostingError};

/// See the module.
#[derive(Debug)]
pub struct Postings;

const CREATE: &str = r#"
-- `line` is the posting's number within its entry, from 1. `object` is the entry's; of a line of suspense, whose suspense it is.
CREATE TABLE postings (
    account      text COLLATE "C" NOT NULL,
    currency     text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    line         integer NOT NULL,
    entry_id     text COLLATE "C" NOT NULL,
    side         text COLLATE "C" NOT NULL CHECK (side IN ('debit', 'credit')),
    amount       bigint NOT NULL CHECK (amount > 0),
    occurred_at  timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    description  text NOT NULL,
    object       text COLLATE "C" NOT NULL,
    stripe_event text COLLATE "C"
);
"#;

/// Each is an order of statements, page by page; that of recording is the primary key's. Sorted in memory as far as it goes.
const INDEXES: &str = "
SET LOCAL maintenance_work_mem = '256MB';
ALTER TABLE postings ADD PRIMARY KEY (account, currency, position, line);
CREATE INDEX postings_occurred ON postings (account, currency, occurred_at, position, line);
CREATE INDEX postings_effective ON postings (account, currency, effective_at, position, line);
";

/// What the accounts of suspense begin with.
const SUSPENSE: &str = "liabilities:suspense:";

const TABLE: &str = "postings (account, currency, position, line, entry_id, side, amount, occurred_at, effective_at, recorded_at, \
     description, object, stripe_event)";

#[async_trait]
impl Projection for Postings {
    fn name(&self) -> &'static str {
        "postings"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["postings"] }
    }

    fn indexes(&self) -> &'static str {
        INDEXES
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        Some(Box::new(Loading::default()))
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
        let entries = batch.iter().map(|recorded| Payload::from(recorded.as_ref()));
        lines(&mut Keys::default(), entries)?.write(TABLE, connection).await?;
        Ok(())
    }
}

/// What of an entry a statement shows, borrowed from its bytes.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    entry_id: Cow<'a, str>,
    #[serde(borrow)]
    cause: Cause<'a>,
    #[serde(borrow)]
    description: Cow<'a, str>,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    effective_at: Cow<'a, str>,
    #[serde(borrow)]
    postings: Vec<Move<'a>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow, default)]
    stripe_event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    clears: Option<Cow<'a, str>>,
}

/// Why there are no lines of an entry.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("read the entry's ids")]
    Id(#[from] IdError),
    #[error("read the entry's times")]
    Time(#[from] TimestampError),
    #[error(transparent)]
    Posting(#[from] PostingError),
}

/// The rows of some entries.
fn lines<'a>(keys: &mut Keys, entries: impl Iterator<Item = Payload<'a>>) -> Result<Rows, ApplyError> {
    let mut rows = Rows::of(13);
    for payload in entries {
        push(&mut rows, keys, &payload).map_err(|error| ApplyError::poison(payload.position, error))?;
    }
    Ok(rows)
}

/// The same in a load, whose accounts are as many as there are creators: what is remembered of the pages before has a bound.
fn lines_of_page<'a>(keys: &mut Keys, entries: impl Iterator<Item = Payload<'a>>) -> Result<Rows, ApplyError> {
    if keys.is_large() {
        *keys = Keys::default();
    }
    lines(keys, entries)
}

fn push(rows: &mut Rows, keys: &mut Keys, payload: &Payload<'_>) -> Result<(), EntryError> {
    let entry: Entry<'_> = payload.read()?;
    let entry_id: EntryId = entry.entry_id.parse()?;
    let object: StripeId = entry.cause.object.parse()?;
    let clears = entry.cause.clears.map(|id| id.parse::<StripeId>()).transpose()?;
    let stripe_event = entry.cause.stripe_event.map(|id| id.parse::<StripeId>()).transpose()?;
    let occurred_at: Timestamp = entry.occurred_at.parse()?;
    let effective_at: Timestamp = entry.effective_at.parse()?;
    // As `Cause::suspense_object` has it.
    let suspense_object = clears.as_ref().unwrap_or(&object);
    for (line, posting) in (1..).zip(&entry.postings) {
        posting.signed_minor()?;
        let number = keys.number(posting)?;
        let Some((account, currency)) = keys.names().get(number) else { continue };
        rows.begin()
            .text(account)
            .text(currency)
            .bigint(payload.position.as_i64())
            .integer(line)
            .text(entry_id.as_str())
            .text(posting.side.as_str())
            .bigint(posting.minor)
            .time(occurred_at.as_unix_micros())
            .time(effective_at.as_unix_micros())
            .time(payload.recorded_micros)
            .text(&entry.description)
            .text(if account.starts_with(SUSPENSE) { suspense_object } else { &object }.as_str())
            .optional_text(stripe_event.as_ref().map(StripeId::as_str));
    }
    Ok(())
}

/// A load under way: the rows of one page are made while those of the one before are written.
#[derive(Default)]
struct Loading {
    ahead: Ahead<Keys, Rows>,
}

impl Loading {
    async fn advance(&mut self, page: Option<Page>, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let read = |keys: &mut Keys, page: &Page| lines_of_page(keys, page.events().map(Payload::from));
        if let Some(mut rows) = self.ahead.next(page, read).await? {
            rows.write(TABLE, connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Loader for Loading {
    async fn load(&mut self, page: Page, connection: &mut PgConnection) -> Result<(), ApplyError> {
        self.advance(Some(page), connection).await
    }

    async fn flush(&mut self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        self.advance(None, connection).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::made;

    #[test]
    fn what_a_load_remembers_of_accounts_has_a_bound() {
        let mut known = Keys::default();
        let first: Vec<String> = (0..made::CREATORS).map(made::entry_of).collect();
        lines_of_page(&mut known, made::payloads(&first)).unwrap();
        assert_eq!(known.names().len(), 2 * made::CREATORS);
        lines_of_page(&mut known, made::payloads(&[made::entry_of(made::CREATORS)])).unwrap();
        assert_eq!(known.names().len(), 2, "what was met before is forgotten");
    }
}
