//! The books against themselves: what must hold of any journal, checked event by event in position order.
//!
//! - Every entry balances.
//! - Per currency, `assets:stripe:clearing` = Σ `net` of the balance transactions seen.
//! - Each balance transaction counts in one stream.
//! - Entries are in streams of objects that post, and closes in that of the book.
//! - After a close, nothing is booked into what was closed.
//!
//! A small object (a refund, a dispute) that turns out to belong to another gives its balance transactions up and the other takes
//! them over, by two commands; between the two they count as not seen. So they are counted by stream, each stream's own against
//! what it posted: stricter than the total, and true at every position where a command ends.

use std::borrow::Cow;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use serde::Deserialize;

use crate::account::Account;
use crate::books::Books as _;
use crate::books::balance_transaction::OwnBalanceTransaction;
use crate::books::charge::Charge;
use crate::books::platform::{ApplicationFee, Payout, Topup, Transfer};
use crate::books::satellite::{Dispute, FeeRefund, Refund, SatelliteKind as _, TransferReversal};
use crate::entry::{EntryPosted, POSTING_MINOR_MAX, Side, check_postings};
use crate::event::{DecodeError, Event};
use crate::id::StripeId;
use crate::manual_entry::ManualEntry;
use crate::money::{Currency, MoneyError};
use crate::payout_run::run::PayoutRun;
use crate::period::Period;
use crate::time::Timestamp;

/// Why the books do not tie out.
#[derive(Debug, thiserror::Error)]
pub enum TieOutError {
    /// The event cannot be read.
    #[error("the event cannot be read")]
    Decode(#[from] DecodeError),
    /// An entry that does not balance is in the journal.
    #[error("entry {entry_id} does not balance: {reason}")]
    Entry {
        /// Which.
        entry_id: String,
        /// Why not.
        reason: String,
    },
    /// An entry was booked into a closed period, after the close.
    #[error("entry {entry_id} is booked at {effective_at}, and the book was closed up to {first_open} before it")]
    ClosedPeriod {
        /// Which.
        entry_id: String,
        /// When it counts, as it is written.
        effective_at: String,
        /// The first instant that was open.
        first_open: Timestamp,
    },
    /// A balance transaction counts twice.
    #[error("{transaction} counts in {stream}, and in another object's stream, too")]
    CountedTwice {
        /// The balance transaction.
        transaction: String,
        /// The second stream that it counts in.
        stream: String,
    },
    /// An event that moves the books is in a stream that does not.
    #[error("{event_type} is in {stream}, where nothing posts or closes")]
    Misplaced {
        /// The event's type.
        event_type: &'static str,
        /// The stream.
        stream: String,
    },
    /// A stream's clearing is not what its balance transactions say.
    #[error("clearing of {stream} in {currency} less its balance transactions' net is {difference_minor}, not zero")]
    Clearing {
        /// The stream.
        stream: String,
        /// The currency.
        currency: Currency,
        /// What was posted less what the balance transactions add up to.
        difference_minor: i128,
    },
}

/// One stream's clearing less net, by currency, where that is not zero.
#[derive(Clone, Debug, Default)]
struct Open {
    difference: BTreeMap<Currency, i128>,
    position: u64,
    /// Of a satellite: the balance transactions that it holds while it stands alone, but the one that has its name.
    alone: Vec<u128>,
    gave_up: bool,
}

/// Checks the books along the journal.
#[derive(Debug, Default)]
pub struct TieOut {
    open: HashMap<String, Open>,
    totals: BTreeMap<Currency, (i128, i128)>,
    /// Where each balance transaction counts, and for how much. A stream may learn one again, by another owner: the later replaces
    /// it. By digest, since this is the one memory that grows with the journal: some 70 bytes for each.
    counted: HashMap<u128, Counted>,
    /// In which further streams a balance transaction counts. For a moment it may, where one takes over before another is known to
    /// have given up.
    again: HashMap<u128, Vec<Again>>,
    period: Period,
}

/// What one stream counts of a balance transaction.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// The stream's digest.
    stream: u128,
    currency: Currency,
    net: i64,
}

/// A stream that counts what another one does.
#[derive(Clone, Debug)]
struct Again {
    counted: Counted,
    stream: String,
    transaction: String,
    position: u64,
}

/// Totals at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearingTotal {
    /// The currency.
    pub currency: Currency,
    /// The balance of `assets:stripe:clearing`, in minor units.
    pub clearing_minor: i128,
    /// Σ `net` of the balance transactions seen.
    pub net_minor: i128,
}

/// [`Account::StripeClearing`] as it is written.
const CLEARING: &str = "assets:stripe:clearing";

/// The types of the streams that entries are in.
const POSTING: [&str; 12] = [
    Charge::STREAM,
    Refund::STREAM,
    Dispute::STREAM,
    Transfer::STREAM,
    TransferReversal::STREAM,
    Payout::STREAM,
    ApplicationFee::STREAM,
    FeeRefund::STREAM,
    Topup::STREAM,
    OwnBalanceTransaction::STREAM,
    ManualEntry::STREAM,
    PayoutRun::STREAM,
];

const SATELLITES: [&str; 5] =
    [Refund::STREAM, Dispute::STREAM, TransferReversal::STREAM, FeeRefund::STREAM, OwnBalanceTransaction::STREAM];

/// What the books need of an entry. The rest of its payload is passed over: a journal holds millions of them.
#[derive(Deserialize)]
struct EntryLines<'a> {
    #[serde(borrow)]
    entry_id: Cow<'a, str>,
    /// Read only where something is closed.
    #[serde(borrow, default)]
    effective_at: Cow<'a, str>,
    #[serde(borrow)]
    postings: Vec<EntryLine<'a>>,
}

#[derive(Deserialize)]
struct EntryLine<'a> {
    #[serde(borrow)]
    account: Cow<'a, str>,
    side: Side,
    minor: i64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
}

impl EntryLine<'_> {
    fn signed_minor(&self) -> i64 {
        match self.side {
            Side::Debit => self.minor,
            Side::Credit => -self.minor,
        }
    }
}

impl EntryLines<'_> {
    /// The rules of [`check_postings`], over what was read. Whether an account is one of the chart's is not asked.
    fn check(&self) -> Result<(), String> {
        if self.postings.len() < 2 {
            return Err(format!("an entry needs at least two postings, this has {}", self.postings.len()));
        }
        // One or two currencies, as a rule: a list is faster than a map.
        let mut sums: Vec<(&str, i128)> = Vec::with_capacity(2);
        for line in &self.postings {
            let is_code = line.currency.len() == 3 && line.currency.bytes().all(|byte| byte.is_ascii_lowercase());
            if line.account.is_empty() || !is_code || !(1..=POSTING_MINOR_MAX).contains(&line.minor) {
                return Err(format!(
                    "a posting needs an account, a currency and an amount from 1 to {POSTING_MINOR_MAX}"
                ));
            }
            let signed = i128::from(line.signed_minor());
            match sums.iter_mut().find(|(currency, _)| *currency == line.currency) {
                Some((_, sum)) => *sum += signed,
                None => sums.push((&line.currency, signed)),
            }
        }
        match sums.into_iter().filter(|(_, sum)| *sum != 0).min() {
            Some((currency, sum)) => Err(format!("{currency} does not sum to zero: debits minus credits are {sum}")),
            None => Ok(()),
        }
    }
}

/// Stable within a program, and 128 bits, so that no two of a journal's ever meet.
fn digest_of(name: &str) -> u128 {
    let half = |half: u8| {
        let mut hasher = DefaultHasher::new();
        (half, name).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn misplaced(event_type: &'static str, stream: &str) -> TieOutError {
    TieOutError::Misplaced { event_type, stream: stream.to_owned() }
}

fn is_satellite(stream: &str) -> bool {
    stream.split_once('/').is_some_and(|(stream_type, _)| SATELLITES.contains(&stream_type))
}

fn is_of_its_own(stream: &str, transaction: &str) -> bool {
    stream.split_once('/').is_some_and(|(_, id)| id == transaction)
}

impl TieOut {
    /// Takes in the next event as the journal holds it, reading of it no more than is needed. `stream` is its type and id.
    /// Answers the id of the entry, if it posts one.
    pub fn recorded<'a>(
        &mut self,
        stream: (&str, &str),
        (event_type, event_version): (&str, &str),
        payload: &'a str,
        position: u64,
    ) -> Result<Option<Cow<'a, str>>, TieOutError> {
        let stream_name = || format!("{}/{}", stream.0, stream.1);
        if (event_type, event_version) != (EntryPosted::TYPE, "1") {
            let event = Event::decode(event_type, event_version, payload)?;
            self.event(&stream_name(), &event, position)?;
            return Ok(None);
        }
        if !POSTING.contains(&stream.0) {
            return Err(misplaced(EntryPosted::TYPE, &stream_name()));
        }
        let entry: EntryLines<'a> = serde_json::from_str(payload).map_err(|source| DecodeError::Payload {
            event_type: EntryPosted::TYPE,
            event_version: "1",
            source,
        })?;
        let refused = |reason| TieOutError::Entry { entry_id: entry.entry_id.to_string(), reason };
        entry.check().map_err(refused)?;
        self.check_open(&entry.entry_id, &entry.effective_at)?;
        for line in entry.postings.iter().filter(|line| line.account == CLEARING) {
            let currency = line.currency.parse().map_err(|error: MoneyError| refused(error.to_string()))?;
            self.add(&stream_name(), position, currency, i128::from(line.signed_minor()), 0);
        }
        Ok(Some(entry.entry_id))
    }

    /// Takes in the next event. `stream` is `<aggregate type>/<id>`.
    pub fn event(&mut self, stream: &str, event: &Event, position: u64) -> Result<(), TieOutError> {
        match event {
            Event::EntryPosted(entry) => {
                if !stream.split_once('/').is_some_and(|(stream_type, _)| POSTING.contains(&stream_type)) {
                    return Err(misplaced(EntryPosted::TYPE, stream));
                }
                check_postings(&entry.postings).map_err(|reason| TieOutError::Entry {
                    entry_id: entry.entry_id.to_string(),
                    reason: reason.to_string(),
                })?;
                self.check_open(entry.entry_id.as_str(), &entry.effective_at.to_string())?;
                for posting in &entry.postings {
                    if posting.account == Account::StripeClearing {
                        self.add(stream, position, posting.money.currency(), i128::from(posting.signed_minor()), 0);
                    }
                }
            }
            Event::BalanceTransactionObserved(seen) => {
                let transaction = &seen.transaction;
                let (digest, is_satellite) = (digest_of(transaction.id.as_str()), is_satellite(stream));
                if is_satellite {
                    let open = self.open.entry(stream.to_owned()).or_default();
                    if open.gave_up {
                        // It waits to be handed on; its stream's books are empty.
                        return Ok(());
                    }
                    if !open.alone.contains(&digest) && !is_of_its_own(stream, transaction.id.as_str()) {
                        open.alone.push(digest);
                    }
                }
                let counted =
                    Counted { stream: digest_of(stream), currency: transaction.currency, net: transaction.net };
                if let Some(replaced) = self.count(digest, counted, stream, &transaction.id, position) {
                    self.add(stream, position, replaced.currency, 0, -i128::from(replaced.net));
                }
                self.add(stream, position, transaction.currency, 0, i128::from(transaction.net));
            }
            Event::StripeObjectsLinked(_) if is_satellite(stream) => {
                let open = self.open.entry(stream.to_owned()).or_default();
                if !open.gave_up {
                    open.gave_up = true;
                    let alone = std::mem::take(&mut open.alone);
                    let own = stream.split_once('/').map(|(_, id)| digest_of(id));
                    for digest in alone.into_iter().chain(own) {
                        if let Some(counted) = self.uncount(digest, digest_of(stream)) {
                            self.add(stream, position, counted.currency, 0, -i128::from(counted.net));
                        }
                    }
                }
            }
            Event::PeriodClosed(_) | Event::PeriodReopened(_) => {
                if stream.split_once('/') != Some((Period::STREAM, Period::BOOK)) {
                    return Err(misplaced(event.type_name(), stream));
                }
                self.period.evolve(event);
            }
            Event::StripeObjectsLinked(_)
            | Event::StripeEventReceived(_)
            | Event::StripeEventBodyDiffered(_)
            | Event::StripeEventNotTranslated(_)
            | Event::AttributionSourceObserved(_)
            | Event::AttributionOffered(_)
            | Event::CreatorAttributed(_)
            | Event::ChargeObserved(_)
            | Event::RefundObserved(_)
            | Event::DisputeObserved(_)
            | Event::ChargeReleased(_)
            | Event::TransferObserved(_)
            | Event::PayoutObserved(_)
            | Event::ApplicationFeeObserved(_)
            | Event::TopupObserved(_)
            | Event::ProjectionEventSkipped(_)
            | Event::StripeEventOpened(_)
            | Event::ManualEntryProposed(_)
            | Event::ManualEntryApproved(_)
            | Event::ManualEntryRejected(_)
            | Event::ConnectedAccountObserved(_)
            | Event::CreatorPayoutsHeld(_)
            | Event::CreatorPayoutsResumed(_)
            | Event::PayoutRunProposed(_)
            | Event::PayoutRunApproved(_)
            | Event::PayoutRunCanceled(_)
            | Event::PayoutRunStopped(_)
            | Event::PayoutRunFinished(_)
            | Event::PayoutTransferSent(_)
            | Event::PayoutTransferFailed(_) => {}
        }
        Ok(())
    }

    /// Counts a balance transaction in a stream; what the stream counted of it before.
    fn count(
        &mut self,
        digest: u128,
        counted: Counted,
        stream: &str,
        transaction: &StripeId,
        position: u64,
    ) -> Option<Counted> {
        match self.counted.entry(digest) {
            Entry::Vacant(free) => {
                free.insert(counted);
                None
            }
            Entry::Occupied(mut taken) if taken.get().stream == counted.stream => Some(taken.insert(counted)),
            Entry::Occupied(_) => {
                let again = self.again.entry(digest).or_default();
                if let Some(known) = again.iter_mut().find(|known| known.counted.stream == counted.stream) {
                    return Some(std::mem::replace(&mut known.counted, counted));
                }
                let (stream, transaction) = (stream.to_owned(), transaction.to_string());
                again.push(Again { counted, stream, transaction, position });
                None
            }
        }
    }

    /// A stream counts a balance transaction no more; what it counted of it.
    fn uncount(&mut self, digest: u128, stream: u128) -> Option<Counted> {
        let again = self.again.remove(&digest).unwrap_or_default();
        let (own, mut others): (Vec<Again>, Vec<Again>) =
            again.into_iter().partition(|again| again.counted.stream == stream);
        let given_up = match self.counted.get(&digest) {
            Some(counted) if counted.stream == stream => {
                let counted = self.counted.remove(&digest);
                // Whoever took over before counts it from now on.
                if let Some(next) = others.pop() {
                    self.counted.insert(digest, next.counted);
                }
                counted
            }
            Some(_) | None => own.first().map(|own| own.counted),
        };
        if !others.is_empty() {
            self.again.insert(digest, others);
        }
        given_up
    }

    /// Refuses what is booked into a closed period, or at no time that can be read where one is closed.
    fn check_open(&self, entry_id: &str, effective_at: &str) -> Result<(), TieOutError> {
        let Some(first_open) = self.period.first_open().instant() else { return Ok(()) };
        if effective_at.parse::<Timestamp>().is_ok_and(|effective_at| effective_at >= first_open) {
            return Ok(());
        }
        let (entry_id, effective_at) = (entry_id.to_owned(), effective_at.to_owned());
        Err(TieOutError::ClosedPeriod { entry_id, effective_at, first_open })
    }

    fn add(&mut self, stream: &str, position: u64, currency: Currency, clearing: i128, net: i128) {
        let total = self.totals.entry(currency).or_default();
        total.0 += clearing;
        total.1 += net;
        let open = self.open.entry(stream.to_owned()).or_default();
        open.position = position;
        let difference = open.difference.entry(currency).or_default();
        *difference += clearing - net;
        // What agrees needs no memory, but that of a satellite: whether it gave up, and what it holds.
        if *difference == 0 {
            open.difference.remove(&currency);
        }
        if open.difference.is_empty() && open.alone.is_empty() && !open.gave_up {
            self.open.remove(stream);
        }
    }

    /// What does not tie out at the end, by the lowest position; and the totals.
    pub fn end(&self) -> Result<Vec<ClearingTotal>, (u64, TieOutError)> {
        let first = self
            .open
            .iter()
            .filter_map(|(stream, open)| {
                open.difference.iter().next().map(|(currency, minor)| (open.position, stream, *currency, *minor))
            })
            .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let twice = self.again.values().flatten().min_by_key(|again| again.position);
        if let Some(again) = twice.filter(|again| first.is_none_or(|(position, ..)| again.position < position)) {
            let (transaction, stream) = (again.transaction.clone(), again.stream.clone());
            return Err((again.position, TieOutError::CountedTwice { transaction, stream }));
        }
        if let Some((position, stream, currency, difference_minor)) = first {
            return Err((position, TieOutError::Clearing { stream: stream.clone(), currency, difference_minor }));
        }
        Ok(self
            .totals
            .iter()
            .map(|(currency, (clearing_minor, net_minor))| ClearingTotal {
                currency: *currency,
                clearing_minor: *clearing_minor,
                net_minor: *net_minor,
            })
            .collect())
    }
}
