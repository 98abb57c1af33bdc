//! The set of snapshots that were seen of one object, and what follows from the set: the newest, and the status at an instant.
//!
//! All snapshots are kept. A canonical form that drops repeats would depend on the order of arrival: a status that was dropped as
//! a repeat is needed again when another one turns up between the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::{
    ApplicationFeeSnapshot, ChargeSnapshot, ChargeStatus, DisputeSnapshot, DisputeStatus, EventStamp, PayoutSnapshot,
    PayoutStatus, RefundSnapshot, RefundStatus, Stamp, TopupSnapshot, TopupStatus, TransferSnapshot,
};
use crate::time::Timestamp;

/// A snapshot with a place in its object's life.
pub trait Snapshot: Clone + Ord {
    /// Ordered as the object's life goes; decides between two snapshots of one second.
    type Status: Copy + Ord;
    /// Where the object stood.
    fn status(&self) -> Self::Status;
}

/// Where a charge stands, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChargePhase {
    /// Not final yet.
    Pending,
    /// Succeeded, not captured.
    Authorised,
    /// Succeeded and captured.
    Captured,
    /// Failed.
    Failed,
}

impl Snapshot for ChargeSnapshot {
    type Status = ChargePhase;
    fn status(&self) -> ChargePhase {
        match (self.status, self.captured) {
            (ChargeStatus::Pending, _) => ChargePhase::Pending,
            (ChargeStatus::Succeeded, false) => ChargePhase::Authorised,
            (ChargeStatus::Succeeded, true) => ChargePhase::Captured,
            (ChargeStatus::Failed, _) => ChargePhase::Failed,
        }
    }
}

macro_rules! snapshot {
    ($($name:ident $status:ty;)*) => { $(
        impl Snapshot for $name {
            type Status = $status;
            fn status(&self) -> $status { self.status }
        }
    )* };
}

snapshot! {
    RefundSnapshot RefundStatus;
    DisputeSnapshot DisputeStatus;
    PayoutSnapshot PayoutStatus;
    TopupSnapshot TopupStatus;
}

/// Transfers and application fees have no status; what was given back only grows.
impl Snapshot for TransferSnapshot {
    type Status = i64;
    fn status(&self) -> i64 {
        self.amount_reversed
    }
}

impl Snapshot for ApplicationFeeSnapshot {
    type Status = i64;
    fn status(&self) -> i64 {
        self.amount_refunded
    }
}

/// Every snapshot of one object that was seen, in the order of [`Stamp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observations<T: Snapshot> {
    seen: BTreeMap<Stamp<T::Status>, T>,
}

impl<T: Snapshot> Default for Observations<T> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

impl<T: Snapshot> Observations<T> {
    /// Adds a snapshot; false where it was known. Should one event show the object twice and differently, the greater is kept.
    pub fn learn(&mut self, stamp: &EventStamp, snapshot: &T) -> bool {
        let key = stamp.with_status(snapshot.status());
        match self.seen.get(&key) {
            Some(known) if known >= snapshot => false,
            Some(_) | None => {
                self.seen.insert(key, snapshot.clone());
                true
            }
        }
    }

    /// Whether none was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&T> {
        self.seen.values().next_back()
    }

    /// The newest snapshot that `matches`.
    pub fn newest_where(&self, matches: impl Fn(&T) -> bool) -> Option<&T> {
        self.seen.values().rev().find(|snapshot| matches(snapshot))
    }

    /// The oldest snapshot.
    pub fn oldest(&self) -> Option<&T> {
        self.seen.values().next()
    }

    /// The newest snapshot of an event made at or before `at`.
    pub fn newest_at(&self, at: Timestamp) -> Option<&T> {
        self.seen.iter().rev().find(|(stamp, _)| stamp.created <= at).map(|(_, snapshot)| snapshot)
    }

    /// All snapshots of events made at or before `at`, oldest first.
    pub fn up_to(&self, at: Timestamp) -> impl Iterator<Item = &T> {
        self.seen.iter().take_while(move |(stamp, _)| stamp.created <= at).map(|(_, snapshot)| snapshot)
    }

    /// All snapshots, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.seen.values()
    }

    /// When the events were made.
    pub fn instants(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.seen.keys().map(|stamp| stamp.created)
    }
}
