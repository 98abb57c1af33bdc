//! The event store over Postgres, the relay to NATS, and the runner of projections.
//!
//! Reading order: [`event`] (positions, streams, events), [`append`] and [`writer`] (the one way in), [`reader`],
//! [`digest`], [`verify`], [`merkle`] and [`export`] (what makes it tamper-evident, and others able to check it),
//! [`database`] (roles and schema). The rules themselves are in SQL, in `migrations/`, because they must hold for every writer,
//! ours or not. Then [`relay`], [`message`] and [`feed`] (to NATS and back), [`runner`], [`checkpoint`], [`generation`] and
//! [`load`] (what drives projections and process managers). [`metrics`] and [`trace`]: what can be seen of it all while it runs.
//!
//! Invariants:
//! - Events enter through the SQL function `journal.append` alone.
//! - Positions are dense and in commit order; position order is the only order that anything uses.
//! - Each event is chained to the one before it.
//! - An answer `Appended` means durable.
//! - Every read is one short statement, or pages of them: nobody holds a snapshot.
//!
//! Not here: what an event means. This crate knows events as bytes and positions; `fanledger-domain` knows the rest, and
//! the check of the books is passed in to [`verify::verify`].

pub mod append;
mod backoff;
mod batch;
mod batch_rows;
pub mod checkpoint;
pub mod copy;
pub mod database;
pub mod digest;
mod entry_ids;
pub mod event;
pub mod export;
pub mod feed;
pub mod generation;
pub mod load;
pub mod merkle;
pub mod message;
pub mod metrics;
pub mod nats;
mod notices;
pub mod operation;
pub mod reader;
pub mod relay;
pub mod runner;
mod sequences;
pub mod trace;
pub mod verify;
pub mod writer;
