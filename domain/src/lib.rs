//! The vocabulary of Fanledger: what the words mean and what follows from them. No I/O, no async, no clock, no randomness;
//! compiles to wasm.
//!
//! Read in this order:
//! 1. [`id`], [`time`], [`money`], [`split`]: the newtypes that everything else is made of.
//! 2. [`account`], [`entry`]: the chart of accounts, and postings that sum to zero.
//! 3. [`facts`]: what matters for money of Stripe's objects; [`stripe`] reads Stripe's JSON into them.
//! 4. [`event`]: every event of the journal.
//! 5. [`books`]: for each object that moves money, the pure function from the set of known facts to balances.
//! 6. [`ledgered`]: the aggregate that collects facts and posts the difference (`decide`, `evolve`).
//! 7. [`source`]: objects that only say whose money it is, and links.
//! 8. [`attribution`], [`period`], [`manual_entry`], [`payout_run`]: what finance does by hand; [`reason`], what it is told with.
//!
//! Invariants:
//! - Amounts are integers of minor units; sums are i128; nothing wraps.
//! - `books` is a function of the *set* of facts: order and duplicates cannot matter.
//! - `decide` takes the time; replaying a history is deterministic.
//!
//! What is not here: how events are stored, sent or read (`fanledger-journal`), who calls whom (`fanledger-commands`), and
//! anything that a person reads (`fanledger-projections`).

pub mod account;
pub mod aggregate;
pub mod attribution;
pub mod books;
pub mod entry;
pub mod event;
pub mod facts;
pub mod id;
pub mod ledgered;
pub mod manual_entry;
pub mod money;
pub mod observations;
pub mod payout_run;
pub mod period;
pub mod policy;
pub mod reason;
pub mod source;
pub mod split;
pub mod stripe;
pub mod tie_out;
pub mod time;
