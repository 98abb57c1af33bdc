//! What the gateway and the CLI read: the projections' views in the schema `read`, and nothing else.
//!
//! Read [`cut`] first (how "as of" becomes SQL), then [`balances`] and [`statement`]; the others are plain lists.
//!
//! Invariants:
//! - Rows and the position that they reflect come from one statement, hence from one snapshot.
//! - Where an earlier one decided what is asked for (is the month closed?), the answer is of no later position than that.
//! - Every column is named and cast, so that a switch of generations does not change a result's shape.
//! - What is summed is summed by Postgres in `numeric` and read as text: exact beyond 64 bits.
//! - As of is inclusive; a time or position before the first entry is an error, never an empty answer.
//!
//! Types that hold amounts are generic over how they are written: [`fanledger_gateway_api::Minor`] for HTTP,
//! [`fanledger_gateway_api::MinorNumber`] for the CLI.

mod attributions;
mod balance_transactions;
mod balances;
mod creators;
mod cut;
mod entries;
mod export;
mod inbox;
mod manual_entries;
mod payouts;
mod periods;
mod query;
mod runners;
mod statement;
mod vitals;
mod waiting;

use fanledger_domain::account::Account;
use fanledger_domain::id::{CreatorId, EntryId, StripeId};
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use attributions::attributions;
pub use balance_transactions::{
    SeenKey, SeenTransaction, Unseen, UnseenWebhook, balance_transactions_between, balance_transactions_by_id,
    last_webhook, unseen,
};
pub use balances::{AccountKey, account, accounts, trial_balance};
pub use creators::{
    ActivityFilter, ActivityKey, CreatorKey, CreatorSpan, creator_activity, creator_statement, creators,
    is_known_creator,
};
pub use entries::entry;
pub use export::{ExportRange, ExportSnapshot, ExportedAccount, ExportedEntry, ExportedPosting};
pub use inbox::{InboxFilter, inbox, inbox_item};
pub use manual_entries::{manual_entries, manual_entry};
pub use payouts::{Payables, payables, payout_holds, payout_proposal, payout_run, payout_runs};
pub use periods::{Asked, PeriodError, closed_balance, period_review, periods};
pub use runners::{journal, operation, position_of, runners};
pub use statement::{PostingKey, Span, postings, statement};
pub use vitals::{Backlog, LastOperation, awaited_backlog, imbalance, last_operations, suspense_backlog};
pub use waiting::{AwaitedKey, SuspenseKey, awaited, suspense};

/// The projections that each question is answered from; a reader that waits for a position waits for all of them.
pub mod answered_from {
    /// Trial balance and accounts.
    pub const BALANCES: &[&str] = &["balances"];
    /// The lines of an account.
    pub const POSTINGS: &[&str] = &["balances", "postings"];
    /// An entry with its cause; one of a payout run is no newer than `payouts` either.
    pub const ENTRIES: &[&str] = &["attributions", "entries", "manual_entries", "stripe_inbox"];
    /// What finance said of whose money something is.
    pub const ATTRIBUTIONS: &[&str] = &["attributions"];
    /// Entries by hand.
    pub const MANUAL_ENTRIES: &[&str] = &["manual_entries"];
    /// Who would be paid.
    pub const PAYOUT_PROPOSAL: &[&str] = &["creator_activity", "payouts"];
    /// Payout runs and what became of their transfers.
    pub const PAYOUTS: &[&str] = &["payouts", "awaited"];
    /// Held payouts.
    pub const PAYOUT_HOLDS: &[&str] = &["payouts"];
    /// Webhooks.
    pub const INBOX: &[&str] = &["stripe_inbox"];
    /// Balances of a closed month.
    pub const CLOSED: &[&str] = &["balances", "periods"];
    /// The lines of an account in a closed month.
    pub const CLOSED_POSTINGS: &[&str] = &["balances", "postings", "periods"];
    /// What was closed when.
    pub const PERIODS: &[&str] = &["periods"];
    /// What is open before a month is closed.
    pub const REVIEW: &[&str] = &["balances", "postings", "awaited", "manual_entries", "payouts"];
    /// What creators have.
    pub const CREATOR_BALANCES: &[&str] = &["creator_activity"];
    /// A creator's statement, and the entries behind it.
    pub const CREATOR_STATEMENT: &[&str] = &["creator_activity", "postings"];
    /// The same of a month.
    pub const CREATOR_STATEMENT_OF_PERIOD: &[&str] = &["creator_activity", "periods", "postings"];
    /// Money in suspense.
    pub const SUSPENSE: &[&str] = &["suspense"];
    /// Balance transactions awaited.
    pub const AWAITED: &[&str] = &["awaited"];
}

/// As of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// Everything that the projection has applied.
    Latest,
    /// Everything up to and including an instant, by one of the three times.
    Instant(Timestamp),
    /// Everything up to and including a position of the journal: the books as they were known then, whatever the times.
    Position(u64),
    /// Everything up to and including an instant, by one of the three times, as far as it was known at a position: the balances
    /// of a closed month.
    Known {
        /// The instant.
        instant: Timestamp,
        /// The position.
        position: u64,
    },
}

impl AsOf {
    fn on_the_wire(self) -> Option<fanledger_gateway_api::AsOf> {
        match self {
            Self::Latest => None,
            Self::Instant(at) | Self::Known { instant: at, .. } => {
                Some(fanledger_gateway_api::AsOf::Instant(at.to_string()))
            }
            Self::Position(position) => Some(fanledger_gateway_api::AsOf::Position(position)),
        }
    }
}

/// Which of an entry's three times counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// When it counts: the same as it occurred, or the first open instant where that period was closed.
    #[default]
    Effective,
    /// When it happened at Stripe.
    Occurred,
    /// When the journal recorded it.
    Recorded,
}

impl By {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Effective => "effective",
            Self::Occurred => "occurred",
            Self::Recorded => "recorded",
        }
    }
}

/// An answer with the position of the journal that it reflects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// Everything up to here is in the answer.
    pub position: u64,
    /// The answer.
    pub value: T,
}

/// A part of a list, with the key after which the next part begins; `None` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<T, K> {
    /// This part.
    pub items: Vec<T>,
    /// What to ask with for the next part.
    pub next: Option<K>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres could not be asked, or answered something else.
    #[error("read {what} from Postgres")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// What Postgres or the connection said.
        #[source]
        source: sqlx::Error,
    },
    /// Nobody has built the projection's tables yet.
    #[error("{what}: the projection has not been built yet; start the projector (`fanledger projector`) and try again")]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
    },
    /// The books begin later.
    #[error("{} is before the first entry{}", as_of_text(.as_of), first_text(.first))]
    BeforeFirstEntry {
        /// As of when was asked.
        as_of: AsOf,
        /// The first entry, on the same axis; `None` while the ledger is empty.
        first: Option<AsOf>,
    },
    /// The projection has not come so far. As of what was known at a close it soon will have: the close is there.
    #[error("{} is not there yet: the projection is at {position}", as_of_text(.as_of))]
    AsOfPositionAhead {
        /// As of when was asked.
        as_of: AsOf,
        /// Where the projection is.
        position: u64,
    },
    /// It was never closed, or not so often.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// Nothing was ever posted to it.
    #[error("nothing was ever posted to {0}")]
    UnknownAccount(Account),
    /// No entry names this creator.
    #[error("no entry names the creator {0}")]
    UnknownCreator(CreatorId),
    /// The lines of a creator's statement do not come to what their accounts hold.
    #[error(
        "the statement of {creator} in {currency} does not come to what their accounts hold; rebuild creator_activity, and report it"
    )]
    StatementDiffers {
        /// The creator.
        creator: CreatorId,
        /// The currency.
        currency: String,
    },
    /// No such entry.
    #[error("no entry {0}")]
    UnknownEntry(EntryId),
    /// No such entry by hand.
    #[error("there is no manual entry {0}")]
    UnknownManualEntry(StripeId),
    /// No such run.
    #[error("there is no payout run {0}")]
    UnknownPayoutRun(PayoutRunId),
    /// No such webhook.
    #[error("no webhook {0} was received")]
    UnknownStripeEvent(StripeId),
    /// No such runner.
    #[error("there is no runner {0}; /api/v1/ops/projections lists them")]
    UnknownRunner(String),
    /// Nothing was asked of it yet.
    #[error("nothing was asked of {0} yet")]
    NoOperation(String),
}

fn as_of_text(as_of: &AsOf) -> String {
    match as_of {
        AsOf::Latest => "now".to_owned(),
        AsOf::Instant(at) => at.to_string(),
        AsOf::Position(position) => format!("position {position}"),
        AsOf::Known { instant, position } => format!("{instant} as known at position {position}"),
    }
}

fn first_text(first: &Option<AsOf>) -> String {
    match first {
        None => ": the ledger is empty".to_owned(),
        Some(AsOf::Position(position)) => format!(", which is at position {position}"),
        Some(first) => format!(", which is of {}", as_of_text(first)),
    }
}
