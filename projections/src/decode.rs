//! From the journal's bytes to the domain's events.

use std::borrow::Cow;
use std::collections::HashMap;

use fanledger_domain::account::{Account, AccountError};
use fanledger_domain::entry::{EntryPosted, POSTING_MINOR_MAX, Side};
use fanledger_domain::event::{DecodeError, Event};
use fanledger_domain::money::{Currency, MoneyError};
use fanledger_journal::copy::RawEvent;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::ApplyError;
use serde::Deserialize;

/// The type of the events that move balances.
pub(crate) const ENTRY_POSTED: &str = EntryPosted::TYPE;

/// Reads an event; one that cannot be read halts the projection at its position.
pub(crate) fn event(recorded: &RecordedEvent) -> Result<Event, ApplyError> {
    Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload)
        .map_err(|error| ApplyError::poison(recorded.position, error))
}

/// Reads an entry, in a projection that wants nothing else.
pub(crate) fn entry(recorded: &RecordedEvent) -> Result<EntryPosted, ApplyError> {
    match event(recorded)? {
        Event::EntryPosted(entry) => Ok(entry),
        other => Err(unwanted(recorded, &other)),
    }
}

/// The runner hands over only what `wants` asked for, so this is a mistake in a projection.
pub(crate) fn unwanted(recorded: &RecordedEvent, event: &Event) -> ApplyError {
    ApplyError::poison(recorded.position, Unwanted(event.type_name()))
}

#[derive(Debug, thiserror::Error)]
#[error("this projection does not want {0}, and was given one; this is a fault of the program")]
struct Unwanted(&'static str);

/// An `EntryPosted` not yet read, out of a batch or a page.
pub(crate) struct Payload<'a> {
    pub position: Position,
    pub recorded_micros: i64,
    version: &'a str,
    bytes: &'a [u8],
}

impl<'a> From<&'a RecordedEvent> for Payload<'a> {
    fn from(recorded: &'a RecordedEvent) -> Self {
        Self {
            position: recorded.position,
            recorded_micros: recorded.recorded_at.timestamp_micros(),
            version: &recorded.event_version,
            bytes: recorded.payload.as_bytes(),
        }
    }
}

impl<'a> From<RawEvent<'a>> for Payload<'a> {
    fn from(raw: RawEvent<'a>) -> Self {
        Self {
            position: Position::from_i64(raw.position),
            recorded_micros: raw.recorded_at_micros,
            // What is no text is no version that is known.
            version: std::str::from_utf8(raw.event_version).unwrap_or_default(),
            bytes: raw.payload,
        }
    }
}

impl<'a> Payload<'a> {
    /// As a type that borrows, and that holds only what its projection needs: the domain's own costs several times as much to
    /// read, and copies every string.
    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        const VERSION: &str = "1";
        if self.version != VERSION {
            return Err(DecodeError::Unknown {
                event_type: ENTRY_POSTED.to_owned(),
                event_version: self.version.to_owned(),
            });
        }
        serde_json::from_slice(self.bytes).map_err(|source| DecodeError::Payload {
            event_type: ENTRY_POSTED,
            event_version: VERSION,
            source,
        })
    }
}

/// One posting. Account and currency are as written: [`Keys`] checks them.
#[derive(Deserialize)]
pub(crate) struct Move<'a> {
    #[serde(borrow)]
    account: Cow<'a, str>,
    pub side: Side,
    pub minor: i64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
}

impl Move<'_> {
    /// As a balance counts it: debits positive, credits negative.
    pub fn signed_minor(&self) -> Result<i64, PostingError> {
        if !(1..=POSTING_MINOR_MAX).contains(&self.minor) {
            return Err(PostingError::Amount(self.minor));
        }
        Ok(match self.side {
            Side::Debit => self.minor,
            Side::Credit => -self.minor,
        })
    }
}

/// Why a posting is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostingError {
    #[error("a posting to an account that is none")]
    Account(#[source] AccountError),
    #[error("a posting in a currency that is none")]
    Currency(#[source] MoneyError),
    #[error("a posting's amount must be from 1 to {POSTING_MINOR_MAX}, this is {0}")]
    Amount(i64),
}

/// So many accounts in memory hold some 100 MB where each has an open segment (`balances`), and a tenth of it elsewhere.
pub(crate) const ACCOUNTS_MAX: usize = 80_000;

/// Accounts, each in one currency, numbered as they come. An account's text is checked when it is met for the first time; that
/// of the thousands that follow need not be.
#[derive(Default)]
pub(crate) struct Keys {
    /// By currency and account as they are written; more than one writing may mean the same.
    numbers: HashMap<String, usize>,
    names: Vec<(String, String)>,
    /// The next name to look up, kept for its memory.
    name: String,
}

impl Keys {
    /// The number of a posting's account and currency.
    pub fn number(&mut self, posting: &Move<'_>) -> Result<usize, PostingError> {
        self.name.clear();
        // A currency has no space in it, so no two pairs make one name.
        self.name.push_str(&posting.currency);
        self.name.push(' ');
        self.name.push_str(&posting.account);
        if let Some(number) = self.numbers.get(&self.name) {
            return Ok(*number);
        }
        let account = posting.account.parse::<Account>().map_err(PostingError::Account)?.to_string();
        let currency = posting.currency.parse::<Currency>().map_err(PostingError::Currency)?.to_string();
        let number = *self.numbers.entry(format!("{currency} {account}")).or_insert_with(|| {
            self.names.push((account, currency));
            self.names.len() - 1
        });
        self.numbers.insert(self.name.clone(), number);
        Ok(number)
    }

    /// Whether it is time to begin anew. What was met before is then checked once more, and has another number.
    pub const fn is_large(&self) -> bool {
        self.names.len() > ACCOUNTS_MAX
    }

    /// Account and currency by their numbers, as the ledger writes them.
    pub fn names(&self) -> &[(String, String)] {
        &self.names
    }
}

/// For the tests of what is read in a load.
#[cfg(test)]
pub(crate) mod made {
    use super::{ACCOUNTS_MAX, ENTRY_POSTED, Payload};
    use fanledger_journal::event::Position;

    /// So many creators have more accounts, two each, than are to be remembered.
    pub(crate) const CREATORS: usize = ACCOUNTS_MAX / 2 + 1;

    /// The bytes of an entry between two accounts of a creator.
    pub(crate) fn entry_of(creator: usize) -> String {
        let posting = |part: &str, side: &str| {
            let account = format!("liabilities:creators:crt_{creator}:{part}");
            serde_json::json!({"account": account, "side": side, "minor": 1, "currency": "usd"})
        };
        let at = "2026-01-01T00:00:00Z";
        serde_json::json!({
            "entry_id": format!("ch_{creator}:1:x"), "cause": {"object": "ch_1", "facts": []}, "description": ENTRY_POSTED,
            "occurred_at": at, "effective_at": at, "postings": [posting("pending", "debit"), posting("available", "credit")],
        })
        .to_string()
    }

    /// As a page hands it over.
    pub(crate) fn payloads(entries: &[String]) -> impl Iterator<Item = Payload<'_>> {
        entries.iter().map(|entry| Payload {
            position: Position::new(1),
            recorded_micros: 0,
            version: "1",
            bytes: entry.as_bytes(),
        })
    }
}
