//! Our balance transactions beside Stripe's list of them.
//!
//! Read in this order: [`Theirs`], one of the list; [`file`] (what finance downloads, read line by line on a thread of its own);
//! [`Comparison`], which looks up ours by batches while the list goes by, and asks at the end what the list does not have;
//! [`explain`], why; [`report`], what is said of it.
//!
//! Invariants:
//! - Nothing is written, anywhere.
//! - Memory is a digest for each id of the list, and the differences.
//! - A list that cannot be read to its end gives no answer.

pub mod explain;
pub mod file;
pub mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fanledger_domain::facts::BalanceTransaction;
use fanledger_domain::id::StripeId;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, ReadError, SeenTransaction};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use self::file::FileError;
use self::report::{Different, MissingHere, MissingThere, Money, Report, Totals};

/// Looked up at a time.
pub const BATCH: usize = 1_000;

/// A balance transaction as Stripe lists it. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theirs {
    /// `txn_…`.
    pub id: StripeId,
    /// The settlement currency.
    pub currency: Currency,
    /// Gross.
    pub amount: i64,
    /// Fee.
    pub fee: i64,
    /// `amount − fee`.
    pub net: i64,
    /// When it was made, rounded down to what the list tells.
    pub created: Timestamp,
    /// How much later it may have been made, in microseconds: a list may tell minutes, or days.
    pub created_within_micros: i64,
    /// Stripe's word for what it is; empty where the list has none.
    pub reported_as: String,
    /// The object that moved it.
    pub source: Option<StripeId>,
    /// Its line in the file, or its number in the list, from 1.
    pub line: u64,
}

impl Theirs {
    /// From what the API says, which is exact to the second.
    pub fn of_api(transaction: BalanceTransaction, line: u64) -> Self {
        Self {
            id: transaction.id,
            currency: transaction.currency,
            amount: transaction.amount,
            fee: transaction.fee,
            net: transaction.net,
            created: transaction.created,
            created_within_micros: 1_000_000,
            reported_as: transaction.reported_as,
            source: transaction.source,
            line,
        }
    }

    fn money(&self) -> Money {
        Money { currency: self.currency, amount_minor: self.amount, fee_minor: self.fee, net_minor: self.net }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Ours could not be read.
    #[error("read our balance transactions")]
    Read(#[from] ReadError),
    /// Theirs could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two of one id say different things.
    #[error("line {line}: {id} was there before, with other amounts")]
    Twice {
        /// Where the second is.
        line: u64,
        /// The id.
        id: StripeId,
    },
    /// A list without a time.
    #[error("the list holds no balance transaction: say with --since and --until which time it is of")]
    Empty,
    /// A bound is beyond the years that a time can be of.
    #[error("the list ends beyond the years that a time can be of")]
    Range(#[from] fanledger_domain::time::TimestampError),
}

/// The time that a list is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// From here on; from the list's first where it is not given.
    pub since: Option<Timestamp>,
    /// Up to here, which is not in it any more; through the list's last where it is not given.
    pub until: Option<Timestamp>,
    /// Whether payouts are left out of the list, and so are not to be missed.
    pub without_payouts: bool,
}

/// A comparison under way.
pub struct Comparison<'p> {
    pool: &'p PgPool,
    bounds: Bounds,
    /// By a digest of the id, a digest of the amounts.
    met: HashMap<u128, u128>,
    matched: u64,
    outside: u64,
    missing_here: Vec<MissingHere>,
    different: Vec<Different>,
    totals: BTreeMap<(Currency, String), Totals>,
    currencies: BTreeSet<Currency>,
    has_payouts: bool,
    /// The first and the last instant that the list tells of, and how far its last may reach.
    first: Option<Timestamp>,
    last: Option<(Timestamp, i64)>,
}

impl<'p> Comparison<'p> {
    /// A comparison with what `pool` has.
    pub fn new(pool: &'p PgPool, bounds: Bounds) -> Self {
        Self {
            pool,
            bounds,
            met: HashMap::new(),
            matched: 0,
            outside: 0,
            missing_here: Vec::new(),
            different: Vec::new(),
            totals: BTreeMap::new(),
            currencies: BTreeSet::new(),
            has_payouts: false,
            first: None,
            last: None,
        }
    }

    /// How many of the list went by.
    pub fn listed(&self) -> u64 {
        self.met.len() as u64
    }

    /// Compares a part of the list.
    ///
    /// # Errors
    /// When ours cannot be read, or an id comes again with other amounts.
    pub async fn add(&mut self, part: Vec<Theirs>) -> Result<(), ReconcileError> {
        let mut new = Vec::with_capacity(part.len());
        for theirs in part {
            let content = digest(&format!("{:?}", theirs.money()));
            match self.met.insert(digest(theirs.id.as_str()), content) {
                Some(before) if before != content => {
                    return Err(ReconcileError::Twice { line: theirs.line, id: theirs.id });
                }
                Some(_) => continue,
                None => {}
            }
            let since = self.bounds.since.is_some_and(|since| theirs.created < since);
            if since || self.bounds.until.is_some_and(|until| theirs.created >= until) {
                self.outside += 1;
                continue;
            }
            self.notice(&theirs);
            new.push(theirs);
        }
        let ids: Vec<String> = new.iter().map(|theirs| theirs.id.to_string()).collect();
        let ours = read::balance_transactions_by_id(self.pool, &ids).await?.value;
        let ours: HashMap<String, SeenTransaction> = ours.into_iter().map(|ours| (ours.id.clone(), ours)).collect();
        for theirs in new {
            self.compare(ours.get(theirs.id.as_str()), theirs);
        }
        Ok(())
    }

    fn notice(&mut self, theirs: &Theirs) {
        self.currencies.insert(theirs.currency);
        self.has_payouts |= is_payout(&theirs.reported_as);
        self.first = Some(self.first.map_or(theirs.created, |first| first.min(theirs.created)));
        let last = (theirs.created, theirs.created_within_micros);
        self.last = Some(self.last.map_or(last, |before| before.max(last)));
    }

    fn compare(&mut self, ours: Option<&SeenTransaction>, theirs: Theirs) {
        let word = ours.map_or(&theirs.reported_as, |ours| &ours.reported_as).clone();
        self.total(theirs.currency, &word).theirs.add(&theirs.money());
        let Some(ours) = ours else {
            self.missing_here.push(MissingHere {
                id: theirs.id.to_string(),
                theirs: theirs.money(),
                created: theirs.created.to_string(),
                reporting_category: theirs.reported_as,
                source: theirs.source.map(|source| source.to_string()),
                line: theirs.line,
                explanation: None,
            });
            return;
        };
        let (ours_money, theirs_money) = (money(ours), theirs.money());
        self.total(ours.currency, &word).ours.add(&ours_money);
        if ours_money == theirs_money {
            self.matched += 1;
        } else {
            let explanation = explain::difference(&ours_money, &theirs_money);
            self.different.push(Different {
                id: theirs.id.to_string(),
                ours: ours_money,
                theirs: theirs_money,
                line: theirs.line,
                position: ours.position,
                explanation,
            });
        }
    }

    fn total(&mut self, currency: Currency, word: &str) -> &mut Totals {
        self.totals.entry((currency, word.to_owned())).or_default()
    }

    /// Asks what of ours the list does not have, and why, as far as it is known.
    ///
    /// # Errors
    /// When ours cannot be read, or nobody said which time a list without a line is of.
    pub async fn finish(mut self) -> Result<Report, ReconcileError> {
        let through =
            self.last.map(|(at, within)| Timestamp::from_unix_micros(at.as_unix_micros() + within)).transpose()?;
        let since = self.bounds.since.or(self.first).ok_or(ReconcileError::Empty)?;
        let until = self.bounds.until.or(through).ok_or(ReconcileError::Empty)?;
        let mut missing_there = Vec::new();
        let mut after = None;
        let limit = u32::try_from(BATCH).unwrap_or(u32::MAX);
        let position = loop {
            let page = read::balance_transactions_between(self.pool, since, until, after.as_ref(), limit).await?;
            for ours in &page.value.items {
                let is_left_out = self.bounds.without_payouts && is_payout(&ours.reported_as);
                if is_left_out || self.met.contains_key(&digest(&ours.id)) {
                    continue;
                }
                let money = money(ours);
                self.total(ours.currency, &ours.reported_as).ours.add(&money);
                missing_there.push(MissingThere {
                    id: ours.id.clone(),
                    ours: money,
                    created: ours.created.to_string(),
                    reporting_category: ours.reported_as.clone(),
                    owner: ours.owner.clone(),
                    position: ours.position,
                    explanation: explain::missing_there(ours, &self.currencies, self.has_payouts, self.last),
                });
            }
            after = page.value.next;
            if after.is_none() {
                break page.position;
            }
        };
        explain::missing_here(self.pool, &mut self.missing_here).await?;
        Ok(Report {
            matched: self.matched,
            missing_here: self.missing_here,
            missing_there,
            different: self.different,
            since: since.to_string(),
            until: until.to_string(),
            outside: self.outside,
            position,
            totals: self.totals.into_iter().map(Totals::named).collect(),
        })
    }
}

fn money(ours: &SeenTransaction) -> Money {
    Money { currency: ours.currency, amount_minor: ours.amount, fee_minor: ours.fee, net_minor: ours.net }
}

/// Payouts, and those that came back, by either of Stripe's words.
fn is_payout(word: &str) -> bool {
    matches!(word, "payout" | "payout_reversal" | "payout_failure" | "payout_cancel")
}

/// Half of a SHA-256: no two texts that anybody finds share it.
fn digest(text: &str) -> u128 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}
