//! `creator_activity`: what each entry means to each creator, line by line of their statements; and what each creator has.
//!
//! An entry says itself what it means to creators; what it moves on their accounts beyond that (finance's own entries say
//! nothing) is an adjustment. So the rows of a creator and currency always add up to the balances of their accounts, and an
//! entry that only moves money between a creator's own accounts has none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::account::{Account, AccountError, Bucket};
use fanledger_domain::entry::StatementLine;
use fanledger_domain::event::DecodeError;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::{CreatorId, EntryId, IdError, StripeId};
use fanledger_domain::money::{Currency, MoneyError};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::load::{Loader, Page};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use serde::Deserialize;
use sqlx::PgConnection;

use crate::ahead::Ahead;
use crate::copy;
use crate::decode::{self, Keys, Move, Payload, PostingError};

/// See the module.
#[derive(Debug)]
pub struct CreatorActivity;

const CREATE: &str = r#"
-- `item` is the row's number within its entry, from 1. `minor` is in the creator's favour where positive. `kind` is null where
-- it is about no payment.
CREATE TABLE creator_activity (
    creator      text COLLATE "C" NOT NULL,
    currency     text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    item         integer NOT NULL,
    line         text COLLATE "C" NOT NULL,
    kind         text COLLATE "C",
    minor        numeric(38) NOT NULL CHECK (minor <> 0),
    entry_id     text COLLATE "C" NOT NULL,
    occurred_at  timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    description  text NOT NULL,
    object       text COLLATE "C" NOT NULL,
    stripe_event text COLLATE "C"
);

-- Everything up to the checkpoint. The first three are owed to the creator, `receivable` is owed by them.
CREATE TABLE creator_balances (
    creator    text COLLATE "C" NOT NULL,
    currency   text COLLATE "C" NOT NULL,
    pending    numeric(38) NOT NULL,
    available  numeric(38) NOT NULL,
    held       numeric(38) NOT NULL,
    receivable numeric(38) NOT NULL,
    PRIMARY KEY (creator, currency)
) WITH (fillfactor = 50);
"#;

/// Each is an order of a statement's entries; that of recording is the primary key's.
const INDEXES: &str = "
ALTER TABLE creator_activity ADD PRIMARY KEY (creator, position, item);
CREATE INDEX creator_activity_occurred ON creator_activity (creator, occurred_at, position, item);
CREATE INDEX creator_activity_effective ON creator_activity (creator, effective_at, position, item);
";

const TABLE: &str = "creator_activity (creator, currency, position, item, line, kind, minor, entry_id, occurred_at, effective_at, \
     recorded_at, description, object, stripe_event)";

#[async_trait]
impl Projection for CreatorActivity {
    fn name(&self) -> &'static str {
        "creator_activity"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["creator_activity", "creator_balances"] }
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
        Found::read(&mut Accounts::default(), entries)?.write(connection).await?;
        Ok(())
    }
}

/// What of an entry is wanted, borrowed from its bytes.
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
    #[serde(borrow, default)]
    activity: Vec<Activity<'a>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow, default)]
    stripe_event: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Activity<'a> {
    #[serde(borrow)]
    creator: Cow<'a, str>,
    line: StatementLine,
    #[serde(default)]
    kind: Option<PaymentKind>,
    minor: i64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
}

/// Why an entry has no meaning to creators that could be told.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("read the entry's ids")]
    Id(#[from] IdError),
    #[error("read the entry's times")]
    Time(#[from] TimestampError),
    #[error("read an account")]
    Account(#[from] AccountError),
    #[error("read a currency")]
    Currency(#[from] MoneyError),
    #[error(transparent)]
    Posting(#[from] PostingError),
}

/// Which of a creator's accounts.
#[derive(Clone, Copy)]
enum Place {
    Pending,
    Available,
    Held,
    Receivable,
}

/// Whose account it is, if it is a creator's.
fn owner(account: Account) -> Option<(CreatorId, Place)> {
    if let Account::Creator(creator, bucket) = account {
        let place = match bucket {
            Bucket::Pending => Place::Pending,
            Bucket::Available => Place::Available,
            Bucket::Held => Place::Held,
        };
        Some((creator, place))
    } else if let Account::CreatorReceivable(creator) = account {
        Some((creator, Place::Receivable))
    } else {
        None
    }
}

/// Whose account each is, found out once.
#[derive(Default)]
struct Accounts {
    keys: Keys,
    /// By the number of account and currency.
    owners: Vec<Option<(Owned, Place)>>,
}

impl Accounts {
    /// The creator and currency that are posted to, and on which account.
    fn owner(&mut self, posting: &Move<'_>) -> Result<Option<&(Owned, Place)>, EntryError> {
        let number = self.keys.number(posting)?;
        for (account, currency) in self.keys.names().get(self.owners.len()..).unwrap_or_default() {
            let (account, currency) = (account.parse::<Account>()?, currency.parse::<Currency>()?);
            self.owners.push(owner(account).map(|(creator, place)| ((creator, currency), place)));
        }
        Ok(self.owners.get(number).and_then(Option::as_ref))
    }
}

/// A creator and currency.
type Owned = (CreatorId, Currency);

/// What creators have; the first three credits minus debits, the last debits minus credits.
#[derive(Clone, Copy, Default)]
struct Has {
    pending: i128,
    available: i128,
    held: i128,
    receivable: i128,
}

impl Has {
    /// Debits are positive.
    fn post(&mut self, place: Place, minor: i128) {
        match place {
            Place::Pending => self.pending -= minor,
            Place::Available => self.available -= minor,
            Place::Held => self.held -= minor,
            Place::Receivable => self.receivable += minor,
        }
    }

    fn add(&mut self, other: Self) {
        self.pending += other.pending;
        self.available += other.available;
        self.held += other.held;
        self.receivable += other.receivable;
    }

    fn total(self) -> i128 {
        self.pending + self.available + self.held - self.receivable
    }
}

/// What came of some entries.
struct Found {
    rows: copy::Rows,
    moved: BTreeMap<Owned, Has>,
}

impl Found {
    fn read<'a>(accounts: &mut Accounts, entries: impl Iterator<Item = Payload<'a>>) -> Result<Self, ApplyError> {
        let mut found = Self { rows: copy::Rows::of(14), moved: BTreeMap::new() };
        for payload in entries {
            found.add(accounts, &payload).map_err(|error| ApplyError::poison(payload.position, error))?;
        }
        Ok(found)
    }

    /// The same in a load, whose accounts are as many as there are creators: what is remembered of the pages before has a bound.
    fn of_page<'a>(accounts: &mut Accounts, entries: impl Iterator<Item = Payload<'a>>) -> Result<Self, ApplyError> {
        if accounts.keys.is_large() {
            *accounts = Accounts::default();
        }
        Self::read(accounts, entries)
    }

    fn add(&mut self, accounts: &mut Accounts, payload: &Payload<'_>) -> Result<(), EntryError> {
        let entry: Entry<'_> = payload.read()?;
        let mut moved: BTreeMap<Owned, Has> = BTreeMap::new();
        for posting in &entry.postings {
            let minor = i128::from(posting.signed_minor()?);
            if let Some((owned, place)) = accounts.owner(posting)? {
                moved.entry(owned.clone()).or_default().post(*place, minor);
            }
        }
        let mut items: BTreeMap<(Owned, StatementLine, Option<PaymentKind>), i128> = BTreeMap::new();
        let mut rest: BTreeMap<Owned, i128> =
            moved.iter().map(|(owned, moved)| (owned.clone(), moved.total())).collect();
        for activity in &entry.activity {
            let owned: Owned = (activity.creator.parse()?, activity.currency.parse()?);
            *rest.entry(owned.clone()).or_default() -= i128::from(activity.minor);
            *items.entry((owned, activity.line, activity.kind)).or_default() += i128::from(activity.minor);
        }
        for (owned, minor) in rest {
            self.moved.entry(owned.clone()).or_default().add(moved.get(&owned).copied().unwrap_or_default());
            *items.entry((owned, StatementLine::Adjustments, None)).or_default() += minor;
        }
        items.retain(|_, minor| *minor != 0);
        self.push(payload, &entry, items)
    }

    fn push(
        &mut self,
        payload: &Payload<'_>,
        entry: &Entry<'_>,
        items: BTreeMap<(Owned, StatementLine, Option<PaymentKind>), i128>,
    ) -> Result<(), EntryError> {
        let entry_id: EntryId = entry.entry_id.parse()?;
        let object: StripeId = entry.cause.object.parse()?;
        let stripe_event = entry.cause.stripe_event.as_ref().map(|id| id.parse::<StripeId>()).transpose()?;
        let occurred_at: Timestamp = entry.occurred_at.parse()?;
        let effective_at: Timestamp = entry.effective_at.parse()?;
        for (item, (((creator, currency), line, kind), minor)) in (1..).zip(items) {
            self.rows
                .begin()
                .text(creator.as_str())
                .text(currency.as_str())
                .bigint(payload.position.as_i64())
                .integer(item)
                .text(line.as_str())
                .optional_text(kind.map(PaymentKind::as_str))
                .numeric(minor)
                .text(entry_id.as_str())
                .time(occurred_at.as_unix_micros())
                .time(effective_at.as_unix_micros())
                .time(payload.recorded_micros)
                .text(&entry.description)
                .text(object.as_str())
                .optional_text(stripe_event.as_ref().map(StripeId::as_str));
        }
        Ok(())
    }

    async fn write(mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.rows.write(TABLE, connection).await?;
        if self.moved.is_empty() {
            return Ok(());
        }
        let all = || self.moved.iter();
        let of = |minor: fn(&Has) -> i128| all().map(|(_, has)| minor(has).to_string()).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO creator_balances AS b (creator, currency, pending, available, held, receivable)
             SELECT m.creator, m.currency, m.pending::numeric, m.available::numeric, m.held::numeric, m.receivable::numeric
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
                 AS m (creator, currency, pending, available, held, receivable)
             ON CONFLICT (creator, currency) DO UPDATE SET pending = b.pending + excluded.pending,
                 available = b.available + excluded.available, held = b.held + excluded.held,
                 receivable = b.receivable + excluded.receivable",
        )
        .bind(all().map(|((creator, _), _)| creator.to_string()).collect::<Vec<_>>())
        .bind(all().map(|((_, currency), _)| currency.to_string()).collect::<Vec<_>>())
        .bind(of(|has| has.pending))
        .bind(of(|has| has.available))
        .bind(of(|has| has.held))
        .bind(of(|has| has.receivable))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// A load under way: the rows of one page are made while those of the one before are written.
#[derive(Default)]
struct Loading {
    ahead: Ahead<Accounts, Found>,
}

impl Loading {
    async fn advance(&mut self, page: Option<Page>, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let read = |accounts: &mut Accounts, page: &Page| Found::of_page(accounts, page.events().map(Payload::from));
        if let Some(found) = self.ahead.next(page, read).await? {
            found.write(connection).await?;
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
        let mut known = Accounts::default();
        let first: Vec<String> = (0..made::CREATORS).map(made::entry_of).collect();
        Found::of_page(&mut known, made::payloads(&first)).unwrap();
        assert_eq!(known.owners.len(), 2 * made::CREATORS);
        Found::of_page(&mut known, made::payloads(&[made::entry_of(made::CREATORS)])).unwrap();
        assert_eq!(known.owners.len(), 2, "what was met before is forgotten");
    }
}
