//! What may be proposed: a draft is read from what somebody wrote, with everything that is wrong told at once.

use std::collections::BTreeMap;

use crate::account::{Account, AccountError};
use crate::entry::{EntryPosted, POSTING_MINOR_MAX, Posting, Side};
use crate::id::{EntryId, IdError, StripeId, StripeKind};
use crate::money::{Currency, Money, MoneyError};
use crate::policy::Policy;
use crate::reason::{REASON_FORM, is_line, is_reason};
use crate::time::{Timestamp, TimestampError};

/// A description is a line.
pub const DESCRIPTION_CHARS_MAX: usize = 200;
/// Lines of one entry; more are several entries.
pub const POSTINGS_MAX: usize = 200;
/// 2000-01-01T00:00:00Z in microseconds since 1970: what is dated before is a slip of the fingers.
const OCCURRED_MICROS_MIN: i64 = 946_684_800_000_000;

/// An entry as somebody wrote it down; see [`DraftText::parse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraftText {
    /// One line for people.
    pub description: String,
    /// Why.
    pub reason: String,
    /// When what it books happened.
    pub occurred_at: String,
    /// The object whose suspense it clears, where it does.
    pub clears: Option<String>,
    /// Its lines.
    pub postings: Vec<PostingText>,
}

/// A line as somebody wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostingText {
    /// Where.
    pub account: String,
    /// `debit` or `credit`.
    pub side: String,
    /// How much, in minor units.
    pub amount_minor: String,
    /// Of which currency.
    pub currency: String,
}

/// An entry that may be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub(super) description: String,
    pub(super) reason: String,
    pub(super) occurred_at: Timestamp,
    pub(super) reverses: Option<EntryId>,
    pub(super) clears: Option<StripeId>,
    pub(super) postings: Vec<Posting>,
}

/// What is wrong with a draft; [`DraftFault::field`] says where. Never quotes what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftFault {
    /// No description, or no line.
    #[error(
        "expected one line of 1 to {DESCRIPTION_CHARS_MAX} characters, with a letter or digit and nothing invisible"
    )]
    Description,
    /// No reason.
    #[error("expected why, {REASON_FORM}")]
    Reason,
    /// Not a time.
    #[error("{0}")]
    OccurredAt(TimestampError),
    /// After now.
    #[error("is in the future: nothing is booked before it happened")]
    OccurredInFuture,
    /// Long before anything that there is to be booked.
    #[error("is before the year 2000")]
    OccurredTooEarly,
    /// A reversal that would come before what it takes back.
    #[error("is before the entry that is taken back, which occurred at {0}")]
    OccurredBeforeReversed(Timestamp),
    /// No id.
    #[error("{0}")]
    Clears(IdError),
    /// Nothing would leave the suspense of the object.
    #[error("names an object whose suspense is cleared, and no line moves suspense")]
    ClearsNothing,
    /// One line moves nothing anywhere.
    #[error("expected at least two postings")]
    TooFewPostings,
    /// Too many to be looked over.
    #[error("expected at most {POSTINGS_MAX} postings; make several entries")]
    TooManyPostings,
    /// No account.
    #[error("{error}")]
    Account {
        /// Of which line, from 0.
        line: usize,
        /// What is wrong.
        error: AccountError,
    },
    /// An account that only Stripe's own objects move.
    #[error("{}", not_by_hand(.account))]
    NotByHand {
        /// Of which line, from 0.
        line: usize,
        /// The account.
        account: Account,
    },
    /// Neither side.
    #[error("expected debit or credit")]
    Side {
        /// Of which line, from 0.
        line: usize,
    },
    /// Zero, negative, too much, or no number.
    #[error("expected whole minor units from 1 to {POSTING_MINOR_MAX}; the side gives the sign")]
    Amount {
        /// Of which line, from 0.
        line: usize,
    },
    /// No currency.
    #[error("{error}")]
    Currency {
        /// Of which line, from 0.
        line: usize,
        /// What is wrong.
        error: MoneyError,
    },
    /// A currency does not sum to zero.
    #[error("{currency} does not sum to zero: debits minus credits are {difference_minor} minor units")]
    Unbalanced {
        /// Which.
        currency: Currency,
        /// Debits minus credits.
        difference_minor: i128,
    },
}

fn not_by_hand(account: &Account) -> String {
    format!(
        "{account} is never moved by hand: it follows Stripe's balance transactions alone, so that it can be reconciled; \
         attribute, `stripe sync` or `ledger converge` what is wrong there, or choose another account"
    )
}

impl DraftFault {
    /// The field that it is about, `postings[1].account`.
    pub fn field(&self) -> String {
        let of = |line: &usize, part: &str| format!("postings[{line}].{part}");
        match self {
            Self::Description => "description".to_owned(),
            Self::Reason => "reason".to_owned(),
            Self::OccurredAt(_) | Self::OccurredInFuture | Self::OccurredTooEarly | Self::OccurredBeforeReversed(_) => {
                "occurred_at".to_owned()
            }
            Self::Clears(_) | Self::ClearsNothing => "clears".to_owned(),
            Self::TooFewPostings | Self::TooManyPostings | Self::Unbalanced { .. } => "postings".to_owned(),
            Self::Account { line, .. } | Self::NotByHand { line, .. } => of(line, "account"),
            Self::Side { line } => of(line, "side"),
            Self::Amount { line } => of(line, "amount_minor"),
            Self::Currency { line, .. } => of(line, "currency"),
        }
    }
}

/// Whether only Stripe's objects move this account. Clearing is the sum of the balance transactions that were seen, and
/// unconfirmed what they and the objects differ by: a hand in either would be a difference that no reconciliation explains.
const fn follows_stripe(account: &Account) -> bool {
    matches!(account, Account::StripeClearing | Account::StripeUnconfirmed)
}

/// Whether some line moves money that waits.
fn moves_suspense(postings: &[Posting]) -> bool {
    postings.iter().any(|posting| matches!(posting.account, Account::Suspense(_)))
}

fn occurred_fault(occurred_at: Timestamp, now: Timestamp) -> Option<DraftFault> {
    if occurred_at > now {
        Some(DraftFault::OccurredInFuture)
    } else if occurred_at.as_unix_micros() < OCCURRED_MICROS_MIN {
        Some(DraftFault::OccurredTooEarly)
    } else {
        None
    }
}

impl PostingText {
    fn parse(&self, line: usize, faults: &mut Vec<DraftFault>) -> Option<Posting> {
        let known = faults.len();
        let account = self.account.parse::<Account>().map_err(|error| DraftFault::Account { line, error });
        let side = match self.side.as_str() {
            "debit" => Ok(Side::Debit),
            "credit" => Ok(Side::Credit),
            _ => Err(DraftFault::Side { line }),
        };
        let digits = !self.amount_minor.is_empty() && self.amount_minor.bytes().all(|b| b.is_ascii_digit());
        let minor =
            self.amount_minor.parse::<i64>().ok().filter(|minor| digits && (1..=POSTING_MINOR_MAX).contains(minor));
        let currency = Currency::from_code(&self.currency).map_err(|error| DraftFault::Currency { line, error });
        if let Ok(account) = &account
            && follows_stripe(account)
        {
            faults.push(DraftFault::NotByHand { line, account: account.clone() });
        }
        match (account, side, minor, currency) {
            (Ok(account), Ok(side), Some(minor), Ok(currency)) if faults.len() == known => {
                Some(Posting { account, side, money: Money::new(minor, currency) })
            }
            (account, side, minor, currency) => {
                faults.extend(account.err());
                faults.extend(side.err());
                faults.extend(minor.is_none().then_some(DraftFault::Amount { line }));
                faults.extend(currency.err());
                None
            }
        }
    }
}

impl DraftText {
    /// Reads what was written, at `now`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(self, now: Timestamp) -> Result<Draft, Vec<DraftFault>> {
        let mut faults = Vec::new();
        if !is_line(&self.description, DESCRIPTION_CHARS_MAX) {
            faults.push(DraftFault::Description);
        }
        if !is_reason(&self.reason) {
            faults.push(DraftFault::Reason);
        }
        let occurred_at = self.occurred_at.parse::<Timestamp>();
        match &occurred_at {
            Ok(at) => faults.extend(occurred_fault(*at, now)),
            Err(error) => faults.push(DraftFault::OccurredAt(error.clone())),
        }
        let clears = self.clears.as_deref().map(str::parse::<StripeId>).transpose();
        if let Err(error) = &clears {
            faults.push(DraftFault::Clears(error.clone()));
        }
        if self.postings.len() < 2 {
            faults.push(DraftFault::TooFewPostings);
        }
        if self.postings.len() > POSTINGS_MAX {
            faults.push(DraftFault::TooManyPostings);
        }
        let lines = self.postings.iter().take(POSTINGS_MAX).enumerate();
        let read: Vec<Option<Posting>> = lines.map(|(line, posting)| posting.parse(line, &mut faults)).collect();
        // A line that cannot be read would make every sum look wrong.
        if let Some(postings) = read.iter().cloned().collect::<Option<Vec<Posting>>>() {
            faults.extend(unbalanced(&postings));
            if matches!(clears, Ok(Some(_))) && !moves_suspense(&postings) {
                faults.push(DraftFault::ClearsNothing);
            }
        }
        match (occurred_at, clears, read.into_iter().collect::<Option<Vec<_>>>()) {
            (Ok(occurred_at), Ok(clears), Some(postings)) if faults.is_empty() => {
                let Self { description, reason, .. } = self;
                Ok(Draft { description, reason, occurred_at, reverses: None, clears, postings })
            }
            _ => Err(faults),
        }
    }
}

fn unbalanced(postings: &[Posting]) -> impl Iterator<Item = DraftFault> {
    let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
    for posting in postings {
        *sums.entry(posting.money.currency()).or_default() += i128::from(posting.signed_minor());
    }
    sums.into_iter()
        .filter(|(_, difference_minor)| *difference_minor != 0)
        .map(|(currency, difference_minor)| DraftFault::Unbalanced { currency, difference_minor })
}

/// Why an entry cannot be taken back by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReversalError {
    /// The books of an object at Stripe posted it, and would not know that it was taken back.
    #[error(
        "{entry_id} is what the books of {object} come to, from what is known of it, so it cannot be taken back by hand: {}\
         `ledger converge` if the entry is a mistake of the program's, or book what Stripe does not know by an entry of its own",
        if_attributable(.object)
    )]
    OfAnObject {
        /// The entry.
        entry_id: EntryId,
        /// The object.
        object: StripeId,
    },
    /// Something that was said with it is wrong.
    #[error("the reversal cannot be made as it was asked for")]
    Faults(Vec<DraftFault>),
}

/// The advice that fits objects whose money finance may say whose it is.
fn if_attributable(object: &StripeId) -> String {
    let kind = object.kind();
    if kind == StripeKind::Charge {
        format!("attribute {object} if its money is somebody else's, ")
    } else if kind == StripeKind::Transfer || kind == StripeKind::ApplicationFee {
        format!("attribute {object} if its money is somebody else's and Stripe does not say whose, ")
    } else {
        String::new()
    }
}

impl Draft {
    /// What takes `entry` back: the same lines with their sides exchanged. It occurs when it is said to, or now: until then the
    /// entry stood. What it puts back into suspense or takes out of it waits in the name that it did with the entry.
    ///
    /// # Errors
    /// When an object's books posted the entry, or the reason or the time is wrong.
    pub fn reversal(
        entry: &EntryPosted,
        reason: String,
        occurred_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, ReversalError> {
        if !entry.cause.is_decision() {
            let object = entry.cause.object.clone();
            return Err(ReversalError::OfAnObject { entry_id: entry.entry_id.clone(), object });
        }
        let occurred_at = occurred_at.unwrap_or(now);
        let mut faults = Vec::new();
        if !is_reason(&reason) {
            faults.push(DraftFault::Reason);
        }
        faults.extend(occurred_fault(occurred_at, now));
        if occurred_at < entry.occurred_at {
            faults.push(DraftFault::OccurredBeforeReversed(entry.occurred_at));
        }
        if !faults.is_empty() {
            return Err(ReversalError::Faults(faults));
        }
        Ok(Self {
            description: format!("reversal of {}", entry.entry_id),
            reason,
            occurred_at,
            reverses: Some(entry.entry_id.clone()),
            clears: moves_suspense(&entry.postings).then(|| entry.cause.suspense_object().clone()),
            postings: entry.reversed_postings(),
        })
    }

    /// Whether it moves more of some currency than one person may alone.
    pub fn needs_approval(&self, policy: &Policy) -> bool {
        let mut debits: BTreeMap<Currency, i128> = BTreeMap::new();
        for posting in self.postings.iter().filter(|posting| posting.side == Side::Debit) {
            *debits.entry(posting.money.currency()).or_default() += i128::from(posting.money.minor());
        }
        debits.into_iter().any(|(currency, minor)| minor > i128::from(policy.approval_above(currency).minor()))
    }
}
