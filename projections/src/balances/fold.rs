//! Entries, taken apart into the lines of each account.

use std::borrow::Cow;

use fanledger_domain::event::DecodeError;
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::runner::ApplyError;
use serde::Deserialize;

use super::FANOUT;
use crate::decode::{ACCOUNTS_MAX, Keys, Move, Payload, PostingError};

/// What of an entry moves balances, borrowed from its bytes.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    effective_at: Cow<'a, str>,
    #[serde(borrow)]
    postings: Vec<Move<'a>>,
}

/// Why an entry cannot be taken apart.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("read the entry's times")]
    Time(#[from] TimestampError),
    #[error(transparent)]
    Posting(#[from] PostingError),
}

/// One posting. Times are in microseconds since 1970; the amount in minor units, debits positive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub position: i64,
    pub occurred: i64,
    pub effective: i64,
    pub recorded: i64,
    pub amount: i64,
}

/// What is known of an account in one currency.
#[derive(Default)]
pub(super) struct AccountLines {
    /// Whether what the tables held of it was read: until then `segment` is 0 and `open` lacks the lines before.
    pub is_read: bool,
    /// The number of the open segment.
    pub segment: i64,
    /// The lines that are in no complete segment yet.
    pub open: Vec<Line>,
    /// Whether the tables hold a row of the open segment.
    pub open_is_stored: bool,
    /// What was added since the totals were written.
    pub debits: i128,
    /// The same.
    pub credits: i128,
    is_listed: bool,
}

impl AccountLines {
    /// How many lines there are in all.
    pub const fn count(&self) -> i64 {
        self.segment * (FANOUT as i64) + (self.open.len() as i64)
    }
}

/// The least of each, as in `balance_firsts`.
#[derive(Clone, Copy)]
pub(super) struct Firsts {
    pub position: i64,
    pub occurred: i64,
    pub effective: i64,
    pub recorded: i64,
}

impl Firsts {
    fn and(self, later: Self) -> Self {
        Self {
            position: self.position.min(later.position),
            occurred: self.occurred.min(later.occurred),
            effective: self.effective.min(later.effective),
            recorded: self.recorded.min(later.recorded),
        }
    }
}

/// What entries say, one after the other.
#[derive(Default)]
pub(super) struct Moves {
    /// With the number of the account.
    lines: Vec<(usize, Line)>,
    /// Accounts and currencies that were not met before; their numbers follow on those before.
    new_names: Vec<(String, String)>,
    firsts: Option<Firsts>,
}

impl Moves {
    /// Takes entries apart.
    pub fn read<'a>(keys: &mut Keys, entries: impl Iterator<Item = Payload<'a>>) -> Result<Self, ApplyError> {
        let known = keys.names().len();
        let mut moves = Self::default();
        for payload in entries {
            moves.push(keys, &payload).map_err(|error| ApplyError::poison(payload.position, error))?;
        }
        moves.new_names = keys.names().get(known..).unwrap_or_default().to_vec();
        Ok(moves)
    }

    fn push(&mut self, keys: &mut Keys, payload: &Payload<'_>) -> Result<(), EntryError> {
        let entry: Entry<'_> = payload.read()?;
        let (position, recorded) = (payload.position.as_i64(), payload.recorded_micros);
        let occurred = entry.occurred_at.parse::<Timestamp>()?.as_unix_micros();
        let effective = if entry.effective_at == entry.occurred_at {
            occurred
        } else {
            entry.effective_at.parse::<Timestamp>()?.as_unix_micros()
        };
        let firsts = Firsts { position, occurred, effective, recorded };
        self.firsts = Some(self.firsts.map_or(firsts, |before| before.and(firsts)));
        for posting in &entry.postings {
            let amount = posting.signed_minor()?;
            self.lines.push((keys.number(posting)?, Line { position, occurred, effective, recorded, amount }));
        }
        Ok(())
    }
}

/// Entries summed up: a batch, or as much of a load as was not written yet.
#[derive(Default)]
pub(super) struct Fold {
    /// Account and currency, by number.
    pub names: Vec<(String, String)>,
    /// By the same numbers.
    pub accounts: Vec<AccountLines>,
    /// Those with lines since the totals were written.
    pub changed: Vec<usize>,
    pub firsts: Option<Firsts>,
}

impl Fold {
    /// Adds what entries say.
    pub fn add(&mut self, moves: Moves) {
        self.names.extend(moves.new_names);
        self.accounts.resize_with(self.names.len(), AccountLines::default);
        if let Some(firsts) = moves.firsts {
            self.firsts = Some(self.firsts.map_or(firsts, |before| before.and(firsts)));
        }
        for (number, line) in moves.lines {
            let Some(account) = self.accounts.get_mut(number) else { continue };
            if !std::mem::replace(&mut account.is_listed, true) {
                self.changed.push(number);
            }
            if line.amount > 0 {
                account.debits += i128::from(line.amount);
            } else {
                account.credits -= i128::from(line.amount);
            }
            account.open.push(line);
        }
    }

    /// An account and its currency.
    pub fn name(&self, number: usize) -> (&str, &str) {
        self.names.get(number).map_or(("", ""), |(account, currency)| (account, currency))
    }

    /// Whether it is time to write everything and begin anew.
    pub const fn is_large(&self) -> bool {
        self.names.len() > ACCOUNTS_MAX
    }

    /// After the totals were written.
    pub fn settle(&mut self) {
        for number in self.changed.drain(..) {
            if let Some(account) = self.accounts.get_mut(number) {
                (account.debits, account.credits, account.is_listed) = (0, 0, false);
            }
        }
        self.firsts = None;
    }
}
