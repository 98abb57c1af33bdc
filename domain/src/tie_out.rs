//! The books against themselves: what must hold of any journal, checked event by event in position order.
//!
//! - Every entry balances.
//! - Per currency, `assets:stripe:clearing` = Σ `net` of the balance transactions seen.
//!
//! A small object (a refund, a dispute) that turns out to belong to another gives its balance transactions up and the other takes
//! them over, by two commands; between the two they count as not seen. So they are counted by stream, each stream's own against
//! what it posted: stricter than the total, and true at every position where a command ends.

use std::collections::{BTreeMap, HashMap};

use crate::account::Account;
use crate::books::satellite::{Dispute, FeeRefund, Refund, SatelliteKind as _, TransferReversal};
use crate::entry::check_postings;
use crate::event::{DecodeError, Event};
use crate::id::StripeId;
use crate::money::Currency;

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
    /// Of a satellite: the net that it holds while it stands alone.
    alone: BTreeMap<Currency, i128>,
    gave_up: bool,
}

/// Checks the books along the journal.
#[derive(Debug, Default)]
pub struct TieOut {
    open: HashMap<String, Open>,
    totals: BTreeMap<Currency, (i128, i128)>,
    /// What each stream counts of each balance transaction. A stream may learn one again, by another owner: the later replaces it.
    counted: HashMap<(String, StripeId), (Currency, i128)>,
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

const SATELLITES: [&str; 4] = [Refund::STREAM, Dispute::STREAM, TransferReversal::STREAM, FeeRefund::STREAM];

fn is_satellite(stream: &str) -> bool {
    stream.split_once('/').is_some_and(|(stream_type, _)| SATELLITES.contains(&stream_type))
}

impl TieOut {
    /// Takes in the next event. `stream` is `<aggregate type>/<id>`.
    pub fn event(&mut self, stream: &str, event: &Event, position: u64) -> Result<(), TieOutError> {
        match event {
            Event::EntryPosted(entry) => {
                check_postings(&entry.postings).map_err(|reason| TieOutError::Entry {
                    entry_id: entry.entry_id.to_string(),
                    reason: reason.to_string(),
                })?;
                for posting in &entry.postings {
                    if posting.account == Account::StripeClearing {
                        self.add(stream, position, posting.money.currency(), i128::from(posting.signed_minor()), 0);
                    }
                }
            }
            Event::BalanceTransactionObserved(seen) => {
                let transaction = &seen.transaction;
                let is_satellite = is_satellite(stream);
                let net = i128::from(transaction.net);
                let open = self.open.entry(stream.to_owned()).or_default();
                if is_satellite && open.gave_up {
                    // It waits to be handed on; its stream's books are empty.
                    return Ok(());
                }
                let counted = (transaction.currency, net);
                let replaced = self.counted.insert((stream.to_owned(), transaction.id.clone()), counted);
                if is_satellite {
                    *open.alone.entry(transaction.currency).or_default() += net;
                    if let Some((currency, known)) = replaced {
                        *open.alone.entry(currency).or_default() -= known;
                    }
                }
                if let Some((currency, known)) = replaced {
                    self.add(stream, position, currency, 0, -known);
                }
                self.add(stream, position, transaction.currency, 0, net);
            }
            Event::StripeObjectsLinked(_) if is_satellite(stream) => {
                let open = self.open.entry(stream.to_owned()).or_default();
                if !open.gave_up {
                    open.gave_up = true;
                    for (currency, net) in std::mem::take(&mut open.alone) {
                        self.add(stream, position, currency, 0, -net);
                    }
                }
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
            | Event::ProjectionEventSkipped(_) => {}
        }
        Ok(())
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
