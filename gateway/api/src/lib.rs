//! The wire types of the gateway: what its JSON looks like, shared by the server, the web app and the CLI.
//!
//! Read in this order:
//! 1. [`minor`]: how an amount is written.
//! 2. [`ledger`]: balances, statements, entries; [`inbox`]: webhooks and what became of them, and what finance waits for.
//! 3. [`acts`]: what finance does; [`payouts`]: who is paid; [`periods`]: closed months; [`ops`]: runners and the journal.
//! 4. [`page`], [`problem`]: lists and errors; [`pages`]: where the web app is.
//!
//! Invariants:
//! - An amount is an integer of minor units and ends in `_minor`. In the HTTP API it is a JSON string, because a sum may
//!   pass 2^53 − 1, beyond which JavaScript's numbers are not exact; in the CLI's JSON it is a number. Types that hold
//!   amounts are generic over the representation, [`Minor`] or [`MinorNumber`], so that nothing is converted twice.
//! - `balance_minor` is debits minus credits.
//! - Times are RFC 3339 in UTC; a position is a JSON number.
//! - Within a major version of the API fields are only added: readers ignore what they do not know.
//!
//! What is not here: how anything is computed (`fanledger-gateway`'s `read`), and any rule of the business. These types are
//! filled by hand from the domain's, so that a change inside does not leak out.

pub mod acts;
pub mod creators;
pub mod inbox;
pub mod ledger;
pub mod minor;
pub mod ops;
pub mod page;
pub mod pages;
pub mod payouts;
pub mod periods;
pub mod problem;

pub use acts::{
    AttributionReceipt, AttributionRequest, ManualEntry, ManualEntryReceipt, ManualEntryRequest, ManualEntryState,
    OpenedStripeEvent, ReasonRequest, ReversalRequest, SaidAttribution,
};
pub use creators::{
    CreatorActivity, CreatorBalance, CreatorBuckets, CreatorCurrency, CreatorKind, CreatorLine, CreatorStatement,
};
pub use inbox::{AwaitedItem, AwaitedPart, InboxItem, InboxStatus, Opening, SuspenseItem};
pub use ledger::{
    AccountBalance, AccountBalances, AccountStatement, AccountTurnover, AsOf, Cause, CauseAct, CurrencyBalances, Entry,
    EntryPosting, FactReference, LineCause, PostingLine, Side, StripeEventReference, TrialBalance,
};
pub use minor::{Minor, MinorNumber};
pub use ops::{
    Generation, GenerationState, JournalInfo, Operation, OperationAsked, OperationKind, RunnerState, RunnerStatus,
    SkipRequest, Skipped,
};
pub use page::Page;
pub use payouts::{
    PaidAlone, PaidBefore, PayoutHold, PayoutHoldReceipt, PayoutLine, PayoutLineState, PayoutProposal, PayoutRecovery,
    PayoutRun, PayoutRunReceipt, PayoutRunState, PayoutRunSummary, PayoutTotal, PayoutWithheld, ProposedPayout,
    RecoveryKind, WithheldReason,
};
pub use periods::{
    Closing, OpenKind, OpenMoney, PeriodAct, PeriodActKind, PeriodActed, PeriodHistory, PeriodReview, PeriodState,
    Periods,
};
pub use problem::{FieldProblem, Problem};
